"""What a run keeps: training states to go on from, network snapshots to use, and how many of them.

Must not know how networks learn, or what is told about them.
"""

import os

from torch_utils import misc, snapshot_names
from training import setup, snapshots, state

# So many bad steps in a row, and the weights are no longer worth saving. Fewer are stray overflows: they were kept off the weights.
DOUBTFUL_STREAK = 3


class Keeper:
    """One per process; the first one writes. resumed: the training state that the run goes on from, or None."""

    def __init__(self, options, progress, say):
        self.options, self.progress, self.say = options, progress, say
        self.is_first = options.rank == 0
        self.resumed = state.load_state(options.resume_state) if options.resume_state else None
        self.keep, self.keep_best = snapshots.parse_keep(options.keep)

    def facts(self):
        """What was noted beside the parts of the state that the run goes on from; {} in a new run."""
        return {} if self.resumed is None else self.resumed["facts"]

    def hold(self, networks, optimizers, loss, diversity, collectors):
        """What belongs to the run. networks: {G, D, G_ema, augment_pipe}, the last perhaps None. diversity: the monitor or None."""
        self.networks, self.collectors = networks, collectors
        self.bag = state.StateBag(
            **networks,
            progress=self.progress,
            loss=loss,
            diversity=diversity,
            optional=["diversity"],
            **{f"{name}_opt": opt for name, opt in optimizers.items()},
        )

    def restore(self):
        """Put everything where it was when the state was saved."""
        if self.resumed is not None:
            self.say(f'Resuming from "{self.options.resume_state}"')
            self.bag.restore(self.resumed, self.collectors)

    def is_sound(self):
        """Whether what would be saved can be trusted; says so if not."""
        if self.progress.nonfinite_streak < DOUBTFUL_STREAK and all(setup.is_finite(self.networks[name]) for name in ("G", "D")):
            return True
        self.say("Nothing is saved: the weights or the last gradients are not finite.")
        return False

    def save_state(self, facts):
        """The training state. Collective: every rank calls it, after is_sound()."""
        saved = self.bag.collect(self.collectors, facts)
        if self.is_first:
            state.save_state(self.options.run_dir, self.progress.cur_nimg // 1000, saved)

    def snapshot_path(self):
        """Where a network pickle of this position lies."""
        position = self.progress.name_position("network", self.options.snapshots_apart)
        return os.path.join(self.options.run_dir, snapshot_names.NETWORK_SNAPSHOT.format(position=position))

    def save_network(self):
        """Write the network pickle. Returns (snapshot data, path); collective."""
        for name in ("G", "D", "augment_pipe"):
            if self.networks[name] is not None and self.options.num_gpus > 1:
                misc.check_ddp_consistency(self.networks[name])
        data = snapshots.build_snapshot_data(**self.networks, training_set_kwargs=self.options.training_set_kwargs)
        path = self.snapshot_path()
        self.progress.note_named("network", self.progress.name_position("network", self.options.snapshots_apart))
        if self.is_first:
            snapshots.save_network_snapshot(path, data)
        return data, path

    def prune(self, spared):
        """Delete older snapshots beyond --keep. spared() -> file names to leave."""
        if self.is_first and self.keep is not None:
            snapshots.prune_network_snapshots(self.options.run_dir, self.keep, spared())
