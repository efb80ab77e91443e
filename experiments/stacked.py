"""One run on Stacked MNIST before a weak discriminator, in the setting of Unrolled GAN (Metz et al. 2017, 1611.02163) as PacGAN runs it
(Lin et al. 2018, 1712.04086), with the methods of train.py:

    python -m experiments.stacked --share=0.25 --mnist=FOLDER --gan=wgan-gp --method=pacgan:m=2 --iterations=20000 --seed=0 --outdir=out/stacked

Triples of MNIST's training digits, 28x28, drawn as they come; batches of 128, one step of D and one of G per iteration, latents N(0, I) of 256,
Adam with betas .5 and .99 and rates 1e-4 (G) and 2e-4 (D) where the method brings none; the networks are those of --backbone=weak-dcgan. 25,600
samples are counted by a digit classifier; the KL is to the uniform distribution, in nats. Every --every iterations a point of the curve. Writes
OUTDIR/result.json at the end. Ctrl-C or SIGTERM saves OUTDIR/state.pt; the same command goes on, also with more iterations. A script of the
study `methods`.
"""

import json
import time
from pathlib import Path

import click

from dnnlib import cli
from dnnlib.errors import UserError
from experiments.run import StopSignals
from madr_plugin import options as madr

# Whatever imports torch is imported inside the functions, so that --help comes at once.

BATCH, SIDE, NUM_SAMPLES = 128, 28, 25_600
IMAGE_SHAPE = (3, SIDE, SIDE)
NUM_FIXED = 50_000  # triples for those who look at the whole training set, such as MADR's reference
R1_GAMMA = 1.0  # of a method that brings R1 without a weight
DIGITS = ("mnist", "small")


# ----------------------------------------------------------------------------------------------------------------
# Data and measures.


def load_digits(source, folder, split):
    """Digits [N, 28, 28] of a split ('train', 'test'). source: 'mnist', or 'small', scikit-learn's for trials. folder: MNIST's, None downloads."""
    import numpy as np

    from experiments import digit_bed
    from metrics.digit_data import Digits
    from training.data import builders

    if source == "mnist":
        return digit_bed.load_digits(folder, split, SIDE)
    images, labels, _ = builders.load_small_digits("train" if split == "train" else "eval")
    border = (images.shape[1] - SIDE) // 2  # dark
    return Digits(images[:, border : border + SIDE, border : border + SIDE], labels.astype(np.int64))


class Triples:
    """Three digits as the colours of an image: any number drawn anew, and NUM_FIXED of them in the shape of a data set, without labels."""

    image_shape = list(IMAGE_SHAPE)

    def __init__(self, source, folder=None):
        import numpy as np

        self.digits = load_digits(source, folder, "train")
        self.rows = np.random.RandomState(0).randint(len(self.digits), size=[NUM_FIXED, 3])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        import numpy as np

        return self.digits.images[self.rows[index]], np.zeros([0], np.float32)

    def content_fingerprint(self):
        import hashlib

        return hashlib.sha256(self.digits.images.tobytes() + self.rows.tobytes()).hexdigest()

    def draw(self, count, generator):
        """float32 [count, 3, 28, 28] in [-1, 1]: each colour any digit, independently."""
        import torch

        rows = torch.randint(len(self.digits), [count, 3], generator=generator)
        return torch.from_numpy(self.digits.images[rows.numpy()]).to(torch.float32) / 127.5 - 1


class Judge:
    """Modes and KL of a generator. classifier: of single digits; digits: those of the training."""

    def __init__(self, classifier, digits, num_samples=NUM_SAMPLES):
        import numpy as np

        from madr_spaces.sampling import stream
        from metrics import modes

        self.classifier, self.num_samples = classifier, num_samples
        shares_10 = np.bincount(digits.labels, minlength=10) / len(digits)
        data_K = np.einsum("r,g,b->rgb", shares_10, shares_10, shares_10).reshape(1000)
        self.floor_kl, _, self.floor_modes = modes.real_data_floor(data_K, np.ones(1000), num_samples, stream("floor", 0))

    def facts(self):
        """What the counts rest on."""
        floor = dict(floor_kl=self.floor_kl, floor_modes=self.floor_modes)
        return dict(num_samples=self.num_samples, classifier_accuracy=self.classifier.accuracy, **floor)

    def __call__(self, sample, z_dim):
        """{modes, modes_5hits, kl, confidence} of what sample(z [N, z_dim]) draws from the same latents each time."""
        import numpy as np
        import torch

        from metrics import modes

        generator, counts, confidence, left = torch.Generator().manual_seed(0), np.zeros(1000, np.int64), 0.0, self.num_samples
        while left > 0:
            images = sample(torch.randn([min(left, 512), z_dim], generator=generator))
            labels, probabilities = self.classifier.predict_modes((images * 127.5 + 128).clamp(0, 255).to(torch.uint8))
            counts += np.bincount(labels.numpy(), minlength=1000)
            confidence, left = confidence + float(probabilities.sum()), left - len(images)
        score = modes.mode_statistics(counts, np.ones(1000))
        figures = {name: score[name] for name in ("modes", "modes_5hits", "kl")}
        return dict(figures, confidence=confidence / self.num_samples / self.classifier.confidence)


# ----------------------------------------------------------------------------------------------------------------
# The run.


def options_of(flags):
    """The training options of train.py that such a run has, after the methods have changed them. flags: by name, without None."""
    from experiments import row_runs

    adam = dict(class_name="torch.optim.Adam", lr=1e-4, betas=[0.5, 0.99], eps=1e-8)  # the backbone has its own
    data = dict(class_name="experiments.stacked.Triples", source=flags["digits"], folder=flags.get("mnist"))
    kimg = flags["iterations"] * BATCH / 1000
    options = row_runs.options_of(BATCH, kimg, flags["seed"], data, (adam, adam), R1_GAMMA)
    return row_runs.choose(options, dict(flags, backbone=f"weak-dcgan:share={flags['share']:g}"), IMAGE_SHAPE)


def train(run, data, judge, iterations, every, curve, path, own, stop):
    """Go on to `iterations`, with a point of the curve and a state every so many. -> whether it came to the end."""
    begun = time.monotonic() - (curve[-1]["seconds"] if curve else 0)
    while run.steps < iterations:
        if stop():
            run.keep(path, own, curve)
            return False
        run.step(data.draw)
        if run.steps % every == 0 or run.steps == iterations:
            found = judge(run.sample, run.G.z_dim)
            curve.append(dict(found, iterations=run.steps, kimg=run.steps * BATCH / 1000, cpu_seconds=run.seconds, seconds=time.monotonic() - begun))
            run.keep(path, own, curve)
            told = f"modes {found['modes']}, hit 5 times {found['modes_5hits']}, KL {found['kl']:.3f}, confidence {found['confidence']:.2f}"
            print(f"iteration {run.steps}: {told}; {run.seconds:.0f} s of CPU", flush=True)
    return True


@click.command(context_settings=dict(max_content_width=140))
@click.option("--share", type=cli.FloatRange(0.03125, 16), default=0.25, show_default=True, help="Channels of D over those of G")
@click.option("--digits", type=click.Choice(DIGITS), default="mnist", show_default=True, help="small: scikit-learn's, a stand-in for trials")
@click.option("--mnist", type=click.Path(file_okay=False), metavar="FOLDER", help="Folder with MNIST's four files  [default: downloaded]")
@click.option("--gan", metavar="NAME", help="Adversarial loss, as train.py --gan  [default: non-saturating]", default="non-saturating")
@click.option("--method", multiple=True, metavar="NAME[:KEY=VALUE,...]", help="A method, as train.py --method; may be repeated")
@click.option("--iterations", type=cli.IntRange(min=1), metavar="INT", help="Steps of D  [default: 20000, or by --kimg]")
@click.option("--kimg", type=cli.IntRange(min=1), metavar="INT", help="The same in thousands of images at 128 a step")
@click.option("--every", type=cli.IntRange(min=1), default=2000, show_default=True, help="Iterations from one point of the curve to the next")
@click.option("--samples", type=cli.IntRange(min=1), default=NUM_SAMPLES, show_default=True, help="Samples that are counted")
@click.option("--seed", type=cli.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), required=True)
@madr.madr_options
def main(outdir, iterations, kimg, every, samples, **flags):
    """Train on Stacked MNIST before a weak discriminator and write what came of it."""
    from dnnlib.files import atomic_write_text
    from experiments import digit_bed, row_runs
    from torch_utils import distributed

    if iterations and kimg:
        raise UserError(f"--iterations={iterations} and --kimg={kimg} are both the length of the run: leave one of them out.")
    iterations = iterations or (kimg * 1000 // BATCH if kimg else 20_000)
    flags = dict({name: value for name, value in flags.items() if value is not None}, method=list(flags["method"]), iterations=iterations)
    options = options_of(flags)
    data = Triples(flags["digits"], flags.get("mnist"))
    path, own = outdir / row_runs.STATE, row_runs.identity(options, data)
    run = row_runs.Run(options, data, IMAGE_SHAPE)
    curve = run.resumed(path, own)
    held_out = load_digits(flags["digits"], flags.get("mnist"), "test")
    judge = Judge(digit_bed.classifier_of(data.digits, held_out), data.digits, samples)
    with StopSignals() as stop:
        finished = train(run, data, judge, iterations, every, curve, path, own, stop)
    run.close()
    if not finished:
        print(f"Stopped after {run.steps} iterations; the same command goes on. Exit code {distributed.EXIT_STOPPED}.")
        return distributed.EXIT_STOPPED
    atomic_write_text(outdir / "result.json", json.dumps(dict(curve[-1], curve=curve, **judge.facts()), indent=1) + "\n")
    return None


if __name__ == "__main__":
    cli.run(main)
