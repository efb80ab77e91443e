"""The entrance to training: training_loop() with the arguments of stylegan2-ada-pytorch, and more behind them.

The work is done by trainer.py (what steps), keeper.py (what is kept) and teller.py (what is told).
"""

import contextlib

import dnnlib
from torch_utils import devices, distributed, training_stats
from training import monitor, setup
from training.snapshots import save_image_grid, setup_snapshot_image_grid  # noqa: F401 (people's scripts import them from here)
from training.trainer import Trainer


# fmt: off
def training_loop(
    run_dir=".", training_set_kwargs={}, data_loader_kwargs={}, G_kwargs={}, D_kwargs={}, G_opt_kwargs={}, D_opt_kwargs={},
    augment_kwargs=None, loss_kwargs={}, metrics=[], random_seed=0, num_gpus=1, rank=0, batch_size=4, batch_gpu=4, ema_kimg=10,
    ema_rampup=None, G_reg_interval=4, D_reg_interval=16, augment_p=0, ada_target=None, ada_interval=4, ada_kimg=500, total_kimg=25000,
    kimg_per_tick=4, image_snapshot_ticks=50, network_snapshot_ticks=50, resume_pkl=None, cudnn_benchmark=True, allow_tf32=False,
    abort_fn=None, progress_fn=None,
    *, device="auto", resume_state=None, resume_kimg=0, resume_partial=False, trust_pickle=False, keep=None, ada_max_p=1.0,
    nan_streak=100, eval_at_start=False, detectors=None, metric_space=None, snap_res=None, wandb_project=None, desc=None,
    diversity_monitor=False,
):  # fmt: on
    """Train until total_kimg thousand real images were shown to D.

    The arguments up to progress_fn are those of stylegan2-ada-pytorch. The others: device: 'auto', 'cuda', 'mps' or
    'cpu'. resume_state: path of a training state of the same run, continued exactly. resume_pkl: network pickle to start
    from, with resume_kimg as the first position and resume_partial to accept one that fits in part. keep: e.g. '3,best',
    network snapshots to keep. ada_max_p: cap of the augmentation probability. nan_streak: steps in a row with non-finite
    gradients that stop the run. eval_at_start: metrics at tick 0, too. detectors: {name: path} for the metrics; metric_space:
    the feature space of those called madr_*. snap_res: width in pixels of the sample grid. wandb_project: name, to log to W&B.
    desc: for people only. diversity_monitor: look at G's diversity every tick and warn of collapse and cycling.

    Raises UserError for what the user can mend; SystemExit(75) after a stop request (SIGTERM, SIGINT), state saved.
    """
    options = dnnlib.EasyDict(locals())
    with contextlib.ExitStack() as stack:
        stack.enter_context(setup.backend_settings(cudnn_benchmark, allow_tf32))
        training_stats.reset()
        stack.callback(training_stats.reset)
        options.device = distributed.rank_device(devices.resolve(device).type, rank)
        if num_gpus > 1:
            training_stats.init_multiprocessing(rank, options.device)
        stop = stack.enter_context(monitor.StopRequest())
        trainer = Trainer(options, stop)
        stack.callback(trainer.close)
        trainer.run()
