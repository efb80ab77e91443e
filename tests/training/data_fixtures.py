"""Small sources for the data tests: pictures with every kind of fault, archives in the formats of the usual data sets."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image


def pixels(seed, size=16, channels=3, height=None):
    shape = [height or size, size] + ([3] if channels == 3 else [])
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed, size=16, channels=3, height=None):
    return encoded(pixels(seed, size, channels, height))


def write_folder(path, files):
    """files: name -> bytes, or an object to be written as JSON."""
    for name, content in files.items():
        target = Path(path) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def write_zip(path, files, method=zipfile.ZIP_STORED, time=(2001, 2, 3, 4, 5, 6)):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, time)
            info.compress_type = method
            archive.writestr(info, content if isinstance(content, bytes) else json.dumps(content))
    return str(path)


def numbered(count, size=16, channels=3, labels=None, **more):
    """A sound data set: name -> bytes, with dataset.json."""
    files = {f"00000/img{i:08d}.png": png(i, size, channels) for i in range(count)}
    if labels is not None:
        more = dict(labels=[[name, label] for name, label in zip(files, labels)], **more)
    files["dataset.json"] = dict(dict(labels=None), **more)
    return files


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def write_mnist(folder, per_class=3, seed=0, prefix="train", compress=True):
    """Random 28x28 'digits' in MNIST's format; returns (images, labels, path of the image file)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    labels = rng.permutation(np.repeat(np.arange(10), per_class)).astype(np.uint8)
    images = rng.randint(0, 256, [len(labels), 28, 28]).astype(np.uint8)
    for name, array in [("images-idx3", images), ("labels-idx1", labels)]:
        data = idx_bytes(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if compress else ''}"
        path.write_bytes(gzip.compress(data) if compress else data)
    return images, labels, str(folder / f"{prefix}-images-idx3-ubyte{'.gz' if compress else ''}")


def write_cifar10(path, per_batch=4, seed=0):
    """CIFAR-10's python archive with small batches; returns (images [N, 3, 32, 32], labels)."""
    rng = np.random.RandomState(seed)
    images, labels = [], []
    with tarfile.open(path, "w:gz") as archive:

        def add(name, content):
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo("cifar-10-batches-py/" + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

        add("batches.meta", {"label_names": ["airplane", "automobile", "bird"], "num_vis": 3072})
        for batch in (2, 1, 3):  # not in order: the names count
            data = rng.randint(0, 256, [per_batch, 3072]).astype(np.uint8)
            numbers = rng.randint(0, 3, per_batch).tolist()
            add(f"data_batch_{batch}", {"data": data, "labels": numbers, "filenames": ["x.png"] * per_batch})
            images.append((batch, data.reshape(-1, 3, 32, 32)))
            labels.append((batch, numbers))
        add("test_batch", {"data": data * 0, "labels": numbers})
    return (
        np.concatenate([data for _, data in sorted(images, key=lambda item: item[0])]),
        sum([numbers for _, numbers in sorted(labels, key=lambda item: item[0])], []),
    )
