"""The entrance to training, and what steps: training_loop() with the arguments of stylegan2-ada-pytorch and more behind them builds a
Trainer, in which every phase that is due learns, step after step, until enough images were shown.

What is kept of a run is keeper.py's part, what is told of it teller.py's; this module says when. It does not know which GAN it
trains: networks, loss, augmentation and data come by name. Must not know metrics or pages.
Everything random is drawn from (seed, position in the run), see phases.py; therefore a run that continues from its
training state is the same, bit for bit on a CPU, as one that was never interrupted, and the number of processes does
not change what is drawn.
"""

import contextlib
import copy
import sys

import torch

import dnnlib
from dnnlib import console
from dnnlib.errors import UserError
from torch_utils import devices, distributed, training_stats
from training import ada, ema, half_precision, label_facts, monitor, phases, setup, state, tracing
from training.keeper import Keeper
from training.snapshots import save_image_grid, setup_snapshot_image_grid  # noqa: F401 (people's scripts import them from here)
from training.teller import Teller

# How often several GPUs ask one another whether one of them was told to stop; asking makes the GPU wait.
STOP_CHECK_STEPS_CUDA = 8
PAGE_FN = "reporting.run_page.page.write_report_of_training"  # by name, as networks and losses are: pages are above training


# fmt: off
def training_loop(
    run_dir=".", training_set_kwargs={}, data_loader_kwargs={}, G_kwargs={}, D_kwargs={}, G_opt_kwargs={}, D_opt_kwargs={},
    augment_kwargs=None, loss_kwargs={}, metrics=[], random_seed=0, num_gpus=1, rank=0, batch_size=4, batch_gpu=4, ema_kimg=10,
    ema_rampup=None, G_reg_interval=4, D_reg_interval=16, augment_p=0, ada_target=None, ada_interval=4, ada_kimg=500, total_kimg=25000,
    kimg_per_tick=4, image_snapshot_ticks=50, network_snapshot_ticks=50, resume_pkl=None, cudnn_benchmark=True, allow_tf32=False,
    abort_fn=None, progress_fn=None,
    *, device="auto", resume_state=None, resume_kimg=0, resume_partial=False, trust_pickle=False, keep=None, ada_max_p=1.0,
    nan_streak=100, eval_at_start=False, detectors=None, metric_space=None, snap_res=None, wandb_project=None, desc=None,
    diversity_monitor=False, page_fn=PAGE_FN, cache="on",
    snapshots_apart=False, half=None, kernels="auto", n_critic=1, backbone=None, profile_steps=None, lr_tail=0,
):  # fmt: on
    """Train until total_kimg thousand real images were shown to D.

    The arguments up to progress_fn are those of stylegan2-ada-pytorch. The others: device: 'auto', 'cuda', 'mps' or
    'cpu'. resume_state: path of a training state of the same run, continued exactly. resume_pkl: network pickle to start
    from, with resume_kimg as the first position and resume_partial to accept one that fits in part. keep: e.g. '3,best',
    network snapshots to keep. ada_max_p: cap of the augmentation probability. nan_streak: steps in a row with non-finite
    gradients that stop the run. eval_at_start: metrics at tick 0, too. detectors: {name: path} for the metrics; metric_space:
    the feature space of those called madr_*. snap_res: width in pixels of the sample grid. wandb_project: name, to log to W&B.
    desc: for people only. diversity_monitor: look at G's diversity every tick and warn of collapse and cycling.
    page_fn: name of a function of (run folder, say) that writes the run's page beside its samples; None for no page.
    cache: 'on' | 'off', whether the metrics use and keep statistics of the real images. snapshots_apart: name snapshots and
    pictures of one kimg apart, where there are several; else the later one replaces the earlier. half: 'bf16' has the blocks of
    num_fp16_res compute in bfloat16 where the machine does (half_precision.py); None: in float16 on CUDA.
    kernels: 'auto' compiles the kernels of this device once per machine and uses them where that succeeds, 'off' does without.
    n_critic: G learns on every n-th step, D on all. backbone: for people only, the networks' kind.
    profile_steps: so many steps go into trace.json (tracing.py); None: no trace.
    lr_tail: the learning rates of G and D fall to 0 over this last share of the run; 0: they stay.

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
        stack.enter_context(setup.rare_garbage_collection())
        trainer.run()


class Trainer:
    """One run in one process (of one or several)."""

    def __init__(self, options, stop):
        self.options, self.stop = options, stop
        self.device, self.is_first = options.device, options.rank == 0
        self.warned_of_p = False
        self.nonfinite_of_step = []  # (phase, count) of the newest step, not looked at yet
        self.progress = state.Progress(int(options.resume_kimg * 1000))
        self.teller = Teller(options, self.progress)
        self.say = self.teller.say
        self.trace = tracing.StepTrace(options.profile_steps if self.is_first else None, options.run_dir, self.device, self.say)
        self.keeper = Keeper(options, self.progress, self.say)
        self.is_new = self.keeper.resumed is None
        self.check_options()
        self.build_data()
        self.build_networks()
        self.build_training()
        self.restore()
        self.teller.begin_pictures(self.training_set, self.G, self.G_ema, self.is_new, self.keeper.facts())
        self.teller.begin_logs(self.fingerprint, len(self.training_set), self.keeper.facts())

    # --- building ---------------------------------------------------------------------------------------------------

    def check_options(self):
        o = self.options
        if o.batch_size % (o.batch_gpu * o.num_gpus):
            raise UserError(f"--batch={o.batch_size} must be a multiple of --gpus times --batch-gpu ({o.num_gpus} x {o.batch_gpu})")
        self.teller.check_wishes()

    def build_data(self):
        o = self.options
        self.say("Loading training set...")
        self.training_set, self.in_memory = setup.build_training_set(o.training_set_kwargs, self.device, o.G_kwargs)
        if self.is_first:
            self.training_set.check_images()
        self.labels = setup.all_labels(self.training_set)
        self.fingerprint = self.training_set.content_fingerprint()
        if not self.is_new:
            setup.check_unchanged(self.keeper.facts()["data_fingerprint"], self.fingerprint, o.training_set_kwargs.get("path"))
        self.say("\nNum images: ", len(self.training_set))
        self.say("Image shape:", self.training_set.image_shape)
        self.say(f"Label shape: {self.training_set.label_shape}\n")

    def build_networks(self):
        o = self.options
        self.say("Constructing networks...")
        setup.prepare_kernels(o.kernels, self.device, self.is_first)
        self.G, self.D = setup.build_networks(o.G_kwargs, o.D_kwargs, self.training_set, self.device, o.random_seed)
        self.G_ema = copy.deepcopy(self.G).eval()
        told = half_precision.begin(o.half, [self.G, self.D], self.device)
        if told is not None:
            self.say(told)
        label_facts.keep_with(self.G_ema, label_facts.of_training_set(self.training_set, self.labels))
        if o.resume_pkl is not None and self.is_new and self.is_first:
            self.say(f'Resuming from "{o.resume_pkl}"')
            self.say(setup.load_pretrained(o.resume_pkl, dict(G=self.G, D=self.D, G_ema=self.G_ema), o.resume_partial, o.trust_pickle))
        if self.is_first:
            setup.print_summaries(self.G, self.D, o.batch_gpu, self.device)
        self.say("Setting up augmentation...")
        self.augment_pipe = setup.build_augment_pipe(o.augment_kwargs, o.augment_p, o.ada_target, self.device)
        elsewhere = "" if self.device.type == "cuda" else f" (here: processes on {self.device.type})"
        self.say(f"Distributing across {o.num_gpus} GPUs...{elsewhere}")  # so begun on every device: people's scripts look for it
        for module in (self.G, self.D, self.G_ema, self.augment_pipe):
            if module is not None:
                distributed.broadcast_module(module)

    def build_training(self):
        o = self.options
        self.say("Setting up training phases...")
        self.loss = setup.build_loss(o.loss_kwargs, self.G, self.D, self.augment_pipe, self.device)
        of_G, of_D = (setup.on_this_device(opt_kwargs, self.device) for opt_kwargs in (o.G_opt_kwargs, o.D_opt_kwargs))
        self.phases, self.optimizers = phases.setup_phases(self.G, self.D, of_G, of_D, o.G_reg_interval, o.D_reg_interval, o.n_critic)
        self.rates = phases.LearningRates(self.optimizers.values(), o.total_kimg, o.lr_tail)
        self.teller.begin_statistics(self.phases, self.G.z_dim, self.labels)
        self.ada_stats = training_stats.Collector(regex="Loss/signs/real") if self.augment_pipe is not None and o.ada_target is not None else None
        self.loss.attach(
            dnnlib.EasyDict(
                **{
                    name: o[name]
                    for name in ("rank", "num_gpus", "device", "run_dir", "training_set_kwargs", "random_seed", "batch_size", "batch_gpu")
                },
                G=self.G,
                D=self.D,
                G_ema=self.G_ema,
                optimizers=self.optimizers,
                training_set=self.training_set,
                keeps_state=True,
            )
        )

    def restore(self):
        """Take up the resumed run, if there is one; then the data from that position on."""
        o = self.options
        self.keeper.hold(
            networks=dict(G=self.G, D=self.D, G_ema=self.G_ema, augment_pipe=self.augment_pipe),
            optimizers=self.optimizers,
            loss=self.loss,
            diversity=self.teller.watch.monitor,
            collectors=[collector for collector in (self.teller.stats, self.ada_stats) if collector is not None],
        )
        self.keeper.restore()
        self.teller.watch.begin(self.training_set)
        self.data = setup.build_data_iterator(
            self.training_set,
            self.in_memory,
            o.data_loader_kwargs,
            self.device,
            o.batch_size,
            o.batch_gpu,
            o.rank,
            o.num_gpus,
            o.random_seed,
            self.progress.cur_nimg,
        )

    def close(self):
        with contextlib.ExitStack() as stack:
            for close in (self.teller.close, self.loss.close, self.trace.close):  # the last one first; each, whatever the others raise
                stack.callback(close)

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self):
        o, progress = self.options, self.progress
        self.say(f"Training for {o.total_kimg} kimg...\n")
        if not self.is_new:
            self.teller.make_up_for_metrics(self.keeper.snapshot_path())
        self.teller.tell_progress()
        done = progress.cur_nimg >= o.total_kimg * 1000 and not self.is_new
        if done and progress.cur_nimg > progress.tick_start_nimg:
            self.finish_tick(done)  # it was stopped after its last step, before that was told and evaluated
        elif done and self.is_first:
            console.note(f"the run is at kimg {progress.cur_nimg / 1000:g} of {o.total_kimg:g} already; give a larger --kimg to go on")
        while not done:
            self.trace.begin_step()
            self.train_step()
            self.trace.end_step()
            self.stop_if_asked()
            done = progress.cur_nimg >= o.total_kimg * 1000
            aborted = o.abort_fn is not None and distributed.any_rank(o.abort_fn(), self.device)
            tick_is_over = progress.cur_tick == 0 or progress.cur_nimg >= progress.tick_start_nimg + o.kimg_per_tick * 1000
            if aborted:
                self.say("\nAborting...")
                done = True
            if done or tick_is_over:
                self.finish_tick(done)
        self.say("\nExiting...")

    def stop_if_asked(self):
        several_gpus = self.options.num_gpus > 1 and self.device.type == "cuda"
        if several_gpus and self.progress.batch_idx % STOP_CHECK_STEPS_CUDA:
            return
        if not distributed.any_rank(self.stop.requested, self.device):
            return
        self.say(f"\nStopping on {self.stop.signal_name or 'a signal'}: saving the training state...")
        saved = self.is_sound()
        if saved:
            if not self.teller.speaks_of(self.keeper.snapshot_path()):
                self.keeper.save_network()
            self.save_state()
        distributed.barrier()
        what = f"Saved at kimg {self.progress.cur_nimg / 1000:.1f}" if saved else "Only the state before that is there"
        self.say(f"{what}; go on with --resume=latest. Exit code {distributed.EXIT_STOPPED}.")
        sys.exit(distributed.EXIT_STOPPED)

    def finish_tick(self, done):
        """Statistics, then snapshots when they are due, then metrics."""
        o, progress, tick = self.options, self.progress, self.progress.cur_tick
        self.settle_nonfinite()
        self.teller.clock.end_tick()
        augment_p = float(self.augment_pipe.p.cpu()) if self.augment_pipe is not None else 0.0
        self.teller.tell_tick(self.G, augment_p, self.loss.telemetry())
        self.teller.tell_samples(tick, done)
        progress.cur_tick += 1
        progress.tick_start_nimg = progress.cur_nimg
        if o.network_snapshot_ticks is not None and (done or tick % o.network_snapshot_ticks == 0):
            self.keep_snapshot(with_metrics=tick > 0 or o.eval_at_start or done)
        self.teller.tell_progress()
        self.teller.clock.begin_tick()

    def keep_snapshot(self, with_metrics):
        """Save networks and state if they are worth it, evaluate the networks, delete older ones."""
        if self.is_sound():
            data, path = self.keeper.save_network()
            self.teller.note_snapshot(path)
            self.save_state()
            if with_metrics:
                self.teller.evaluate(self.options.metrics, data["G_ema"], path)
            self.keeper.prune(lambda: self.teller.snapshots_to_spare(with_best=self.keeper.keep_best))
        self.teller.write_page()

    def is_sound(self):
        """Whether what would be saved can be trusted; says so if not."""
        self.settle_nonfinite()
        return self.keeper.is_sound()

    def save_state(self):
        """The training state. Collective: every rank calls it, after is_sound()."""
        self.progress.elapsed_sec = self.teller.clock.elapsed_sec()
        self.keeper.save_state(dict(data_fingerprint=self.fingerprint, **self.teller.facts()))

    # --- the step ---------------------------------------------------------------------------------------------------

    def train_step(self):
        """Every phase that is due, then the averages and the controllers; advances the position by one batch."""
        o, progress = self.options, self.progress
        self.settle_nonfinite()
        rounds = o.batch_size // (o.batch_gpu * o.num_gpus)
        reals = [next(self.data) for _ in range(rounds)]
        reals = [(img.to(self.device).to(torch.float32) / 127.5 - 1, c.to(self.device)) for img, c in reals]
        running = setup.running_buffers([self.G, self.D])
        before = [buffer.clone() for _name, buffer in running]
        self.rates.set(progress.cur_nimg)
        for phase_index, phase in enumerate(self.phases):
            if progress.batch_idx % phase.interval == 0:
                self.run_phase(phase_index, phase, reals)
        setup.join_running_buffers(running, before)
        ema.update_ema(self.G_ema, self.G, ema.ema_beta(o.batch_size, o.ema_kimg, o.ema_rampup, progress.cur_nimg))
        progress.cur_nimg += o.batch_size
        progress.batch_idx += 1
        self.adapt_augmentation()

    def run_phase(self, phase_index, phase, reals):
        """Latents for every microbatch of this process, gradients, one optimizer step. reals: [(images, labels)] of the step."""
        o, cur_nimg = self.options, self.progress.cur_nimg
        microbatches = []
        for round_index, (real_img, real_c) in enumerate(reals):
            k = round_index * o.num_gpus + o.rank
            z, c = phases.draw_latents(phase_index, k, o.batch_gpu, self.G.z_dim, self.labels, o.random_seed, cur_nimg)
            microbatches.append((k, real_img, real_c, z.to(self.device), c.to(self.device)))
        self.loss.begin_phase(phase.name, cur_nimg)
        with self.teller.timers[phase.name]:
            num_nonfinite = phases.run_phase(phase, phase_index, self.loss, microbatches, o.random_seed, cur_nimg)
        self.nonfinite_of_step.append((phase.name, num_nonfinite))
        self.loss.end_phase(phase.name)

    def adapt_augmentation(self):
        o = self.options
        if self.ada_stats is None or self.progress.batch_idx % o.ada_interval:
            return
        self.ada_stats.update()
        p = ada.adapted_p(
            float(self.augment_pipe.p), self.ada_stats["Loss/signs/real"], o.ada_target, o.batch_size, o.ada_interval, o.ada_kimg, o.ada_max_p
        )
        self.augment_pipe.p.copy_(torch.as_tensor(p))
        if p >= o.ada_max_p and not self.warned_of_p:
            self.warned_of_p = True
            if self.is_first:
                console.warn(
                    f"the augmentation probability has reached its cap --aug-max={o.ada_max_p:g}; D tells all reals from fakes "
                    "(too few images, or G has collapsed)."
                )

    def settle_nonfinite(self):
        """Count the non-finite gradients of the step before (looked at late, so that a GPU need not wait for the answer)."""
        self.progress.count_nonfinite({name: bool(count.item()) for name, count in self.nonfinite_of_step})
        self.nonfinite_of_step = []
        if self.progress.nonfinite_streak >= self.options.nan_streak:
            newest = state.latest_state(self.options.run_dir)
            raise UserError(
                f"stopped at kimg {self.progress.cur_nimg / 1000:.1f}: {self.progress.nonfinite_streak} steps in a row had non-finite gradients "
                f"(--nan-streak={self.options.nan_streak}). The last good state is kept: {newest or 'none was saved yet'}. Lower --glr and --dlr, raise "
                "--gamma, or train with --fp32=1, then --resume=latest or start anew."
            )
