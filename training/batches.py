"""How a step is divided: into rounds of microbatches on every GPU, those into packs for D, and those into groups.

What is said to one whose numbers do not divide is found by the check itself. Must not know flags or presets.
"""

import dataclasses

from dnnlib.errors import UserError
from training.gan import choosing


@dataclasses.dataclass(frozen=True)
class Division:
    """batch: images per step. batch_gpu: images at a time per GPU. group: of the minibatch standard deviation. pack: images that D judges as one."""

    batch: int
    batch_gpu: int
    gpus: int
    group: int
    pack: int

    @property
    def packs(self):
        """How many packs, or images, D judges at a time."""
        return self.batch_gpu // self.pack

    def fits(self):
        """Whether everything comes out even."""
        if self.batch < self.gpus or self.batch % (self.batch_gpu * self.gpus) or self.batch_gpu % self.pack:
            return False
        return self.packs % min(self.group, self.packs) == 0

    def on(self, **changes):
        return dataclasses.replace(self, **changes)


def check(options, goes_on=False):
    """Raise UserError unless the training options divide. goes_on: whether they are of a run that goes on, whose batch and group are settled."""
    division = Division(options["batch_size"], options["batch_gpu"], options["num_gpus"], choosing.group_of(options), choosing.pack_of(options))
    if not division.fits():
        raise UserError(f"{_problem(division)}; use {' or '.join(_remedies(division, goes_on)) or 'the numbers that the run was started with'}")


def _problem(division):
    batch, batch_gpu, gpus, pack = division.batch, division.batch_gpu, division.gpus, division.pack
    if batch < gpus:
        return f"--gpus={gpus} is more than the {batch} images of a step"
    if batch % gpus:
        return f"a batch of {batch} does not divide into {gpus} GPU(s)"
    if batch % (batch_gpu * gpus):
        return f"a batch of {batch} does not divide into {gpus} GPU(s) with microbatches of --batch-gpu={batch_gpu}"
    if batch_gpu % pack:
        return (
            f"--method=pacgan:m={pack} lets D judge {pack} images as one, and {batch_gpu} images at a time (--batch / --gpus, or --batch-gpu) "
            f"do not divide into packs of {pack}"
        )
    judged = "images" if pack == 1 else f"packs of {pack} images"
    return (
        f"{division.packs} {judged} at a time (--batch / --gpus, or --batch-gpu) do not divide into groups of {division.group} for the minibatch "
        "standard deviation"
    )


def _remedies(division, goes_on):
    """Flags that divide, most like what was asked for first."""
    shared = not division.batch % division.gpus
    sizes = _microbatches(division) if shared else []
    found = [f"--batch-gpu={' or '.join(map(str, sizes))}"] if sizes else []
    if not goes_on:
        if shared and not division.batch % (division.batch_gpu * division.gpus) and not division.batch_gpu % division.pack:
            groups = [group for group in range(2, division.packs + 1) if division.on(group=group).fits() and group <= division.packs]
            found.append(f"--mbstd-group={' or '.join(map(str, groups))}")
        # Whole groups are possible at the latest where every GPU takes a single one.
        most = division.batch + division.gpus * division.pack * division.group
        lower = range(division.batch - 1, 2 * division.pack - 1, -1)
        found += _nearest("batch", (lower, range(division.batch + 1, most + 1)), division)
    if not shared:
        found += _nearest("gpus", (range(min(division.gpus - 1, division.batch), 0, -1), range(division.gpus + 1, division.batch + 1)), division)
    if not found:
        found = [f"--batch-gpu={size}" for size in _microbatches(division, least=1)[-1:]]
    return found


def _nearest(name, ways, division):
    """The first number of each of the ways that divides, as flags."""
    for numbers in ways:
        for number in numbers:
            changed = division.on(**{name: number})
            sizes = _microbatches(changed)
            if sizes:
                # No more at a time than before, where that goes: it may be as much as the memory holds.
                size = max((size for size in sizes if size <= division.batch_gpu), default=min(sizes))
                yield f"--{name}={number} --batch-gpu={size}"
                break


def _microbatches(division, least=None):
    """The sizes of microbatches that divide, of at least so many packs; None: of whole groups, without which D sees less of its batch."""
    per_gpu = division.batch // division.gpus
    sizes = [size for size in range(1, per_gpu + 1) if per_gpu % size == 0 and division.on(batch_gpu=size).fits()]
    return [size for size in sizes if size // division.pack >= (division.group if least is None else least)]
