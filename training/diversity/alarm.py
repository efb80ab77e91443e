"""When to call a generator collapsed or cycling, from one number and one set of cells per tick.

The rule, its constants and what they were held against are explained in docs/diversity_monitor.md. Must not know
images, networks or files.
"""

import torch

# Diversity is a share of what a perfect generator shows: 1 at best, its deviation by sampling a few hundredths.
ESTABLISHED = 0.4  # reached twice in a row, the generator counts as trained: from here on a fall is a fall
FALLEN = 0.5  # of the level once reached: below, twice in a row, it has collapsed
SHAKEN = 2 / 3  # the same where it has moved to other cells meanwhile: it cycles
RECOVERED = 2 / 3  # of that level: at or above, twice in a row, the alarm ends
EXCHANGED = 0.5  # share of the cells' mass given up for other cells, from one tick to the next
SIGNIFICANT = 5  # deviations by sampling that every fall must exceed as well
WINDOW = 8  # ticks that are remembered
# A generator that has never become diverse is left alone for so long, and as long as it still gets better.
GRACE_STEPS = 3000
RISE = 3  # deviations by sampling by which its level must rise within the window to be getting better,
APPROACH = 0.95  # or the factor by which its images must come nearer to the real ones

NAMES = ("healthy", "collapse", "cycling")


def mass(cells_K, shares_K):
    return float(shares_K[cells_K].sum())


def exchanged_mass(former_K, held_K, shares_K):
    """Mass of the cells given up for others, over the larger of both holdings: growth and shrinking alone give 0."""
    given_up, taken = mass(former_K & ~held_K, shares_K), mass(held_K & ~former_K, shares_K)
    return min(given_up, taken) / max(mass(former_K, shares_K), mass(held_K, shares_K), 1e-9)


class DiversityAlarm:
    """update() once per tick; `state` is 0 (healthy), 1 (collapse) or 2 (cycling); `suspicious`: not to be relied upon."""

    FIELDS = ("state", "suspicious", "level", "nearest", "diversities", "distances", "levels", "nearests", "exchanges", "held")
    HISTORIES = ("diversities", "distances", "levels", "nearests", "exchanges", "held")

    def __init__(self, shares_K, noise):
        """shares_K: mass of each cell. noise: deviation of the diversity by sampling."""
        self.shares_K, self.noise = shares_K, noise
        self.state = 0
        self.suspicious = True  # until a first level is established
        # The highest diversity and the lowest distance that two ticks in a row have reached.
        self.level, self.nearest = 0.0, float("inf")
        for name in self.HISTORIES:
            setattr(self, name, [])  # of the last ticks, newest last

    @property
    def established(self):
        return self.level >= ESTABLISHED

    def update(self, diversity, distance, held_K, step):
        """One tick. step: training steps so far. Returns the numbers of movement: {lost, found_again, turnover}."""
        was_established = self.established
        turnover = exchanged_mass(self.held[-1], held_K, self.shares_K) if self.held else 0.0
        self.diversities.append(diversity)
        self.distances.append(distance)
        self.held.append(held_K)
        if len(self.held) > 1:
            self.level = max(self.level, min(self.diversities[-2:]))
            self.nearest = min(self.nearest, max(self.distances[-2:]))
        self.levels.append(self.level)
        self.nearests.append(self.nearest)
        self.exchanges.append(was_established and turnover >= EXCHANGED)
        for name in self.HISTORIES:
            del getattr(self, name)[:-WINDOW]
        fallen, shaken = self._below(FALLEN), self._below(SHAKEN)
        self.suspicious = not self.established or shaken[-1] or self.exchanges[-1]
        self.state = self._next_state(all(fallen), all(shaken) and turnover >= EXCHANGED, step)
        return dict(lost=self._lost(), found_again=self._found_again(), turnover=turnover)

    def _below(self, factor):
        """For each of the last two ticks, whether diversity lies that far, and not by chance, below the level."""
        if not self.established or len(self.diversities) < 2:
            return [False, False]
        return [value < factor * self.level and self.level - value > SIGNIFICANT * self.noise for value in self.diversities[-2:]]

    def _next_state(self, fallen, shaken_and_moved, step):
        if self.established and (shaken_and_moved or sum(self.exchanges) >= 2):
            return 2
        if fallen:
            return max(self.state, 1)
        if self._is_stuck(step):
            return 2 if self._has_moved_throughout() else 1
        if self.state and not (self.established and min(self.diversities[-2:]) >= RECOVERED * self.level and not any(self.exchanges)):
            return self.state
        return 0

    def _is_stuck(self, step):
        """Never diverse, for longer than a start takes, and not getting better."""
        return (
            not self.established
            and step >= GRACE_STEPS
            and len(self.levels) == WINDOW
            and self.levels[-1] - self.levels[0] <= RISE * self.noise
            and self.nearests[-1] >= APPROACH * self.nearests[0]
        )

    def _has_moved_throughout(self):
        pairs = list(zip(self.held[-4:], self.held[-3:]))
        return all(exchanged_mass(former_K, held_K, self.shares_K) >= EXCHANGED for former_K, held_K in pairs)

    # --- what moved within the window -----------------------------------------------------------------------------------

    def _lost(self):
        """Mass of the cells held in the window but not now, over all that was held in it."""
        ever_K = torch.stack(self.held).any(0)
        return mass(ever_K & ~self.held[-1], self.shares_K) / max(mass(ever_K, self.shares_K), 1e-9)

    def _found_again(self):
        """Mass of the cells held now that were held, then missing, within the window, over all that is held now."""
        seen_K = lost_K = torch.zeros_like(self.held[-1])
        for held_K in self.held:
            lost_K = lost_K | (seen_K & ~held_K)
            seen_K = seen_K | held_K
        return mass(lost_K & self.held[-1], self.shares_K) / max(mass(self.held[-1], self.shares_K), 1e-9)

    # --- state ----------------------------------------------------------------------------------------------------------

    def state_dict(self):
        return {name: list(value) if isinstance(value := getattr(self, name), list) else value for name in self.FIELDS}

    def load_state_dict(self, state):
        for name in self.FIELDS:
            setattr(self, name, list(state[name]) if isinstance(state[name], list) else state[name])
