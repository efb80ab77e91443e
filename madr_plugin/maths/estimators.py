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

    Sums are float64, so that ten thousand updates leave an error below float32's own. Starts afresh when sigma changes.
    """

    def __init__(self, real_ND):
        super().__init__(real_ND)
        self.sums_N, self.kept_KD, self.sigma = None, None, None

    def scores(self, memory_KD, sigma):
        if self.sums_N is None or sigma != self.sigma or len(memory_KD) < len(self.kept_KD):
            self.sums_N, self.kept_KD, self.sigma = self._sums(memory_KD, sigma), memory_KD.clone(), sigma
        else:
            common = len(self.kept_KD)
            changed = (memory_KD[:common] != self.kept_KD).any(1)
            if changed.any():
                self.sums_N = self.sums_N + self._sums(memory_KD[:common][changed], sigma) - self._sums(self.kept_KD[changed], sigma)
            if len(memory_KD) > common:
                self.sums_N = self.sums_N + self._sums(memory_KD[common:], sigma)
            self.kept_KD = memory_KD.clone()
        return (self.sums_N / len(memory_KD)).to(memory_KD.dtype)

    def _sums(self, memory_KD, sigma):
        return coverage.in_blocks(
            lambda real_nD: terms.gaussian_kernel(squared_distances(real_nD, memory_KD), sigma).sum(1, dtype=torch.float64), self.real_ND
        )

    def live_state(self):
        return {} if self.sums_N is None else dict(sums=self.sums_N, kept=self.kept_KD, sigma=self.sigma)

    def load(self, state, device):
        if state:
            self.sums_N, self.kept_KD, self.sigma = state["sums"].to(device, copy=True), state["kept"].to(device, copy=True), float(state["sigma"])


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
