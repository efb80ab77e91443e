"""Beds of small digit images on which GANs drop modes within minutes on one core: data, networks and measures.

`stacked`: three MNIST digits as the colours of a 14x14 image, 1000 modes, before a D that is weak on purpose.
`stacked28`: the same at MNIST's own 28x28.
Other beds of digits: tail_bed.py, colored_bed.py. Must not know methods or statistics over seeds.
"""

import hashlib

import numpy as np
import torch

from madr_spaces.sampling import stream
from metrics import digit_network, kernels, modes
from metrics.digit_data import Digits
from training.data import builders, mnist

SIDES = {"stacked": 14, "stacked28": 28}  # of each bed's images, in pixels
BEDS = tuple(SIDES)
_DATA_SEEDS = {"stacked": 0, "stacked28": 2}
NUM_IMAGES = 50_000
Z_DIM = 64


# ----------------------------------------------------------------------------------------------------------------
# Data.


def half_size(images_N28):
    """uint8 [N, 28, 28] -> uint8 [N, 14, 14]: means of 2x2 pixels, rounded."""
    blocks = images_N28.astype(np.uint16).reshape(len(images_N28), 14, 2, 14, 2)
    return ((blocks.sum(axis=(2, 4)) + 2) // 4).astype(np.uint8)


def load_digits(mnist_folder, split, side=14):
    """Digits of 14x14 or 28x28 of a split of MNIST; downloaded if the folder is None."""
    images, labels, _ = mnist.load_mnist(mnist_folder, split, "--mnist")
    return Digits(half_size(images) if side == 14 else np.array(images), labels.astype(np.int64))


class ImageSet:
    """Fixed training images, `images`: uint8 [N, C, side, side], without labels, in the shape of a host's data set."""

    def __init__(self, images):
        self.images, self.image_shape = images, list(images.shape[1:])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], np.zeros([0], np.float32)

    def content_fingerprint(self):
        return hashlib.sha256(self.images.tobytes()).hexdigest()

    def as_tensor(self):
        """float32 [N, C, side, side] in [-1, 1]."""
        return torch.from_numpy(self.images).to(torch.float32) / 127.5 - 1


class StackedSet(ImageSet):
    """The images of a bed of three digits each, and their modes."""

    def __init__(self, bed, digits, num_images=NUM_IMAGES, seed=0):
        rng = np.random.RandomState([seed, _DATA_SEEDS[bed]])
        self.modes = builders.draw_modes(num_images, np.bincount(digits.labels, minlength=10), builders.NUM_MODES, False, rng)
        super().__init__(digits.images[builders.draw_triples(self.modes, digits.labels, rng)])


# ----------------------------------------------------------------------------------------------------------------
# Networks: a small DCGAN with batch norm in G.

_NETWORKS = "training.gan.networks"
# Channels by side: of G from 7x7 up to the full resolution, of D down from half of it, weaker than G on purpose.
_CHANNELS = {14: ([32, 16], [8, 16]), 28: ([32, 16, 8], [4, 8, 16])}


def networks(side=14, channels=None):
    """(G_kwargs, D_kwargs): z [N, 64] -> [N, C, side, side] in [-1, 1] -> logits [N, 1]; first weights are PyTorch's own. channels: of G and of D."""
    of_G, of_D = map(list, channels or _CHANNELS[side])
    G_kwargs = dict(class_name=f"{_NETWORKS}.DCGANGenerator", z_dim=Z_DIM, synthesis_kwargs=dict(channels=of_G, init_std=None))
    return G_kwargs, dict(class_name=f"{_NETWORKS}.DCGANDiscriminator", channels=of_D, norm="none", init_std=None)


# ----------------------------------------------------------------------------------------------------------------
# Measures.


def obtain_classifier(mnist_folder, side=14):
    """The digit classifier of digits of this size with its accuracy on MNIST's test digits; kept in the cache folder."""
    return classifier_of(load_digits(mnist_folder, "train", side), load_digits(mnist_folder, "test", side))


def classifier_of(digits, held_out):
    """The classifier that these digits teach, with its accuracy on others; kept in the cache folder."""
    recipe = digit_network.Recipe()
    key = hashlib.sha256(repr((digit_network.VERSION, recipe)).encode() + digits.images.tobytes() + held_out.images.tobytes()).hexdigest()
    path = digit_network.cache_path(key)
    classifier, _ = digit_network.load(path, key, "cpu")
    if classifier is None:
        net = digit_network.train(digits, "cpu", recipe)
        classifier = digit_network.DigitClassifier(net, float("nan"), float("nan"), len(digits), len(held_out), key)
        accuracy, confidence = digit_network.accuracy_on(classifier, held_out)
        classifier = digit_network.DigitClassifier(net, accuracy, confidence, len(digits), len(held_out), key)
        digit_network.save(path, classifier)
    return classifier


@torch.no_grad()
def read_planes(classifier, planes):
    """uint8 [P, H, W] -> (digits int64 [P], probability of each [P], features [P, 192]: the layer below the classes)."""
    digits, sure, features = [], [], []
    for part in torch.from_numpy(planes).split(1536):
        body = classifier.net.body(digit_network.prepare(part))
        best = classifier.net.head(body).softmax(dim=1).max(dim=1)
        digits.append(best.indices), sure.append(best.values), features.append(body)
    return torch.cat(digits).numpy(), torch.cat(sure).numpy(), torch.cat(features).numpy()


def look_at(classifier, images):
    """uint8 [N, 3, H, W] -> (digits int64 [N, 3], mean probability of the answers [N], features [N, 3 x 192])."""
    digits, sure, features = read_planes(classifier, images.reshape(-1, *images.shape[2:]))
    count = len(images)
    return digits.reshape(count, 3), sure.reshape(count, 3).mean(1), features.reshape(count, -1)


class Judge:
    """Measures of a bed: what the reals look like is found once."""

    def __init__(self, classifier, dataset, num_samples=10_000):
        self.classifier, self.num_samples = classifier, num_samples
        _, self.real_confidence, features = look_at(classifier, dataset.images[:num_samples])
        self.real_moments = kernels.mean_and_covariance(features)
        data_K = modes.independent_digits(np.bincount(dataset.modes, minlength=1000))
        self.floor_kl, _, self.floor_modes = modes.real_data_floor(data_K, np.ones(1000), num_samples, stream("floor", 0))

    def __call__(self, images):
        """{measure: number} of generated images, uint8 [N, 3, side, side]."""
        digits_N3, confidence, features = look_at(self.classifier, images)
        score = modes.mode_statistics(np.bincount(modes.stacked_label(digits_N3), minlength=1000), np.ones(1000))
        return dict(
            modes=score["modes"],
            modes_5hits=score["modes_5hits"],
            kl=score["kl"],
            frechet=kernels.frechet_distance(*kernels.mean_and_covariance(features), *self.real_moments),
            confidence=float(confidence.mean() / self.real_confidence.mean()),
        )


@torch.no_grad()
def sample(G, count, seed=0, batch=1000):
    """uint8 images [count, C, side, side] of the generator in its present state, always from the same latents."""
    was_training = G.training
    G.eval()
    z = torch.randn([count, Z_DIM], generator=torch.Generator().manual_seed(seed))
    images = torch.cat([G(part, None) for part in z.split(batch)])
    G.train(was_training)
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()
