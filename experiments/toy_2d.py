"""MADR's idea on a ring or grid of Gaussians: data, networks, measures, and the runs of toy_2d.py.

Runs the plugin's real MADRLoss on points instead of images (an image of 2 channels and 1 pixel holds a point). About a
minute per setting and seed on one core. OUTDIR/<layout>.json grows run by run: finished runs are not repeated.
"""

import io

import numpy as np
import torch

from dnnlib.files import atomic_write_bytes
from experiments import records, small_gan
from experiments.point_networks import EXTENT
from experiments.toy_methods import FIRST_SEED, METHODS
from madr_spaces.seeds import generator_for
from torch_utils.process_lock import ProcessLock

NETWORKS = [dict(class_name=f"experiments.point_networks.Toy{kind}") for kind in ("Generator", "Discriminator")]
MIXTURE, Z_DIM = "experiments.point_networks.PointMixture", 8


def mode_layout(layout):
    """-> (centres [M, 2], masses [M], standard deviation)."""
    if layout == "grid":
        axis = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
        return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), np.full(25, 1 / 25), 0.05
    angle = 2 * np.pi * np.arange(8) / 8
    if layout == "small-ring":  # PacGAN's
        return np.stack([np.cos(angle), np.sin(angle)], 1), np.full(8, 1 / 8), 0.01
    masses = np.array([0.32, 0.02, 0.22, 0.01, 0.20, 0.01, 0.20, 0.02]) if layout == "imbalanced" else np.full(8, 1 / 8)
    return 2 * np.stack([np.cos(angle), np.sin(angle)], 1), masses, 0.05


class PointSet:
    """Training points in the shape of a data set of images [2, 1, 1]; float pixels keep the modes' width."""

    image_shape = [2, 1, 1]

    def __init__(self, layout, count=4000, seed=0):
        centres, masses, spread = mode_layout(layout)
        random = np.random.RandomState(seed)
        mode = random.choice(len(centres), size=count, p=masses)
        self.points = (centres[mode] + spread * random.randn(count, 2)).astype(np.float32)
        self.layout, self.seed = layout, seed

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return ((self.points[index] / EXTENT + 1) * 127.5)[:, None, None], np.zeros([0], np.float32)

    def content_fingerprint(self):
        return f"toy-{self.layout}-{len(self)}-{self.seed}"


def measure(points, layout):
    """-> dict(modes, hit, quality, kl, shares): samples within three standard deviations of a mode are its own; a mode is
    hit by one such sample (the count that papers report), and held (`modes`) with at least 1/5 of its true mass."""
    centres, masses, spread = mode_layout(layout)
    distance = np.linalg.norm(points[:, None] - centres[None], axis=2)
    nearest, near = distance.argmin(1), distance.min(1) < 3 * spread
    shares = np.bincount(nearest[near], minlength=len(centres)) / len(points)
    present = np.bincount(nearest, minlength=len(centres)) / len(points)
    filled = present > 0
    kl = float((present[filled] * np.log(present[filled] / masses[filled])).sum())
    return dict(modes=int((shares > masses / 5).sum()), hit=int((shares > 0).sum()), quality=float(near.mean()), kl=kl, shares=shares)


def train(method, layout, seed, steps, batch=64, num_evaluations=100):
    """One run -> summary over its last fifth (table) and second half (cycling), and its last samples."""
    data, history = PointSet(layout), []
    networks = dict(NETWORKS[0], z_dim=Z_DIM), NETWORKS[1]
    gan = small_gan.build(METHODS[method], networks, data, seed, batch=batch, lr_G=2e-3, lr_D=5e-4, betas=(0.5, 0.9), mixture=MIXTURE)

    def each(step):
        if step % max(steps // num_evaluations, 1) == 0:
            history.append(measure(sample(gan.G, 2500), layout))

    points = torch.from_numpy(data.points)[:, :, None, None] / EXTENT
    seconds = small_gan.train(gan, points, seed, steps, each)
    return dict(summary(history), seconds=seconds, samples=sample(gan.G, 2500))


@torch.no_grad()
def sample(G, count):
    z = torch.randn([count, Z_DIM], generator=generator_for("toy-evaluation"))
    return (G(z, torch.zeros([count, 0]))[:, :, 0, 0] * EXTENT).numpy()


def summary(history):
    """Means over the last fifth; cycling = 1 - mean modes at once / modes ever, over the second half."""
    last, half = history[-max(len(history) // 5, 1) :], history[len(history) // 2 :]
    ever = len(set().union(*[np.flatnonzero(entry["shares"] > 0.02 / len(entry["shares"])).tolist() for entry in half]))
    cycling = 1 - float(np.mean([(entry["shares"] > 0.02 / len(entry["shares"])).sum() for entry in half])) / max(ever, 1)
    return dict(**{name: float(np.mean([entry[name] for entry in last])) for name in ("modes", "hit", "quality", "kl")}, cycling=cycling)


MEASURES = (("modes", 1), ("hit", 1), ("quality", 2), ("kl", 3), ("cycling", 2), ("seconds", 0))  # of the table, with their digits


def table(runs, num_modes):
    """{method: {seed: entry}} -> Markdown, one line per method: means over seeds, with the half width of a 95% t interval where there are several."""
    lines = [f"| method | modes held, of {num_modes} | modes hit | high quality | KL | cycling | CPU s |", "|---|---|---|---|---|---|---|"]
    for method, entries in runs.items():
        cells = [_cell([entry[name] for entry in entries.values()], digits) for name, digits in MEASURES]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values, digits):
    mean, half_width = records.mean_and_interval(values)
    return f"{mean:.{digits}f}" if len(values) < 2 else f"{mean:.{digits}f} ± {half_width:.{digits}f}"


def keep_samples(path, method, samples):
    """Put a method's points beside those of the others, for the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ProcessLock(path.with_suffix(".lock"), limit_sec=60, say=print):  # another process may put its own there
        buffer = io.BytesIO()
        np.savez(buffer, **dict(samples_of(path), **{method: samples.astype(np.float32)}))
        atomic_write_bytes(path, buffer.getvalue())


def samples_of(path):
    """{method: points [N, 2]} kept so far."""
    if not path.exists():
        return {}
    with np.load(path) as file:
        return {method: file[method] for method in file.files}


def picture(samples, runs, layout, path):
    """Last samples of the first seed of every method that has some, over the reals."""
    from matplotlib.figure import Figure

    real, shown = PointSet(layout, count=2500).points, [method for method in runs if method in samples]
    if not shown:
        return
    figure = Figure(figsize=(3 * len(shown), 3.2))
    for axes, method in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown):
        axes.scatter(*real.T, s=2, c="lightgray")
        axes.scatter(*samples[method].T, s=2, c="crimson", alpha=0.5)
        axes.set(
            title=f"{method}: {runs[method][FIRST_SEED]['modes']:.1f} modes",
            xlim=(-EXTENT, EXTENT),
            ylim=(-EXTENT, EXTENT),
            xticks=[],
            yticks=[],
            aspect="equal",
        )
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    atomic_write_bytes(path, buffer.getvalue())


def run_missing(store, chosen, seeds, layout, steps):
    """Train what the file does not hold yet, seed by seed, so that an interrupted list has whole pairs."""
    points = store.path.with_suffix(".npz")
    for seed in seeds:
        for method in chosen:
            known = store.get(method, seed) is not None
            if known and (seed != FIRST_SEED or method in samples_of(points)):
                continue  # a file may have come without the points for its picture
            run = train(method, layout, seed, steps)
            if seed == FIRST_SEED:
                keep_samples(points, method, run["samples"])
            if not known:
                store.put(method, seed, {name: value for name, value in run.items() if name != "samples"})
                print(
                    f"{method} seed {seed}: modes {run['modes']:.1f} held, {run['hit']:.1f} hit, high quality {run['quality']:.2f}, "
                    f"KL {run['kl']:.3f}, cycling {run['cycling']:.2f}",
                    flush=True,
                )


def study(layout, chosen, seeds, steps, outdir):
    """Train what is missing, then print the table and draw the picture."""
    torch.set_num_threads(1)  # tensors this small gain nothing from more
    facts = dict(layout=layout, steps=steps, methods={name: small_gan.resolved(METHODS[name]) for name in chosen})
    store = records.Store(outdir / f"{layout}.json", facts)
    run_missing(store, chosen, seeds, layout, steps)
    runs = records.load(store.path)[1]
    print("\n" + table(runs, len(mode_layout(layout)[0])))
    picture(samples_of(store.path.with_suffix(".npz")), runs, layout, outdir / f"{layout}.png")
    print(f"\nWritten: {outdir / layout}.json, .npz, .png")
