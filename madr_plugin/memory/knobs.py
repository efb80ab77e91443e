"""Declares the knobs of the memory, of the replay that it serves, and of the count of deficits."""

import dataclasses
from typing import ClassVar

from madr_plugin.base.knobs import Knobs, knob
from madr_spaces.errors import MADRError


@dataclasses.dataclass(frozen=True)
class ReplayKnobs(Knobs):
    """Set how remembered latents are pulled to reals."""

    GROUP: ClassVar[str] = "replay"

    replay_weight: float = knob(1.0, "Set the strength of the replayed nearest-neighbour pull (IMLE), as --madr-weight; 0: none", 0, 1000, first=True)
    replay_interval: int = knob(8, "Replay every so many generator steps", 1, 10000)
    replay_share: float = knob(0.5, "Replay so many latents per generated image of the step", 0.01, 4)
    dead_zone: float = knob(
        3.0,
        "Leave reals alone that have an image near enough: within the ball in which so many "
        "memory entries are expected at equilibrium; 0: pull always",
        0,
        100,
    )
    replay_from: str = knob(
        "memory",
        "Replay the latents nearest to a real among those of the memory, or (champions) the nearest ever made, kept for each real; for few images",
        choices=("memory", "champions"),
    )
    champion_kimg: float = knob(
        0.5,
        "Halve what counts as near enough to a real in so many thousands of generated images while its champion is that near; "
        "not below the distance to the nearest other real",
        0.001,
        1e6,
    )
    champion_mib: int = knob(64, "Refuse a table of champions that would take more than so many MiB", 1, 1_000_000)

    def refuse(self):
        if self.replay_from == "champions" and self.replay_weight == 0:
            raise MADRError("--madr-replay-from=champions keeps latents for the replay, and --madr-replay-weight=0 turns it off; give it a weight")


@dataclasses.dataclass(frozen=True)
class MemoryKnobs(Knobs):
    """Set what the memory of generated samples keeps."""

    GROUP: ClassVar[str] = "memory"

    capacity: int = knob(
        2048, "Keep so many generated samples in the memory, for the replay, --madr-moments-horizon=auto and the published terms", 2, 10_000_000
    )
    memory: str = knob(
        "forgetting", "Choose which samples that memory keeps", choices=("reservoir", "fifo", "forgetting", "progressive", "importance")
    )
    half_life_kimg: float = knob(13.3, "Let half of the entries die in so many thousands of generated images (--madr-memory=forgetting)", 0.001, 1e6)
    update_interval: int = knob(1, "Offer generated samples to the memory every so many generator steps", 1, 100_000)
    forgetting: int = knob(
        1,
        "Measure whether D forgets: its logit on 256 old generated images now minus the one that it had learned, in stats.jsonl (1), or do not (0)",
        0,
        1,
    )
    refresh: int = knob(0, "Renew the features of so many memory entries with the present generator, per microbatch and step", 0, 1_000_000)


@dataclasses.dataclass(frozen=True)
class DeficitKnobs(Knobs):
    """Set in which cells and over how many images deficits are counted."""

    GROUP: ClassVar[str] = "deficits"

    deficit_window: int = knob(
        1024, "Count deficits of cells over so many generated images: for coverage in the log, the replay and the tilt of these cells", 16, 10_000_000
    )
    deficit_max: float = knob(5.0, "Bound the weight of reals in deficient cells when reals are drawn for replay; 1: draw all alike", 1, 1000)
    cells: int = knob(0, "Divide the real features into so many cells to count deficits in; 0: deficit window / 10", 0, 100_000)
    cell_quantile: float = knob(0.98, "Have this share of a cell's reals inside its gate radius", 0.5, 1)

    @property
    def num_cells(self):
        # About ten entries of the window per cell at equilibrium: fewer would drown the deficit in counting noise.
        return self.cells if self.cells > 0 else max(self.deficit_window // 10, 2)
