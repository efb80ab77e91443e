"""Finds what the moments term compares with: the reals' moments, per class where a class holds enough images.

Shapes: N reals, D feature width, K width of the moments, G groups. Must not know generated images.
"""

import torch

from madr_plugin.base import collective
from madr_plugin.maths import moments
from madr_spaces.errors import MADRError
from madr_spaces.pca import principal_directions
from madr_spaces.seeds import generator_for

MOST_WIDTH = 256  # wider features are projected: the cost grows with the cube of the width
REALS_PER_COMPONENT = 4  # fewer reals than so many per component cannot tell a covariance
MOST_CLASSES = 32  # with moments of their own: each costs an eigenvalue problem per microbatch


class RealMoments:
    """Projects features to the width of the moments, sorts classes into groups, holds each group's Target, and draws reals of it.

    A class of at least 4 reals per component is a group of its own, if there are at most 32 of those; all others are one group together.
    A single group's features are turned to the principal axes of the reals, along which the distance is found with half of the products.
    """

    def __init__(self, reference, seed, device):
        # Anchors spread less than reals: with them, those reals count that are kept for radii.
        compressed = reference.mass_N is not None
        self.features_ND = reference.subset_SD if compressed else reference.features_ND
        self.labels_N = reference.subset_labels_S if compressed else reference.labels_N
        width = self.features_ND.shape[1]
        self.width = min(width, MOST_WIDTH, max(len(self.features_ND) // REALS_PER_COMPONENT, 1))
        made = collective.from_first_process(lambda: self._made(seed), device)
        self.basis_DK = made["basis"].to(device) if "basis" in made else None
        self.turn_KK = made["turn"].to(device) if "turn" in made else None  # of that basis, the last step to the axes
        self.group_of_class, self.group_N = made["group_of_class"].to(device), made["group"].to(device)
        self.targets = [
            moments.Target(*(made[f"{name}_{group}"].to(device) for name in ("mean", "root", "trace", "ridge")), self.turn_KK is not None)
            for group in range(int(made["groups"]))
        ]
        self._rows = [(self.group_N == group).nonzero()[:, 0] for group in range(len(self.targets))]

    def _made(self, seed):
        features_ND, labels_N = self.features_ND.cpu(), self.labels_N.cpu()
        made = {}
        if self.width < features_ND.shape[1]:
            made["basis"] = principal_directions(features_ND - features_ND.mean(0), self.width, generator_for("moments-basis", seed))
            features_ND = features_ND @ made["basis"]
        made["group_of_class"], made["group"] = _groups(labels_N, self.width)
        made["groups"] = made["group"].max() + 1
        if made["groups"] == 1:
            mean_D, second_DD = moments.moments_of(features_ND)
            made["turn"] = torch.linalg.eigh(second_DD - mean_D[:, None] * mean_D).eigenvectors
            turn_KK = made["turn"].to(features_ND.dtype)
            made["basis"], features_ND = made["basis"] @ turn_KK if "basis" in made else turn_KK, features_ND @ turn_KK
        for group in range(int(made["groups"])):
            try:
                target = moments.target_of(*moments.moments_of(features_ND[made["group"] == group]), along_axes="turn" in made)
            except ValueError as error:
                raise MADRError(f"--madr-term with moments: {error}; remove duplicate images or choose another --madr-extractor") from error
            made.update({f"{name}_{group}": value for name, value in zip(("mean", "root", "trace", "ridge"), target.tensors())})
        return made

    def projected(self, features_BD):
        """Bring features to the width of the moments -> [B, K]."""
        return features_BD if self.basis_DK is None else features_BD @ self.basis_DK

    def gradient_before_projection(self, gradient_BK):
        """Take a gradient on projected features back to the features -> [B, D]."""
        return gradient_BK if self.basis_DK is None else gradient_BK @ self.basis_DK.T

    def groups(self, class_B):
        """Tell the group of each image's class (-1: no class) -> int64 [B]; -1 for classes that no real has."""
        last = len(self.group_of_class) - 1
        return torch.where(class_B < last, self.group_of_class[(class_B + 1).clamp(max=last)], -1)

    def draw(self, group, count, generator):
        """Draw features of reals of a group, with replacement -> [count, K]."""
        rows = self._rows[group]
        return self.projected(self.features_ND[rows[torch.randint(len(rows), [count], generator=generator).to(rows.device)]])

    def notes(self):
        """List what the user should know of the width and the groups."""
        given = self.features_ND.shape[1]
        if self.width < min(given, MOST_WIDTH):
            yield f"{len(self.features_ND)} reals are few for {given} features: moments are taken along their {self.width} leading components"
        elif self.width < given:
            yield f"moments are taken along the {self.width} leading components of {given} features"
        num_classes = len(self.labels_N.unique())
        if num_classes > 1 and len(self.targets) == 1:
            yield (
                f"the {num_classes} classes share one set of moments: each would need {REALS_PER_COMPONENT * self.width} reals "
                f"and there may be {MOST_CLASSES} at most to have its own"
            )
        elif len(self.targets) > 1:
            pooled = num_classes - len(self.targets) + 1
            yield "moments are kept per class" + (f"; {pooled} classes of few images share one set" if pooled > 1 else "")


def _groups(labels_N, width):
    """Sort classes into groups -> (group of each class, [1 + classes], the first for -1; group of each real [N])."""
    classes, counts = labels_N.unique(return_counts=True)
    own = [index for index, count in zip(classes.tolist(), counts.tolist()) if index >= 0 and count >= REALS_PER_COMPONENT * width]
    if len(own) > MOST_CLASSES or len(classes) == 1:
        own = []
    count_of = dict(zip(classes.tolist(), counts.tolist()))
    rest = [index for index in classes.tolist() if index not in own]
    while rest and own and sum(count_of[index] for index in rest) < REALS_PER_COMPONENT * width:
        smallest = min(own, key=count_of.get)  # too few together to tell a covariance: the smallest of the others joins them
        own.remove(smallest)
        rest.append(smallest)
    group_of_class = torch.full([int(classes.max()) + 2], -1, dtype=torch.int64)
    for group, members in enumerate([[index] for index in own] + ([rest] if rest else [])):
        group_of_class[torch.tensor(members) + 1] = group
    return group_of_class, group_of_class[labels_N + 1]
