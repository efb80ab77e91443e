"""FIR resampling along one axis written as a small banded matrix, for images on the CPU.

Zero insertion, padding, filtering and decimation of one row are together one linear map y = A x. With a separable filter an
image becomes A_rows X A_columns^T: two matrix products, for which every CPU library is tuned, and whose derivatives of every
order are again matrix products. At 8 to 256 pixels this beats depthwise convolution several times over, most of all in the
second derivative (benchmarks/ops_cpu.py). Must not know about autograd, networks or devices other than the CPU.
"""

from functools import lru_cache
from typing import NamedTuple

import torch

# Up to this many matrix entries, one product with the Kronecker matrix beats a batch of tiny ones.
KRONECKER_UP_TO_ENTRIES = 8192


class AxisPlan(NamedTuple):
    """How one axis is resampled: y[o] = sum_t taps[t] * z[o * down + t], z = x spread by `up`, then padded."""

    taps: tuple[float, ...]
    up: int
    down: int
    before: int
    after: int

    def size_out(self, size_in: int) -> int:
        return (size_in * self.up + self.before + self.after - len(self.taps)) // self.down + 1

    def transposed(self, size_in: int) -> "AxisPlan":
        """The plan whose map is this one's transpose, for rows of size_in: from y's gradient to x's, which has size_in pixels again."""
        after = (size_in - 1) * self.up + self.before + 1 - self.size_out(size_in) * self.down
        return AxisPlan(self.taps[::-1], self.down, self.up, len(self.taps) - 1 - self.before, after)


@lru_cache(maxsize=64)
def separate(taps_2d: tuple[tuple[float, ...], ...], tolerance: float) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """rows x columns of taps -> (column factor, row factor) whose outer product they are, or None if they are none.

    `tolerance` is relative to the largest tap: the rounding error of the type that the result is computed in.
    """
    taps = torch.tensor(taps_2d, dtype=torch.float64)
    peak = taps.abs().argmax()
    row, column = divmod(int(peak), taps.shape[1])
    if taps[row, column] == 0:
        return tuple([0.0] * taps.shape[0]), tuple([0.0] * taps.shape[1])
    along_x = taps[row]
    along_y = taps[:, column] / taps[row, column]
    if (along_y.outer(along_x) - taps).abs().max() > tolerance * taps.abs().max():
        return None
    return tuple(along_y.tolist()), tuple(along_x.tolist())


@lru_cache(maxsize=128)
def axis_matrix(plan: AxisPlan, size_in: int, dtype: torch.dtype) -> torch.Tensor:
    """The map of one axis, [size_out, size_in]: entry (o, i) is the tap that meets input i at output o."""
    # A matrix made under inference_mode could never be used for training afterwards.
    with torch.inference_mode(False):
        position_in = torch.arange(size_in)[None, :] * plan.up + plan.before
        position_out = torch.arange(plan.size_out(size_in))[:, None] * plan.down
        tap = position_in - position_out
        taps = torch.tensor(plan.taps, dtype=torch.float64)
        inside = (tap >= 0) & (tap < len(plan.taps))
        return torch.where(inside, taps[tap.clamp(0, len(plan.taps) - 1)], 0.0).to(dtype)


@lru_cache(maxsize=128)
def image_matrix(plan_y: AxisPlan, plan_x: AxisPlan, height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """The map of a whole flattened image from the right, [height * width, height_out * width_out]."""
    with torch.inference_mode(False):
        whole = torch.kron(axis_matrix(plan_y, height, torch.float64), axis_matrix(plan_x, width, torch.float64))
        return whole.t().contiguous().to(dtype)


def is_one_small_product(x, plan_y: AxisPlan, plan_x: AxisPlan) -> bool:
    """Whether resample() multiplies by one small matrix, which beats every loop over rows of a few pixels."""
    if x.dtype not in (torch.float32, torch.float64) or not x.is_contiguous():
        return False
    height, width = x.shape[2:]
    return height * width * plan_y.size_out(height) * plan_x.size_out(width) <= KRONECKER_UP_TO_ENTRIES


def resample(x, plan_y: AxisPlan, plan_x: AxisPlan):
    """x [N,C,H,W] -> A_y x A_x^T, [N,C,h,w]."""
    height, width = x.shape[2:]
    height_out, width_out = plan_y.size_out(height), plan_x.size_out(width)
    if height * width * height_out * width_out <= KRONECKER_UP_TO_ENTRIES:
        return (x.flatten(2) @ image_matrix(plan_y, plan_x, height, width, x.dtype)).unflatten(2, [height_out, width_out])
    along_y = axis_matrix(plan_y, height, x.dtype)
    along_x = axis_matrix(plan_x, width, x.dtype).t()
    # The product over rows runs as a batch of small ones: give it the smaller of the two images.
    if width_out < width:
        return along_y @ (x @ along_x)
    return (along_y @ x) @ along_x
