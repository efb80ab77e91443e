"""Collecting features batch by batch: all of them, or their sums for mean and covariance.

Saved as .npz without pickled objects. Must not know images, networks or metrics.
"""

import numpy as np
import torch

from dnnlib.errors import UserError
from dnnlib.files import atomic_open


class FeatureStats:
    """capture_all: keep every row (float32). capture_mean_cov: keep sums (float64). max_items: ignore what comes later."""

    def __init__(self, capture_all=False, capture_mean_cov=False, max_items=None):
        self.capture_all = capture_all
        self.capture_mean_cov = capture_mean_cov
        self.max_items = max_items
        self.num_items = 0
        self.num_features = None
        self._rows = []
        self._sum_D = None
        self._outer_DD = None

    def set_num_features(self, num_features):
        if self.num_features is None:
            self.num_features = num_features
            self._sum_D = np.zeros(num_features)
            self._outer_DD = np.zeros([num_features, num_features])
        elif num_features != self.num_features:
            raise UserError(f"The detector returned {num_features} features after {self.num_features} in earlier batches; it cannot be used.")

    def is_full(self):
        return self.max_items is not None and self.num_items >= self.max_items

    def append(self, x):
        x = np.asarray(x, np.float32)
        if self.max_items is not None:
            x = x[: self.max_items - self.num_items]
        if len(x) == 0:
            return
        if not np.isfinite(x).all():
            bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0]) + self.num_items
            raise UserError(f"The detector returned NaN or infinity for image {bad}; the images or the detector are broken.")
        self.set_num_features(x.shape[1])
        self.num_items += len(x)
        if self.capture_all:
            self._rows.append(x)
        if self.capture_mean_cov:
            x64 = x.astype(np.float64)
            self._sum_D += x64.sum(axis=0)
            self._outer_DD += x64.T @ x64

    def append_torch(self, x, num_gpus=1, rank=0):
        """Append a batch that every process brings (equal sizes): rank 0's rows first, then rank 1's, on all ranks."""
        assert 0 <= rank < num_gpus
        if num_gpus > 1:
            x = x.contiguous()
            parts = [torch.empty_like(x) for _ in range(num_gpus)]
            torch.distributed.all_gather(parts, x)
            x = torch.cat(parts)
        self.append(x.detach().cpu().numpy())

    def get_all(self):
        assert self.capture_all
        return np.concatenate(self._rows) if self._rows else np.zeros([0, self.num_features or 0], np.float32)

    def get_all_torch(self):
        return torch.from_numpy(self.get_all())

    def get_mean_cov(self):
        """Mean [D] and biased covariance [D, D], float64."""
        assert self.capture_mean_cov
        if self.num_items < 2:
            raise UserError(f"A covariance needs at least two images (got {self.num_items}); use more.")
        mean = self._sum_D / self.num_items
        return mean, self._outer_DD / self.num_items - np.outer(mean, mean)

    # ------------------------------------------------------------------------------------------------------------
    # Files.

    def to_arrays(self):
        arrays = {
            "options": np.array([self.capture_all, self.capture_mean_cov, -1 if self.max_items is None else self.max_items], np.int64),
            "num_items": np.array(self.num_items),
        }
        if self.capture_all:
            arrays["rows"] = self.get_all()
        if self.capture_mean_cov:
            arrays.update(sum=self._sum_D, outer=self._outer_DD)
        return arrays

    @staticmethod
    def from_arrays(arrays):
        capture_all, capture_mean_cov, max_items = (int(v) for v in arrays["options"])
        stats = FeatureStats(bool(capture_all), bool(capture_mean_cov), None if max_items < 0 else max_items)
        stats.num_items = int(arrays["num_items"])
        if capture_all:
            stats._rows = [np.asarray(arrays["rows"], np.float32)]
            stats.set_num_features(stats._rows[0].shape[1])
            if len(stats._rows[0]) != stats.num_items:
                raise ValueError("number of rows and stated number differ")
        if capture_mean_cov:
            stats.set_num_features(len(arrays["sum"]))
            stats._sum_D, stats._outer_DD = np.asarray(arrays["sum"], np.float64), np.asarray(arrays["outer"], np.float64)
            if stats._outer_DD.shape != (stats.num_features, stats.num_features):
                raise ValueError("sums of different widths")
        return stats

    def save(self, pkl_file):
        """Write to a file (the parameter's name is public interface; the format is .npz)."""
        with atomic_open(pkl_file) as file:
            np.savez(file, **self.to_arrays())

    @staticmethod
    def load(pkl_file):
        with np.load(pkl_file, allow_pickle=False) as arrays:
            return FeatureStats.from_arrays(arrays)
