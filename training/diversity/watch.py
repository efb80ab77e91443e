"""The diversity monitor's place in the training loop: asked for or not, in the first process, reported and timed.

All processes hold the same G, so the first one looks and the others only keep the list of statistics equal.
"""

from torch_utils import training_stats
from training import monitor
from training.diversity import monitor as diversity_monitor

STATISTICS = (*(diversity_monitor.PREFIX + name for name in diversity_monitor.NAMES), "Timing/diversity")


class DiversityWatch:
    """Every method is called on every process and does nothing when the monitor was not asked for."""

    def __init__(self, enabled, is_first, device, random_seed, z_dim, labels, k_means):
        self.enabled, self.device = enabled, device
        self.monitor = diversity_monitor.DiversityMonitor(random_seed, z_dim, labels, k_means) if enabled and is_first else None

    def begin(self, training_set):
        """After a state was restored, if there is one: what it did not bring is learnt from the data."""
        if not self.enabled:
            training_stats.forget(STATISTICS)  # of a run that was watched before
        if self.monitor is not None and not self.monitor.is_fitted:
            self.monitor.fit(training_set)

    def look(self, G, batch_size, kimg, step):
        """Numbers of the tick to the statistics; returns those for the tick line, {name: float}."""
        if not self.enabled:
            return {}
        timer, numbers = monitor.PhaseTimer(self.device), {}
        if self.monitor is not None:
            with timer:
                numbers = self.monitor.look(G, batch_size, self.device, kimg, step)
        values = [*(numbers.get(name, []) for name in diversity_monitor.NAMES), timer.milliseconds() or []]
        for name, value in zip(STATISTICS, values, strict=True):
            training_stats.report0(name, value)
        return {name: numbers[name] for name in diversity_monitor.TICK_LINE if name in numbers}

    def tell(self, say):
        for sentence in self.monitor.take_sentences() if self.monitor is not None else []:
            say(sentence)

    def note_snapshot(self, name, kimg):
        if self.monitor is not None:
            self.monitor.note_snapshot(name, kimg)

    def healthy_snapshot(self):
        """File name of the snapshot that an alarm would name, or None."""
        return None if self.monitor is None else self.monitor.healthy_name
