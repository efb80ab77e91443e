"""Which real image comes when: a stream that can be entered at any position, on any number of processes.

Must not know images, networks or the loop.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch


class EpochOrder:
    """Endless stream of dataset indices: each epoch is a permutation of its own, drawn from (seed, epoch).

    order(position) depends on nothing but (num_items, seed, position), so a resumed run needs only its position.
    """

    def __init__(self, num_items: int, seed: int) -> None:
        self.num_items, self.seed = num_items, seed
        self._epoch: int | None = None  # that was asked for last, and its permutation
        self._permutation: np.ndarray = np.empty(0, dtype=np.int64)

    def __call__(self, position: int) -> int:
        epoch, offset = divmod(int(position), self.num_items)
        if epoch != self._epoch:
            self._permutation = np.random.Generator(np.random.Philox([self.seed, epoch])).permutation(self.num_items)
            self._epoch = epoch
        return int(self._permutation[offset])


class MicrobatchSampler(torch.utils.data.Sampler):
    """Batch sampler of one rank: the index lists of its microbatches, step after step, without end.

    A step at stream position n takes n ... n + batch_size - 1, cut into microbatches of batch_gpu; microbatch
    k = round * num_ranks + rank is this rank's. Hence the same step holds the same microbatches for every num_ranks.
    """

    def __init__(self, order: Callable[[int], int], batch_size: int, batch_gpu: int, rank: int = 0, num_ranks: int = 1, start_nimg: int = 0) -> None:
        self.order, self.batch_size, self.batch_gpu = order, batch_size, batch_gpu
        self.rank, self.num_ranks, self.start_nimg = rank, num_ranks, start_nimg

    def __iter__(self) -> Iterator[list[int]]:
        nimg = self.start_nimg
        while True:
            for k in range(self.rank, self.batch_size // self.batch_gpu, self.num_ranks):
                first = nimg + k * self.batch_gpu
                yield [self.order(position) for position in range(first, first + self.batch_gpu)]
            nimg += self.batch_size
