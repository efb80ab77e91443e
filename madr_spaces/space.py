"""What may be expected of a feature space, whoever looks through it: a loss, a metric, a check.

Its parameters are buffers: frozen for good, never handed to an optimizer, never pickled with a snapshot (its identity
is). It is differentiable with respect to the image: no no_grad, no detach, or the coverage loss would be a constant.
"""

import hashlib
import json

import torch

from madr_spaces.errors import MADRError


class Space(torch.nn.Module):
    """images [N, C, H, W], float32 in [-1, 1] -> features [N, width], float32."""

    # Number of training images that fit() wants to see; 0: nothing to fit.
    images_to_fit = 0
    # The random view that `--madr-view=auto` stands for.
    default_view = "none"
    # How images of another size are brought to the network's, in words for a result line.
    resize_filter = "none"

    def __init__(self, image_shape):
        super().__init__()
        self.image_shape = tuple(int(size) for size in image_shape)

    def identity(self):
        """Plain dict that says which features these are, apart from what fit() adds."""
        raise NotImplementedError

    def digest(self):
        """SHA-256 over the identity and the buffers, what fit() has put there included."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode())
        for name, value in self.named_buffers():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def of_bytes(self, images):
        """Features of uint8 images [N, C, H, W], as a metric has them; grey ones become three equal channels where the space takes three."""
        if images.shape[1] == 1 and self.image_shape[0] == 3:
            images = images.expand(-1, 3, -1, -1)
        return self(images.to(torch.float32) / 127.5 - 1)

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
