"""Computes the published kernel coverage score c_r, by several routes behind one interface: scores(memory_KD, sigma) -> [N].

exact: all pairs each time. incremental: only replaced entries are accounted, O(N b) instead of O(N K). topk: the k nearest
entries only, by brute force or by faiss (IndexFlatL2, which is exact brute force too and returns SQUARED distances). ratio: c_r
over the score that the reals give one another, 1 where the memory is as the reals are.
"""

import torch

from madr_plugin.maths import coverage, terms
from madr_spaces.distances import squared_distances
from madr_spaces.errors import MADRError


class ExactScore:
    """c_r = 1/|M| sum_m k_sigma(x_r, m)."""

    def __init__(self, real_ND):
        self.real_ND = real_ND

    def scores(self, memory_KD, sigma):
        return coverage.kernel_score(self.real_ND, memory_KD, sigma)

    def live_state(self):
        return {}

    def load(self, state, device):
        pass


class IncrementalScore(ExactScore):
    """The same number, kept up to date: subtract the kernels of replaced entries, add those of new ones.

    A kernel is kept as one of 65,536 levels and the sums are of whole numbers: what is subtracted is what was added, however many updates
    lie between, and a score is off by half a level, 7.6e-6, at most. Levels take two bytes for each pair; where they would not fit into
    MOST_BYTES they are computed again to be subtracted. Starts afresh when sigma changes.
    """

    LEVELS, MIDDLE = 65535, 32768  # a level less MIDDLE fits into an int16
    MOST_BYTES = 1 << 30
    BLOCK = 2048  # reals whose kernels are computed at once: they stay in the cache

    def __init__(self, real_ND):
        super().__init__(real_ND)
        self.square_N = real_ND.square().sum(1)
        self.sums_N, self.levels_KN, self.kept_KD, self.sigma = None, None, None, None

    def scores(self, memory_KD, sigma):
        if self.sums_N is None or sigma != self.sigma or len(memory_KD) < len(self.kept_KD):
            self.sums_N = torch.zeros([len(self.real_ND)], dtype=torch.int64, device=self.real_ND.device)
            self.levels_KN, self.kept_KD, self.sigma = None, memory_KD[:0].clone(), sigma
        common = len(self.kept_KD)
        changed = (memory_KD[:common] != self.kept_KD).any(1).nonzero()[:, 0]
        if common < len(memory_KD):
            self._make_room(len(memory_KD))
            self.kept_KD = torch.cat([self.kept_KD, memory_KD[common:]])
            self._replace(torch.arange(common, len(memory_KD), device=memory_KD.device), memory_KD[common:], None)
        if len(changed):
            self._replace(changed, memory_KD[changed], self.kept_KD[changed])
            self.kept_KD[changed] = memory_KD[changed]
        return ((self.sums_N + self.MIDDLE * len(memory_KD)).double() / (self.LEVELS * len(memory_KD))).to(memory_KD.dtype)

    def _make_room(self, count):
        """Twice as much as is needed, so that a memory that fills does not copy the levels at every step."""
        held = 0 if self.levels_KN is None else len(self.levels_KN)
        if count <= held or 2 * count * len(self.real_ND) > self.MOST_BYTES:
            self.levels_KN = self.levels_KN if count <= held else None
            return
        fits = self.MOST_BYTES // (2 * len(self.real_ND))
        grown = torch.empty([min(2 * count if held else count, fits), len(self.real_ND)], dtype=torch.int16, device=self.real_ND.device)
        if held:
            grown[:held] = self.levels_KN
        self.levels_KN = grown

    def _replace(self, rows_b, new_bD, old_bD):
        """Put new entries at these rows of the memory; old_bD: those that were there, or None."""
        for start in range(0, len(self.real_ND), self.BLOCK):
            reals = slice(start, start + self.BLOCK)
            if old_bD is not None:
                old_bn = self._levels(old_bD, reals) if self.levels_KN is None else self.levels_KN[rows_b, reals]
                self.sums_N[reals] -= old_bn.sum(0)
            new_bn = self._levels(new_bD, reals)
            self.sums_N[reals] += new_bn.sum(0)
            if self.levels_KN is not None:
                self.levels_KN[rows_b, reals] = new_bn

    def _levels(self, entries_bD, reals):
        """k_sigma of entries and a slice of the reals as levels, less MIDDLE -> int16 [b, n]."""
        factor = -0.5 / self.sigma**2
        exponent_bn = torch.addmm(factor * self.square_N[reals], entries_bD, self.real_ND[reals].T, alpha=-2 * factor)
        kernel_bn = exponent_bn.add_(factor * entries_bD.square().sum(1, keepdim=True)).clamp_(max=0).exp_()
        return kernel_bn.mul_(self.LEVELS).sub_(self.MIDDLE).round_().to(torch.int16)

    def live_state(self):
        if self.sums_N is None:
            return {}
        levels = {} if self.levels_KN is None else dict(levels=self.levels_KN[: len(self.kept_KD)])
        return dict(level_sums=self.sums_N, kept=self.kept_KD, sigma=self.sigma, **levels)

    def load(self, state, device):
        if "level_sums" in state:  # else of a version that kept sums of kernels: they begin afresh
            self.sums_N, self.kept_KD = state["level_sums"].to(device, copy=True), state["kept"].to(device, copy=True)
            self.levels_KN = state["levels"].to(device, copy=True) if "levels" in state else None
            self.sigma = float(state["sigma"])


class RatioScore(ExactScore):
    """rho_r = c_r(M) / c_r(X): X the other reals (at most SUBSET of them, evenly spread). 1: as covered as at p_g = p_data."""

    SUBSET = 2048

    def __init__(self, real_ND, mass_N=None):
        super().__init__(real_ND)
        self.mass_N, self.baseline_N, self.sigma = mass_N, None, None

    def scores(self, memory_KD, sigma):
        if sigma != self.sigma:  # follows from sigma and the reals alone, so that resuming needs no state
            self.baseline_N, self.sigma = self._baseline(sigma), sigma
        return super().scores(memory_KD, sigma) / self.baseline_N

    def _baseline(self, sigma):
        rows_S = (
            torch.linspace(0, len(self.real_ND) - 1, min(len(self.real_ND), self.SUBSET), dtype=torch.float64)
            .round()
            .to(torch.int64)
            .to(self.real_ND.device)
        )
        mass_S = torch.ones([len(rows_S)], dtype=self.real_ND.dtype, device=self.real_ND.device) if self.mass_N is None else self.mass_N[rows_S]
        sums_N = coverage.in_blocks(
            lambda real_nD: terms.gaussian_kernel(squared_distances(real_nD, self.real_ND[rows_S]), sigma) @ mass_S, self.real_ND
        )
        itself_N = torch.zeros_like(sums_N)
        itself_N[rows_S] = 1  # k(x, x) = 1, and one of the mass
        return ((sums_N - itself_N) / (mass_S.sum() - itself_N)).clamp(min=1e-12)


class TopKScore(ExactScore):
    """Counts only the k entries nearest to each real."""

    def __init__(self, real_ND, k, use_faiss):
        super().__init__(real_ND)
        self.k, self.faiss = k, _import_faiss() if use_faiss else None

    def scores(self, memory_KD, sigma):
        if self.faiss is None:
            return coverage.topk_score(self.real_ND, memory_KD, sigma, self.k)
        index = self.faiss.IndexFlatL2(memory_KD.shape[1])
        index.add(memory_KD.detach().cpu().numpy())
        squared_NK, _ = index.search(self.real_ND.cpu().numpy(), min(self.k, len(memory_KD)))
        return terms.gaussian_kernel(torch.from_numpy(squared_NK).to(memory_KD.device), sigma).mean(1)


def _import_faiss():
    try:
        import faiss
    except ImportError as error:
        raise MADRError("--madr-estimator=faiss needs the package faiss-cpu or faiss-gpu; install one, or use --madr-estimator=exact") from error
    return faiss


def build(name, real_ND, k=None, mass_N=None):
    """k: entries that count per real (term 'enhanced'); None: all. mass_N: reals that each row stands for; None: one."""
    if name == "ratio":
        return RatioScore(real_ND, mass_N)
    if k is not None:
        return TopKScore(real_ND, k, use_faiss=name == "faiss")
    return IncrementalScore(real_ND) if name == "incremental" else ExactScore(real_ND)
