"""The training loop: which step follows which, and what is written when.

Knows phases, snapshots and state, but not which GAN it trains: networks, loss, augmentation and metrics come by name.
Everything random is drawn from (seed, position in the run), see phases.py; therefore a run that continues from its
training state is the same, bit for bit on a CPU, as one that was never interrupted, and the number of processes does
not change what is drawn.
"""

import contextlib
import copy
import os
import sys

import torch

import dnnlib
from dnnlib import files
from dnnlib.errors import UserError
from metrics import diversity_kernels, requirements
from reporting.run_page import page
from torch_utils import devices, distributed, misc, training_stats
from training import ada, ema, evaluation, monitor, phases, provenance, setup, snapshots, state
from training.diversity import watch
from training.snapshots import save_image_grid, setup_snapshot_image_grid  # noqa: F401 (people's scripts import them from here)

# How often several GPUs ask one another whether one of them was told to stop; asking makes the GPU wait.
STOP_CHECK_STEPS_CUDA = 8
# So many bad steps in a row, and the weights are no longer worth saving. Fewer are stray overflows: they were kept off the weights.
DOUBTFUL_STREAK = 3


def training_loop(
    run_dir=".",
    training_set_kwargs={},
    data_loader_kwargs={},
    G_kwargs={},
    D_kwargs={},
    G_opt_kwargs={},
    D_opt_kwargs={},
    augment_kwargs=None,
    loss_kwargs={},
    metrics=[],
    random_seed=0,
    num_gpus=1,
    rank=0,
    batch_size=4,
    batch_gpu=4,
    ema_kimg=10,
    ema_rampup=None,
    G_reg_interval=4,
    D_reg_interval=16,
    augment_p=0,
    ada_target=None,
    ada_interval=4,
    ada_kimg=500,
    total_kimg=25000,
    kimg_per_tick=4,
    image_snapshot_ticks=50,
    network_snapshot_ticks=50,
    resume_pkl=None,
    cudnn_benchmark=True,
    allow_tf32=False,
    abort_fn=None,
    progress_fn=None,
    *,
    device="auto",
    resume_state=None,
    resume_kimg=0,
    resume_partial=False,
    trust_pickle=False,
    keep=None,
    ada_max_p=1.0,
    nan_streak=100,
    eval_at_start=False,
    detectors=None,
    metric_space=None,
    snap_res=None,
    wandb_project=None,
    desc=None,
    diversity_monitor=False,
):
    """Train until total_kimg thousand real images were shown to D.

    The arguments up to progress_fn are those of stylegan2-ada-pytorch. The others: device: 'auto', 'cuda', 'mps' or
    'cpu'. resume_state: path of a training state of the same run, continued exactly. resume_pkl: network pickle to start
    from, with resume_kimg as the first position and resume_partial to accept one that fits in part. keep: e.g. '3,best',
    network snapshots to keep. ada_max_p: cap of the augmentation probability. nan_streak: steps in a row with non-finite
    gradients that stop the run. eval_at_start: metrics at tick 0, too. detectors: {name: path} for the metrics; metric_space:
    the feature space of those called madr_*. snap_res: width in pixels of the sample grid. wandb_project: name, to log to W&B. desc: for people only. diversity_monitor: look at
    G's diversity every tick and warn of collapse and cycling.

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


class Trainer:
    """One run in one process (of one or several)."""

    def __init__(self, options, stop):
        self.options, self.stop = options, stop
        self.device, self.is_first = options.device, options.rank == 0
        self.writer = None
        self.warned_of_p = False
        self.evaluated = set()  # paths of the pickles that metrics were computed of
        self.resumed = state.load_state(options.resume_state) if options.resume_state else None
        self.check_options()
        self.build_data()
        self.build_model()
        self.build_training()
        self.restore()
        self.export_initial_samples()
        self.open_logs()

    def say(self, *text):
        if self.is_first:
            print(*text, flush=True)

    # --- building -------------------------------------------------------------------------------------------------

    def check_options(self):
        o = self.options
        if o.batch_size % (o.batch_gpu * o.num_gpus):
            raise UserError(f"--batch={o.batch_size} must be a multiple of --gpus times --batch-gpu ({o.num_gpus} x {o.batch_gpu})")
        self.keep, self.keep_best = snapshots.parse_keep(o.keep)
        if o.wandb_project:
            monitor.check_wandb()
        if self.is_first:
            requirements.check(o.metrics, evaluation.detectors_of(o))

    def build_data(self):
        o = self.options
        self.say("Loading training set...")
        self.training_set, self.in_memory = setup.build_training_set(o.training_set_kwargs, self.device)
        if self.is_first and hasattr(self.training_set, "check_images"):
            self.training_set.check_images()
        self.labels = setup.all_labels(self.training_set)
        self.fingerprint = self.training_set.content_fingerprint()
        if self.resumed:
            setup.check_unchanged(self.resumed["facts"]["data_fingerprint"], self.fingerprint, o.training_set_kwargs.get("path"))
        self.say("\nNum images: ", len(self.training_set))
        self.say("Image shape:", self.training_set.image_shape)
        self.say(f"Label shape: {self.training_set.label_shape}\n")

    def build_model(self):
        o = self.options
        self.say("Constructing networks...")
        self.G, self.D = setup.build_networks(o.G_kwargs, o.D_kwargs, self.training_set, self.device, o.random_seed)
        self.G_ema = copy.deepcopy(self.G).eval()
        if o.resume_pkl is not None and self.resumed is None and self.is_first:
            self.say(f'Resuming from "{o.resume_pkl}"')
            self.say(setup.load_pretrained(o.resume_pkl, dict(G=self.G, D=self.D, G_ema=self.G_ema), o.resume_partial, o.trust_pickle))
        if self.is_first:
            setup.print_summaries(self.G, self.D, o.batch_gpu, self.device)
        self.say("Setting up augmentation...")
        self.augment_pipe = setup.build_augment_pipe(o.augment_kwargs, o.augment_p, o.ada_target, self.device)
        self.say(f"Distributing across {o.num_gpus} GPUs...")  # so worded on every device: people's scripts look for it
        for module in (self.G, self.D, self.G_ema, self.augment_pipe):
            if module is not None:
                distributed.broadcast_module(module)

    def build_training(self):
        o = self.options
        self.say("Setting up training phases...")
        self.loss = dnnlib.util.construct_class_by_name(
            device=self.device, G_mapping=self.G.mapping, G_synthesis=self.G.synthesis, D=self.D, augment_pipe=self.augment_pipe, **o.loss_kwargs
        )
        self.phases, self.optimizers = phases.setup_phases(self.G, self.D, o.G_opt_kwargs, o.D_opt_kwargs, o.G_reg_interval, o.D_reg_interval)
        self.timers = {phase.name: monitor.PhaseTimer(self.device) for phase in self.phases}
        self.stats = training_stats.Collector(regex=".*")
        self.ada_stats = training_stats.Collector(regex="Loss/signs/real") if self.augment_pipe is not None and o.ada_target is not None else None
        self.progress = state.Progress(int(o.resume_kimg * 1000))
        self.nonfinite_of_step = []
        if hasattr(self.loss, "attach"):
            self.loss.attach(
                dnnlib.EasyDict(
                    G=self.G,
                    D=self.D,
                    G_ema=self.G_ema,
                    rank=o.rank,
                    num_gpus=o.num_gpus,
                    device=self.device,
                    run_dir=o.run_dir,
                    training_set=self.training_set,
                    training_set_kwargs=o.training_set_kwargs,
                    random_seed=o.random_seed,
                    batch_size=o.batch_size,
                    batch_gpu=o.batch_gpu,
                )
            )
        self.watch = watch.DiversityWatch(
            o.diversity_monitor, self.is_first, self.device, o.random_seed, self.G.z_dim, self.labels, diversity_kernels.k_means
        )

    # --- state ------------------------------------------------------------------------------------------------------

    def state_bag(self):
        return state.StateBag(
            G=self.G,
            D=self.D,
            G_ema=self.G_ema,
            augment_pipe=self.augment_pipe,
            progress=self.progress,
            loss=self.loss if hasattr(self.loss, "state_dict") else None,
            diversity=self.watch.monitor,
            optional=["diversity"],
            **{f"{name}_opt": opt for name, opt in self.optimizers.items()},
        )

    def collectors(self):
        return [c for c in (self.stats, self.ada_stats) if c is not None]

    def restore(self):
        if self.resumed is not None:
            self.say(f'Resuming from "{self.options.resume_state}"')
            self.state_bag().restore(self.resumed, self.collectors())
        self.watch.begin(self.training_set)
        o = self.options
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

    def is_sound(self):
        """Whether what would be saved can be trusted; says so if not."""
        self.settle_nonfinite()
        if self.progress.nonfinite_streak < DOUBTFUL_STREAK and all(setup.is_finite(network) for network in (self.G, self.D)):
            return True
        self.say("Nothing is saved: the weights or the last gradients are not finite.")
        return False

    def save_state(self):
        """The training state. Collective: every rank calls it, after is_sound()."""
        self.progress.elapsed_sec = self.clock.elapsed_sec()
        facts = dict(
            data_fingerprint=self.fingerprint,
            stats_jsonl_bytes=self.writer.bytes_written() if self.writer else 0,
            maintenance_sec=self.clock.untold_maintenance_sec(),
        )
        saved = self.state_bag().collect(self.collectors(), facts)
        if self.is_first:
            state.save_state(self.options.run_dir, self.progress.cur_nimg // 1000, saved)

    # --- samples, snapshots, metrics ------------------------------------------------------------------------------------

    def export_initial_samples(self):
        if not self.is_first:
            return
        self.say("Exporting sample images...")
        o = self.options
        self.grid_size, images, self.grid_z, self.grid_c = setup.build_grid(
            self.training_set, self.G, o.random_seed, o.batch_gpu, self.device, o.snap_res
        )
        if self.resumed is None:
            save_image_grid(images, os.path.join(o.run_dir, "reals.png"), drange=[0, 255], grid_size=self.grid_size)
            self.save_samples("fakes_init.png")

    def save_samples(self, name):
        images = snapshots.render_grid(self.G_ema, self.grid_z, self.grid_c)
        save_image_grid(images, os.path.join(self.options.run_dir, name), drange=[-1, 1], grid_size=self.grid_size)

    def save_network(self):
        """Write the network pickle. Returns (snapshot data, path); collective."""
        o = self.options
        for module in (self.G, self.D, self.augment_pipe):
            if module is not None and o.num_gpus > 1:
                misc.check_ddp_consistency(module)
        data = snapshots.build_snapshot_data(self.G, self.D, self.G_ema, self.augment_pipe, o.training_set_kwargs)
        path = self.snapshot_path()
        if self.is_first:
            snapshots.save_network_snapshot(path, data)
        return data, path

    def snapshot_path(self):
        return os.path.join(self.options.run_dir, snapshots.NETWORK_SNAPSHOT.format(kimg=self.progress.cur_nimg // 1000))

    def snapshot_is_spoken_of(self):
        """Whether the pickle of this kimg was evaluated or, as the first process knows, called healthy: then it stays what it was."""
        path = self.snapshot_path()
        return distributed.any_rank(path in self.evaluated or os.path.basename(path) == self.watch.healthy_snapshot(), self.device)

    def evaluate_metrics(self, metrics, snapshot_data, path):
        if not metrics:
            return
        self.say("Evaluating metrics...")
        self.evaluated.add(path)
        for results in evaluation.evaluate(self.options, metrics, snapshot_data["G_ema"], self.device, path):
            if self.is_first:
                self.writer.write_scalars(
                    {"Metrics/" + name: value for name, value in results.items()}, self.progress.cur_nimg, self.clock.elapsed_sec()
                )

    def prune_snapshots(self):
        if self.is_first and self.keep is not None:
            best = evaluation.best_snapshot(self.options.run_dir, self.options.metrics) if self.keep_best else None
            snapshots.prune_network_snapshots(self.options.run_dir, self.keep, [self.watch.healthy_snapshot(), best])

    def evaluate_pending_metrics(self):
        """A run that was killed during the evaluation of its newest snapshot makes up for what is missing."""
        path = self.snapshot_path()
        if self.progress.cur_nimg == self.progress.tick_start_nimg and self.progress.cur_tick > 1 and os.path.isfile(path):
            self.evaluate_metrics(evaluation.missing_metrics(self.options.run_dir, self.options.metrics, path), dict(G_ema=self.G_ema), path)
            self.clock.begin_tick()

    def open_logs(self):
        o = self.options
        facts = self.resumed["facts"] if self.resumed else {}
        self.clock = monitor.Clock(self.progress.elapsed_sec, facts.get("maintenance_sec", 0.0))  # states of early versions lack it
        if self.is_first:
            files.clean_stale_temporaries(o.run_dir)  # a kill while saving leaves a hidden file as large as what was saved
            self.say("Initializing logs...")
            provenance.record(o.run_dir, provenance.gather(self.fingerprint, len(self.training_set), self.device, self.progress.cur_nimg / 1000))
            self.writer = monitor.StatsWriter(
                o.run_dir,
                facts.get("stats_jsonl_bytes"),
                self.progress.cur_nimg / 1000,
                o.wandb_project,
                {k: v for k, v in o.items() if k.endswith("kwargs") or isinstance(v, (int, float, str))},
            )

    def close(self):
        if self.writer is not None:
            self.writer.close()

    # --- training -------------------------------------------------------------------------------------------------------

    def run(self):
        o = self.options
        self.say(f"Training for {o.total_kimg} kimg...\n")
        if self.resumed is not None:
            self.evaluate_pending_metrics()
        self.tell_progress()
        done = self.progress.cur_nimg >= o.total_kimg * 1000 and self.resumed is not None
        if done and self.progress.cur_nimg > self.progress.tick_start_nimg:
            self.finish_tick(done)  # it was stopped after its last step, before that was told and evaluated
        while not done:
            self.train_step()
            self.stop_if_asked()
            done = self.progress.cur_nimg >= o.total_kimg * 1000
            aborted = o.abort_fn is not None and distributed.any_rank(o.abort_fn(), self.device)
            tick_is_over = self.progress.cur_tick == 0 or self.progress.cur_nimg >= self.progress.tick_start_nimg + o.kimg_per_tick * 1000
            if aborted:
                self.say("\nAborting...")
                done = True
            if done or tick_is_over:
                self.finish_tick(done)
        self.say("\nExiting...")

    def tell_progress(self):
        if self.options.progress_fn is not None:
            self.options.progress_fn(self.progress.cur_nimg // 1000, self.options.total_kimg)

    def train_step(self):
        """Every phase that is due, then the averages and the controllers; advances the position by one batch."""
        o, progress = self.options, self.progress
        self.settle_nonfinite()
        rounds = o.batch_size // (o.batch_gpu * o.num_gpus)
        reals = [next(self.data) for _ in range(rounds)]
        reals = [(img.to(self.device).to(torch.float32) / 127.5 - 1, c.to(self.device)) for img, c in reals]
        running = setup.running_buffers([self.G, self.D])
        before = [buffer.clone() for _name, buffer in running]
        for phase_index, phase in enumerate(self.phases):
            if progress.batch_idx % phase.interval:
                continue
            microbatches = []
            for round_index, (real_img, real_c) in enumerate(reals):
                k = round_index * o.num_gpus + o.rank
                z, c = phases.draw_latents(phase_index, k, o.batch_gpu, self.G.z_dim, self.labels, o.random_seed, progress.cur_nimg)
                microbatches.append((k, real_img, real_c, z.to(self.device), c.to(self.device)))
            if hasattr(self.loss, "begin_phase"):
                self.loss.begin_phase(phase.name, progress.cur_nimg)
            with self.timers[phase.name]:
                num_nonfinite = phases.run_phase(phase, phase_index, self.loss, microbatches, o.random_seed, progress.cur_nimg)
            self.nonfinite_of_step.append((phase.name, num_nonfinite))
            if hasattr(self.loss, "end_phase"):
                self.loss.end_phase(phase.name)
        setup.join_running_buffers(running, before)
        ema.update_ema(self.G_ema, self.G, ema.ema_beta(o.batch_size, o.ema_kimg, o.ema_rampup, progress.cur_nimg))
        progress.cur_nimg += o.batch_size
        progress.batch_idx += 1
        self.adapt_augmentation()

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
            self.say(
                f"Warning: the augmentation probability has reached its cap --aug-max={o.ada_max_p:g}; D tells all reals from fakes "
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

    def stop_if_asked(self):
        several_gpus = self.options.num_gpus > 1 and self.device.type == "cuda"
        if several_gpus and self.progress.batch_idx % STOP_CHECK_STEPS_CUDA:
            return
        if not distributed.any_rank(self.stop.requested, self.device):
            return
        self.say(f"\nStopping on {self.stop.signal_name or 'a signal'}: saving the training state...")
        saved = self.is_sound()
        if saved:
            if not self.snapshot_is_spoken_of():
                self.save_network()
            self.save_state()
        distributed.barrier()
        what = f"Saved at kimg {self.progress.cur_nimg / 1000:.1f}" if saved else "Only the state before that is there"
        self.say(f"{what}; go on with --resume=latest. Exit code {distributed.EXIT_STOPPED}.")
        sys.exit(distributed.EXIT_STOPPED)

    def finish_tick(self, done):
        """Statistics, then snapshots when they are due, then metrics."""
        o, progress = self.options, self.progress
        self.settle_nonfinite()
        self.clock.end_tick()
        self.report_tick()
        tick = progress.cur_tick
        if self.is_first and o.image_snapshot_ticks is not None and (done or tick % o.image_snapshot_ticks == 0):
            self.save_samples(f"fakes{progress.cur_nimg // 1000:06d}.png")
        progress.cur_tick += 1
        progress.tick_start_nimg = progress.cur_nimg
        if o.network_snapshot_ticks is not None and (done or tick % o.network_snapshot_ticks == 0):
            if self.is_sound():
                data, path = self.save_network()
                self.watch.note_snapshot(os.path.basename(path), progress.cur_nimg / 1000)
                self.save_state()
                if tick > 0 or o.eval_at_start or done:
                    self.evaluate_metrics(o.metrics, data, path)
                self.prune_snapshots()
            if o.image_snapshot_ticks is not None and self.is_first:
                page.write_report_of_training(o.run_dir, self.say)
        self.tell_progress()
        self.clock.begin_tick()

    def report_tick(self):
        o, progress = self.options, self.progress
        augment_p = float(self.augment_pipe.p.cpu()) if self.augment_pipe is not None else 0.0
        telemetry = dict(self.loss.telemetry()) if hasattr(self.loss, "telemetry") else {}
        telemetry.update(self.watch.look(self.G, o.batch_gpu, progress.cur_nimg / 1000, progress.batch_idx))
        values = {
            "Progress/tick": progress.cur_tick,
            "Progress/kimg": progress.cur_nimg / 1000,
            "Progress/augment": augment_p,
            "Progress/nonfinite_steps": progress.nonfinite_steps,
        }
        for name, value in values.items():
            training_stats.report0(name, value)
        for phase in self.phases:
            milliseconds = self.timers[phase.name].milliseconds()
            training_stats.report0(f"Timing/{phase.name}", [] if milliseconds is None else milliseconds)
        resources = monitor.report_resources(self.clock, progress.cur_nimg - progress.tick_start_nimg, self.device)
        self.stats.update()
        if self.is_first:
            print(
                monitor.tick_line(progress.cur_tick, progress.cur_nimg / 1000, augment_p=augment_p, extra=telemetry.items(), **resources), flush=True
            )
            self.writer.write(self.stats.as_dict(), progress.cur_nimg, self.clock.elapsed_sec())
        self.watch.tell(self.say)
