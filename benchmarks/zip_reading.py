"""How fast images are read from a zip: the data set of training against Pillow reading the same zip, in one thread and in worker processes.

    python benchmarks/zip_reading.py

PNG and JPEG of photographs' statistics (coarse noise, enlarged, and fine noise on it), in zips as dataset_tool.py writes them. Pillow: zipfile, Image.open,
numpy. One thread: CPU seconds of this process, in turn. Workers: CPU seconds of all processes for each image, so that a busy
machine does not count; the wall clock beside it. Writes benchmarks/results/zip_reading.json and the table in docs/performance.md.
"""

import io
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import numpy as np
import PIL.Image
import torch

from benchmarks.circumstances import circumstances
from dnnlib import cli
from dnnlib.files import atomic_write_text
from experiments import pages
from training.dataset import ImageFolderDataset

KINDS = dict(png=dict(format="png", compress_level=0), jpeg=dict(format="jpeg", quality=95))
RESULTS, PAGE = REPO / "benchmarks" / "results" / "zip_reading.json", REPO / "docs" / "performance.md"


def make_zip(path, kind, side, count):
    rng = np.random.RandomState(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(count):
            coarse = PIL.Image.fromarray(rng.randint(0, 256, [8, 8, 3]).astype(np.uint8)).resize([side, side], PIL.Image.BICUBIC)
            pixels = (np.asarray(coarse).astype(np.int64) + rng.randint(-6, 7, [side, side, 3])).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            PIL.Image.fromarray(pixels).save(buffer, **KINDS[kind])
            archive.writestr(f"{index // 1000:05d}/img{index:08d}.{kind}", buffer.getvalue())


class ThroughPillow(torch.utils.data.Dataset):
    """The plain way: zipfile, Pillow, numpy."""

    def __init__(self, path):
        self.path, self.archive = path, None
        with zipfile.ZipFile(path) as archive:
            self.names = sorted(archive.namelist())

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        if self.archive is None:
            self.archive = zipfile.ZipFile(self.path)
        with self.archive.open(self.names[index]) as file:
            return np.array(PIL.Image.open(file)).transpose(2, 0, 1), np.zeros([0], np.float32)

    def close(self):
        self.archive = None


def cpu_seconds():
    """Of this process and of all its finished children."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def one_thread(dataset, order):
    start = time.process_time()
    for index in order:
        dataset[int(index)]
    return (time.process_time() - start) / len(order)


def with_workers(dataset, num_workers, order):
    """(CPU seconds, seconds) for each image, starting the workers included."""
    dataset.close()
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, sampler=[int(index) for index in order], num_workers=num_workers)
    wall, cpu = time.monotonic(), cpu_seconds()
    for _batch in loader:
        pass
    del loader, _batch
    return (cpu_seconds() - cpu) / len(order), (time.monotonic() - wall) / len(order)


def measure(folder, kind, side, count, rounds, workers):
    path = os.path.join(folder, f"{kind}{side}.zip")
    make_zip(path, kind, side, count)
    readers = dict(ours=ImageFolderDataset(path=path), pillow=ThroughPillow(path))
    same = all(np.array_equal(readers["ours"][index][0], readers["pillow"][index][0]) for index in range(0, count, max(1, count // 50)))
    times, order = {name: [] for name in readers}, np.random.RandomState(1).permutation(count)
    for _ in range(rounds):
        for name, reader in readers.items():
            times[name].append(one_thread(reader, order))
    many = np.concatenate([order] * max(1, 4000 // count))
    return dict(
        kind=kind,
        side=side,
        images=count,
        same_pixels=same,
        one_thread_us={name: round(1e6 * statistics.median(own), 1) for name, own in times.items()},
        times_pillow=round(statistics.median(a / b for a, b in zip(times["pillow"], times["ours"])), 2),
        workers={
            str(number): dict(zip(("cpu_us", "wall_us"), (round(1e6 * value, 1) for value in with_workers(readers["ours"], number, many))))
            for number in workers
        },
    )


def table(report):
    """Markdown."""
    numbers = list(report["found"][0]["workers"])
    lines = [
        "| images | Pillow, us | ours, us | times as fast | " + " | ".join(f"{number} workers, CPU us (wall us)" for number in numbers) + " |",
        "|---|---|---|---|" + "---|" * len(numbers),
    ]
    for row in report["found"]:
        cells = [f"{row['workers'][number]['cpu_us']:.0f} ({row['workers'][number]['wall_us']:.0f})" for number in numbers]
        one = row["one_thread_us"]
        lines.append(
            f"| {row['kind']}, {row['side']} px | {one['pillow']:.0f} | {one['ours']:.0f} | {row['times_pillow']:.2f} | {' | '.join(cells)} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"For each image. {report['processor']}, {report['cpu_count']} cores, {report['date']}, load average {report['load_average']}; medians of "
            f"{report['rounds']} rounds.",
        ]
    )


@click.command()
@click.option("--images", type=cli.IntRange(min=64), default=1000, show_default=True, help="Images of each zip")
@click.option("--rounds", type=cli.IntRange(min=2), default=7, show_default=True, help="Rounds in which the two take turns")
@click.option("--out", default=str(RESULTS), show_default="benchmarks/results/zip_reading.json", help="Where to write the figures", metavar="PATH")
def main(images, rounds, out):
    """Times reading images from a zip."""
    torch.set_num_threads(1)
    report = dict(what="microseconds for each image, decoded; one thread: CPU time", rounds=rounds, **circumstances(), pillow=PIL.__version__)
    with tempfile.TemporaryDirectory() as folder:
        report["found"] = [measure(folder, kind, side, images, rounds, (0, 1, 2)) for kind in KINDS for side in (32, 64, 256)]
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(table(report))
    if Path(out).resolve() == RESULTS:
        pages.write_between(PAGE, "zip reading", table(report))


if __name__ == "__main__":
    cli.run(main)
