"""What a run tells: text, the tick line, statistics, pictures of samples, results of metrics, its page.

The one part of the loop that knows metrics; the page is written by a function that the options name. Must not know how networks learn or what is kept for a resume.
"""

import os

import dnnlib
from dnnlib import cache, files
from metrics import diversity_kernels, requirements
from torch_utils import distributed, training_stats
from training import evaluation, monitor, provenance, setup, snapshots
from training.diversity import watch


class Teller:
    """One per process; the first one speaks and writes, the others take part in what all do together."""

    def __init__(self, options, progress):
        self.options, self.progress = options, progress
        self.device, self.is_first = options.device, options.rank == 0
        self.writer = None
        self.evaluated = set()  # paths of the pickles that metrics were computed of
        self._write_page = None if options.page_fn is None else dnnlib.util.get_obj_by_name(options.page_fn)

    def say(self, *text):
        if self.is_first:
            print(*text, flush=True)

    def check_wishes(self):
        """Refuse now what the run could not tell later: a logger or a metric's network that is missing."""
        if self.options.wandb_project:
            monitor.check_wandb()
        if self.is_first:
            requirements.check(self.options.metrics, evaluation.detectors_of(self.options))
            if self.options.metrics and self.options.cache != "off":
                cache.is_writable()

    # --- beginning --------------------------------------------------------------------------------------------------

    def begin_statistics(self, phases, z_dim, labels):
        """From here on statistics are collected. Restoring a state may follow."""
        o = self.options
        self.timers = {phase.name: monitor.PhaseTimer(self.device) for phase in phases}
        self.stats = training_stats.Collector(regex=".*")
        self.watch = watch.DiversityWatch(o.diversity_monitor, self.is_first, self.device, o.random_seed, z_dim, labels, diversity_kernels.k_means)

    def begin_pictures(self, training_set, G, G_ema, is_new, facts):
        """Choose what the sample grid shows, for the whole run; a new run gets pictures of the reals and of the untrained networks.
        Refuses a set with too few images for the metrics of the run.

        facts: as in begin_logs.
        """
        requirements.check_data(self.options.metrics, training_set)
        self.G_ema = G_ema
        self.grid_is_of_seeds = is_new or facts.get("grid_is_of_seeds", False)
        if not self.is_first:
            return
        self.say("Exporting sample images...")
        o = self.options
        self.grid_size, images, labels, self.grid_z, self.grid_c = setup.build_grid(
            training_set, G, o.random_seed, o.batch_gpu, self.device, o.snap_res, from_seeds=self.grid_is_of_seeds
        )
        if self.grid_is_of_seeds:  # also in a resumed run, whose --snap-res may be another now
            files.atomic_write_text(os.path.join(o.run_dir, snapshots.CELLS_FILE), snapshots.describe_cells(self.grid_size, labels))
        if is_new:
            snapshots.save_image_grid(images, os.path.join(o.run_dir, "reals.png"), drange=[0, 255], grid_size=self.grid_size)
            self.save_samples("fakes_init.png")

    def begin_logs(self, fingerprint, num_images, facts):
        """facts: what facts() gave when the state was saved that the run goes on from; {} in a new run."""
        o, kimg = self.options, self.progress.cur_nimg / 1000
        self.clock = monitor.Clock(self.progress.elapsed_sec, facts.get("maintenance_sec", 0.0))  # states of early versions lack it
        if not self.is_first:
            return
        files.clean_stale_temporaries(o.run_dir)  # a kill while saving leaves a hidden file as large as what was saved
        self.say("Initializing logs...")
        provenance.record(o.run_dir, provenance.gather(fingerprint, num_images, self.device, kimg))
        shown = {k: v for k, v in o.items() if k.endswith("kwargs") or isinstance(v, (int, float, str))}
        self.writer = monitor.StatsWriter(o.run_dir, facts.get("stats_jsonl_bytes"), kimg, o.wandb_project, shown)

    def facts(self):
        """What a training state has to note so that the logs go on as if the run had never stopped."""
        return dict(
            stats_jsonl_bytes=self.writer.bytes_written() if self.writer else 0,
            maintenance_sec=self.clock.untold_maintenance_sec(),
            grid_is_of_seeds=self.grid_is_of_seeds,
        )

    def close(self):
        if self.writer is not None:
            self.writer.close()

    # --- a tick -----------------------------------------------------------------------------------------------------

    def tell_progress(self):
        if self.options.progress_fn is not None:
            self.options.progress_fn(self.progress.cur_nimg // 1000, self.options.total_kimg)

    def tell_tick(self, G, augment_p, telemetry):
        """The tick line and the statistics of the tick that has ended. Collective. telemetry: {name: value} behind the line's fixed fields."""
        o, progress = self.options, self.progress
        extra = {**telemetry, **self.watch.look(G, o.batch_gpu, progress.cur_nimg / 1000, progress.batch_idx)}
        values = {
            "Progress/tick": progress.cur_tick,
            "Progress/kimg": progress.cur_nimg / 1000,
            "Progress/augment": augment_p,
            "Progress/nonfinite_steps": progress.nonfinite_steps,
        }
        for name, value in values.items():
            training_stats.report0(name, value)
        for name, timer in self.timers.items():
            milliseconds = timer.milliseconds()
            training_stats.report0(f"Timing/{name}", [] if milliseconds is None else milliseconds)
        resources = monitor.report_resources(self.clock, progress.cur_nimg - progress.tick_start_nimg, self.device)
        self.stats.update()
        if self.is_first:
            self.say(monitor.tick_line(progress.cur_tick, progress.cur_nimg / 1000, augment_p=augment_p, extra=extra.items(), **resources))
            self.writer.write(self.stats.as_dict(), progress.cur_nimg, self.clock.elapsed_sec())
        self.watch.tell(self.say)

    def save_samples(self, name):
        images = snapshots.render_grid(self.G_ema, self.grid_z, self.grid_c)
        snapshots.save_image_grid(images, os.path.join(self.options.run_dir, name), drange=[-1, 1], grid_size=self.grid_size)

    def tell_samples(self, tick, done):
        """A picture of the sample grid when one is due at the end of this tick."""
        interval = self.options.image_snapshot_ticks
        if interval is not None and (done or tick % interval == 0):
            position = self.progress.name_position("samples", self.options.snapshots_apart)
            self.progress.note_named("samples", position)
            if self.is_first:
                self.save_samples(snapshots.SAMPLES.format(position=position))

    def write_page(self):
        if self.options.image_snapshot_ticks is not None and self.is_first and self._write_page is not None:
            self._write_page(self.options.run_dir, self.say)

    # --- snapshots --------------------------------------------------------------------------------------------------

    def note_snapshot(self, path):
        """A network snapshot was saved."""
        self.watch.note_snapshot(os.path.basename(path), self.progress.cur_nimg / 1000)

    def speaks_of(self, path):
        """Whether this pickle was evaluated or, as the first process knows, called healthy: then it stays what it was. Collective."""
        return distributed.any_rank(path in self.evaluated or os.path.basename(path) == self.watch.healthy_snapshot(), self.device)

    def snapshots_to_spare(self, with_best):
        """File names, None among them, that pruning has to leave: what an alarm would name and, if asked for, the best by the first metric."""
        o = self.options
        return [self.watch.healthy_snapshot(), evaluation.best_snapshot(o.run_dir, o.metrics) if with_best else None]

    def evaluate(self, metrics, G_ema, path):
        """Compute metrics of the snapshot at `path`, whose generator is G_ema. Collective."""
        if not metrics:
            return
        self.say("Evaluating metrics...")
        self.evaluated.add(path)
        for results in evaluation.evaluate(self.options, metrics, G_ema, self.device, path):
            if self.is_first:
                scalars = {"Metrics/" + name: value for name, value in results.items()}
                self.writer.write_scalars(scalars, self.progress.cur_nimg, self.clock.elapsed_sec())

    def make_up_for_metrics(self, path):
        """A run that was killed during the evaluation of its newest snapshot gets what is missing."""
        if self.progress.cur_nimg == self.progress.tick_start_nimg and self.progress.cur_tick > 1 and os.path.isfile(path):
            self.evaluate(evaluation.missing_metrics(self.options.run_dir, self.options.metrics, path), self.G_ema, path)
            self.clock.begin_tick()
