"""Remembers the first two moments of generated features, forgetting step by step. Must not know the reals or a loss.

Shapes: G groups (classes, or 1), B images, D feature width.
"""

import torch


class MomentsMemory:
    """Keeps, per group g, running sums over the images i of all steps t, each step weighted (1 - b) b^age / B:

    weight_G = sum w_i, first_GD = sum w_i f_i, second_GDD = sum w_i f_i f_i^T, square_G = sum w_i^2. So the moments are first / weight
    and second / weight, exact from the first step on, and weight^2 / square is the effective number of images behind them.
    float64: sums over many steps.
    """

    NAMES = ("weight_G", "first_GD", "second_GDD", "square_G")

    def __init__(self, num_groups, width, device):
        self.weight_G = torch.zeros([num_groups], dtype=torch.float64, device=device)
        self.first_GD = torch.zeros([num_groups, width], dtype=torch.float64, device=device)
        self.second_GDD = torch.zeros([num_groups, width, width], dtype=torch.float64, device=device)
        self.square_G = torch.zeros([num_groups], dtype=torch.float64, device=device)

    def blended(self, features_BD, group_B, decay):
        """Compute what the moments would be after such a step: {group present in the batch: (mean_D, second_DD, effective images)}.

        With a graph to features_BD [B, D]; group_B: int64, -1 for images that belong to none.
        """
        features_BD, found = features_BD.to(torch.float64), {}
        gain = (1 - decay) / max(len(features_BD), 1)
        for group, rows in self._groups_of(group_B):
            own_BD = features_BD[rows]
            weight = decay * self.weight_G[group] + gain * len(own_BD)
            mean_D = (decay * self.first_GD[group] + gain * own_BD.sum(0)) / weight
            second_DD = torch.addmm(self.second_GDD[group], own_BD.T, own_BD, beta=decay, alpha=gain) / weight
            effective = weight.square() / (decay**2 * self.square_G[group] + gain**2 * len(own_BD))
            found[group] = mean_D, second_DD, effective
        return found

    @torch.no_grad()
    def slopes_on_features(self, features_BD, group_B, decay, slopes):
        """Take slopes {group: (per mean_D, per second_DD, symmetric)} of what blended() gives back to the features -> float64 [B, D]."""
        features_BD = features_BD.to(torch.float64)
        gain, result_BD = (1 - decay) / max(len(features_BD), 1), torch.zeros_like(features_BD)
        for group, rows in self._groups_of(group_B):
            own_BD, (slope_D, slope_DD) = features_BD[rows], slopes[group]
            weight = decay * self.weight_G[group] + gain * len(own_BD)
            result_BD[rows] = torch.addmm(slope_D, own_BD, slope_DD, alpha=2) * (gain / weight)
        return result_BD

    def _groups_of(self, group_B):
        """List the groups that a batch shows, each with its rows. A single group is asked for nothing: it takes all."""
        if len(self.weight_G) == 1:
            return [(0, slice(None))] if len(group_B) else []
        return [(group, group_B == group) for group in group_B.unique().tolist() if group >= 0]

    @torch.no_grad()
    def update(self, features_BD, group_B, decay):
        """Take in a step's images. Rows that are not finite are passed over."""
        finite_B = torch.isfinite(features_BD).all(1)
        if not bool(finite_B.all()):
            features_BD, group_B = features_BD[finite_B], group_B[finite_B]
        if not len(features_BD):
            return
        features_BD = features_BD.to(torch.float64)
        gain = (1 - decay) / len(features_BD)
        for name, factor in zip(self.NAMES, (decay, decay, decay, decay**2)):
            getattr(self, name).mul_(factor)
        for group, rows in self._groups_of(group_B):
            own_BD = features_BD[rows]
            self.weight_G[group] += gain * len(own_BD)
            self.first_GD[group].add_(own_BD.sum(0), alpha=gain)
            self.second_GDD[group].addmm_(own_BD.T, own_BD, alpha=gain)
            self.square_G[group] += gain**2 * len(own_BD)

    def turn(self, turn_DD):
        """Turn what is remembered as features are turned by f @ turn_DD."""
        self.first_GD = self.first_GD @ turn_DD
        self.second_GDD = turn_DD.T @ self.second_GDD @ turn_DD

    def live_state(self):
        return {name: getattr(self, name) for name in self.NAMES}

    def load(self, state, device):
        """Take up what live_state() gave. Raises ValueError where it is of other groups or another width."""
        saved, own = tuple(state["first_GD"].shape), tuple(self.first_GD.shape)
        if saved != own:
            raise ValueError(f"the saved moments are of {saved[0]} groups and {saved[1]} features, these of {own[0]} and {own[1]}")
        for name in self.NAMES:
            setattr(self, name, state[name].to(device, copy=True))
