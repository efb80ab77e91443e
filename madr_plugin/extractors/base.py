"""What the rest of the plugin may expect of a feature extractor.

Its parameters are buffers: frozen for good, never handed to an optimizer, never pickled with a snapshot (its identity
is). It is differentiable with respect to the image: no no_grad, no detach, or the coverage loss would be a constant.
"""

import torch

from madr_plugin.base.errors import MADRError


class Extractor(torch.nn.Module):
    """images [N, C, H, W], float32 in [-1, 1] -> features [N, width], float32."""

    # Number of training images that fit() wants to see; 0: nothing to fit.
    images_to_fit = 0
    # The random view that `--madr-view=auto` stands for.
    default_view = "none"

    def __init__(self, image_shape):
        super().__init__()
        self.image_shape = tuple(int(size) for size in image_shape)

    def identity(self):
        """Plain dict that says which features these are, apart from what fit() adds."""
        raise NotImplementedError

    def shrunk(self, images):
        """As much of images [n, C, H, W] as fit() needs of them: thousands are kept at once."""
        return images

    def fit(self, images):
        """Adapt to training images [n, C, H, W] in [-1, 1]. The result lies in the buffers."""

    def tensors(self):
        """All that it keeps in memory, also what lies outside the module's buffers on purpose."""
        return list(self.buffers())

    def train(self, mode=True):
        # Frozen statistics (batch norm, dropout) whatever the host does with its modules.
        return super().train(False)


def check_features(features, name):
    """Refuse features that no loss can use. Called once, on real images."""
    if not torch.isfinite(features).all():
        raise MADRError(f"--madr-extractor={name} gives non-finite features on the training images; choose another extractor")
    if len(features) > 1 and float((features - features[:1]).abs().max()) == 0:
        raise MADRError(
            f"--madr-extractor={name} gives the same features for all training images; "
            "choose another extractor, or check the data for being one image repeated"
        )
