"""The digit classifier behind the modes metric: a small network trained on the data set's own digits, kept under their hash.

`python -m metrics.digit_classifier` trains it by hand. Nothing is downloaded. Must not know generators or metrics.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

from dnnlib import cache
from dnnlib.errors import UserError
from dnnlib.files import atomic_write_bytes
from dnnlib.util import make_cache_dir_path
from metrics import digit_data
from metrics.progress import ProgressMonitor

# Raise when network, training or preparation change: part of the key of what is kept.
VERSION = 2
SIZE = 32
LOWEST_ACCURACY = 0.9  # below this the labels, not the classifier, must be at fault


@dataclass(frozen=True)
class Recipe:
    """How the network is trained. The number of steps follows the number of digits, within bounds."""

    epochs: int = 8
    batch_size: int = 128
    min_steps: int = 400
    max_steps: int = 3200
    peak_lr: float = 1e-2
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    seed: int = 0

    def num_steps(self, num_digits):
        return min(max(self.epochs * num_digits // self.batch_size, self.min_steps), self.max_steps)


def _block(inputs, outputs, size=3, stride=1):
    return torch.nn.Sequential(
        torch.nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False), torch.nn.BatchNorm2d(outputs), torch.nn.ReLU()
    )


class DigitNet(torch.nn.Module):
    """Grey images [N, 1, 32, 32] in [0, 1] -> logits [N, 10]. About 60,000 parameters."""

    def __init__(self, width=16):
        super().__init__()
        self.body = torch.nn.Sequential(
            _block(1, width, size=5, stride=2),
            _block(width, 2 * width),
            torch.nn.MaxPool2d(2),
            _block(2 * width, 4 * width),
            _block(4 * width, 4 * width),
            torch.nn.AdaptiveMaxPool2d(1),
            torch.nn.Flatten(),
        )
        self.head = torch.nn.Linear(4 * width, 10)

    def forward(self, x):
        return self.head(self.body(x))


@dataclass(frozen=True)
class DigitClassifier:
    """A trained network with what is known about it."""

    net: DigitNet
    accuracy: float  # on digits that it was not trained on
    confidence: float  # mean probability of the answer on them: what images that look like digits get
    num_train: int
    num_held_out: int
    key: str

    @torch.no_grad()
    def predict(self, planes):
        """uint8 [N, H, W] -> (digits int64 [N], probability of each answer [N])."""
        device = next(self.net.parameters()).device
        probs = torch.cat([self.net(prepare(part.to(device))).softmax(dim=1) for part in planes.split(512)])
        best = probs.max(dim=1)
        return best.indices, best.values

    def predict_modes(self, images):
        """uint8 RGB images [N, 3, H, W] -> (modes 100 r + 10 g + b int64 [N], mean probability of the three answers [N])."""
        digits, probs = self.predict(images.flatten(0, 1))
        weights = torch.tensor([100, 10, 1], device=digits.device)
        return (digits.reshape(-1, 3) * weights).sum(dim=1), probs.reshape(-1, 3).mean(dim=1)

    def to_plain(self):
        """Weights (on the CPU) and facts, as strings: what files and other processes get."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.net.state_dict().items()}
        numbers = {name: repr(getattr(self, name)) for name in ("accuracy", "confidence", "num_train", "num_held_out")}
        return weights, dict(numbers, key=self.key)

    def weights_digest(self):
        """SHA-256 over names and values of the weights."""
        sha256 = hashlib.sha256()
        for name, value in sorted(self.net.state_dict().items()):
            sha256.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return sha256.hexdigest()

    @staticmethod
    def from_plain(plain, device):
        weights, facts = plain
        net = DigitNet()
        net.load_state_dict(weights)
        net = net.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)
        return DigitClassifier(
            net, float(facts["accuracy"]), float(facts["confidence"]), int(facts["num_train"]), int(facts["num_held_out"]), facts["key"]
        )


def prepare(planes):
    """uint8 [N, H, W] -> float [N, 1, 32, 32] in [0, 1]; other sizes are resized."""
    x = planes[:, None].to(torch.float32) / 255
    return x if x.shape[2:] == (SIZE, SIZE) else F.interpolate(x, size=[SIZE, SIZE], mode="bilinear", align_corners=False, antialias=True)


def jitter(x, generator):
    """Small random rotation, scale, shear and shift of each image, drawn from `generator` (CPU)."""
    count = len(x)
    around_zero = lambda reach, *shape: (torch.rand(count, *shape, generator=generator) * 2 - 1) * reach
    angle, scale, shear, shift = around_zero(0.26), 1 + around_zero(0.15), around_zero(0.25), around_zero(0.14, 2)
    rows = [
        torch.stack([scale * angle.cos(), shear - scale * angle.sin(), shift[:, 0]], dim=1),
        torch.stack([scale * angle.sin(), scale * angle.cos(), shift[:, 1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def train(digits, device, recipe=Recipe(), progress=None):
    """A DigitNet trained on the given digits. Leaves torch's own generators as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = DigitNet().to(device=device, memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(recipe.seed)
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    batch_size = min(recipe.batch_size, len(digits))
    num_steps = recipe.num_steps(len(digits))
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_lr, total_steps=num_steps, pct_start=0.25)
    order = torch.empty(0, dtype=torch.long)
    for step in range(num_steps):
        if len(order) < batch_size:
            order = torch.randperm(len(digits), generator=generator)
        chosen, order = order[:batch_size], order[batch_size:]
        x = jitter(prepare(images[chosen].to(device)), generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(net(x), labels[chosen].to(device), label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1)
    return net.eval().requires_grad_(False)


def accuracy_on(classifier, digits):
    """(share of digits that are recognised, mean probability of the answers)"""
    answers, probs = classifier.predict(torch.from_numpy(digits.images))
    return float((answers.cpu() == torch.from_numpy(digits.labels)).double().mean()), float(probs.double().mean())


# ----------------------------------------------------------------------------------------------------------------
# Keeping.


def cache_key(dataset, recipe):
    facts = json.dumps([VERSION, dataset.content_fingerprint(), dataclasses.asdict(recipe)], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def cache_path(key):
    return make_cache_dir_path("digit-classifiers", key[:32] + ".safetensors")


def save(path, classifier):
    weights, facts = classifier.to_plain()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    atomic_write_bytes(path, safetensors.torch.save(weights, metadata=facts))


def load(path, key, device):
    """(DigitClassifier or None, complaint or None)."""
    if not os.path.isfile(path):
        return None, None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
        if facts["key"] != key:
            return None, f"The digit classifier {path} belongs to another data set; training it again."
        return DigitClassifier.from_plain((weights, facts), device), None
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        return None, f"The digit classifier {path} is damaged ({type(error).__name__}); training it again."


def obtain(dataset, device, *, recipe=Recipe(), use_cache=True, monitor=None):
    """The classifier of this data set's digits: the kept one, else trained now and kept."""
    monitor = monitor or ProgressMonitor()
    say = (lambda text: print(text, flush=True)) if monitor.verbose else (lambda text: None)
    digit_data.check_stacked(dataset)
    key = cache_key(dataset, recipe)
    path = cache_path(key)
    if use_cache:
        classifier, complaint = load(path, key, device)
        if complaint:
            print(complaint, flush=True)
        if classifier is not None:
            say(f"Digit classifier: {classifier.accuracy:.2%} on {classifier.num_held_out} held-out digits, from {path}")
            return classifier
    classifier = _train_and_measure(dataset, device, recipe, monitor, key)
    say(f"Digit classifier: trained on {classifier.num_train} digits, {classifier.accuracy:.2%} on {classifier.num_held_out} held-out ones")
    if use_cache and cache.keep(path, lambda path: save(path, classifier)):
        say(f"Digit classifier kept in {path}")
    return classifier


def _train_and_measure(dataset, device, recipe, monitor, key):
    num_images = min(len(dataset), digit_data.MAX_TRIPLES)
    reading = monitor.sub(tag="reading digits", num_items=num_images, flush_interval=10_000, rel_lo=0, rel_hi=0.2)
    training, held_out = digit_data.split_digits(digit_data.collect_digits(dataset, reading.update))
    reading.update(num_images)
    learning = monitor.sub(tag="learning digits", num_items=recipe.num_steps(len(training)), flush_interval=200, rel_lo=0.2, rel_hi=1)
    net = train(training, device, recipe, learning.update)
    classifier = DigitClassifier(net, float("nan"), float("nan"), len(training), len(held_out), key)
    accuracy, confidence = accuracy_on(classifier, held_out)
    classifier = dataclasses.replace(classifier, accuracy=accuracy, confidence=confidence)
    if classifier.accuracy < LOWEST_ACCURACY:
        raise UserError(
            f"A classifier learned from {dataset.name} recognises only {classifier.accuracy:.1%} of {len(held_out)} held-out channels; "
            "its labels are not those of stacked digits (100 r + 10 g + b), or there are too few images."
        )
    return classifier
