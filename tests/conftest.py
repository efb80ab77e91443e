"""Shared by all tests: one compute thread each, a private cache folder, the golden numbers, tiny data sets."""

import gc
import io
import json
import os
import zipfile
import zlib
from pathlib import Path

# Before torch is imported: two test workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Plain PyTorch is what the numbers are defined by; the tests of the kernels switch them on, with the fixture cpu_kernels.
os.environ["MADR_KERNELS"] = "off"

import numpy as np
import pytest

REPO = Path(__file__).resolve().parent.parent
GOLDEN = REPO / "tests" / "golden"
BUILDS = os.environ.get("TORCH_EXTENSIONS_DIR") or str(Path("~/.cache/torch_extensions").expanduser())  # kept from one test run to the next


LONGEST_FIRST = ["e2e", "gan", "experiments", "training", "madr", "metrics"]  # folders; two processes then end at the same time


def pytest_collection_modifyitems(config, items):
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))
    if config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="slow; run with -m slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish(session):
    """Libraries and tests are no garbage: every search for it, above all that before each training, would look through half a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Files are forced to the disk against power cuts, dozens per training run; tests at most kill processes, which loses nothing written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def repo():
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def golden():
    """golden('ops.npz') -> the loaded file; golden('ops.json') likewise."""

    def load(name):
        path = GOLDEN / name
        if path.suffix == ".json":
            return json.loads(path.read_text())
        with np.load(path) as data:
            return {key: data[key] for key in data.files}

    return load


@pytest.fixture(scope="session")
def rs():
    """The golden files' source of numbers: rs(name) = RandomState(crc32(name))."""
    return lambda name: np.random.RandomState(zlib.crc32(name.encode()))


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's caches."""
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "dnnlib-cache"))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.getbasetemp() / "torch-extensions"))


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    """runner.run(args, folder, on_path) -> what `python args` did there, in a fresh copy of a process that has imported torch."""
    from tests.fork_runner import Runner

    made = Runner(tmp_path_factory.getbasetemp())
    yield made
    made.close()


@pytest.fixture
def warm_processes(monkeypatch):
    """What training starts several processes with, in this test: copies of one that has imported torch."""
    from tests import warm_start
    from torch_utils import distributed

    monkeypatch.setattr(distributed, "CONTEXT", warm_start.CONTEXT)


@pytest.fixture(scope="session")
def compiled_cpu_kernels():
    """The functions of the C++ kernels; compiled once per machine."""
    from torch_utils import custom_ops
    from torch_utils.ops import cpu_kernels

    lack = custom_ops.missing_tools(needs_cuda=False)
    if lack:
        pytest.skip(f"the kernels cannot be compiled here: {lack[0]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", BUILDS)
        return cpu_kernels.bind(custom_ops.get_plugin(cpu_kernels.PLUGIN, cpu_kernels.sources(), **cpu_kernels.build_options()))


@pytest.fixture
def cpu_kernels(compiled_cpu_kernels, private_cache, monkeypatch):
    """Kernels are on in this test and in the programs that it starts. Gives their functions."""
    from torch_utils.ops import plugins

    monkeypatch.setenv("MADR_KERNELS", "auto")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", BUILDS)
    monkeypatch.setattr(plugins, "_wanted", True)
    monkeypatch.setattr(plugins, "_bound", {"torch_utils.ops.cpu_kernels": compiled_cpu_kernels})
    return compiled_cpu_kernels


@pytest.fixture(scope="session")
def tiny_zip(tmp_path_factory):
    """tiny_zip(num_images=24, resolution=16, num_classes=0, seed=0) -> path of a small RGB data set, made once."""
    import PIL.Image

    folder = tmp_path_factory.mktemp("data")

    def make(num_images=24, resolution=16, num_classes=0, seed=0):
        path = folder / f"tiny{num_images}-{resolution}-{num_classes}-{seed}.zip"
        if path.exists():
            return str(path)
        random = np.random.RandomState(seed)
        labels = []
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for index in range(num_images):
                coarse = random.randint(0, 256, size=[4, 4, 3]).astype(np.uint8)
                buffer = io.BytesIO()
                PIL.Image.fromarray(coarse).resize([resolution, resolution], PIL.Image.BICUBIC).save(buffer, "PNG")
                name = f"00000/img{index:08d}.png"
                archive.writestr(name, buffer.getvalue())
                labels.append([name, index % max(num_classes, 1)])
            archive.writestr("dataset.json", json.dumps(dict(labels=labels if num_classes else None)))
        return str(path)

    return make


@pytest.fixture(scope="session")
def loop_options(tiny_zip):
    """loop_options(**overrides) -> keyword arguments of training_loop for a run of seconds at 16x16, every term on."""

    def make(num_classes=2, **overrides):
        common = dict(channel_base=128, channel_max=16, num_fp16_res=0, conv_clamp=None)
        adam = dict(class_name="torch.optim.Adam", lr=0.002, betas=[0, 0.99], eps=1e-8)
        options = dict(
            training_set_kwargs=dict(
                class_name="training.dataset.ImageFolderDataset",
                path=tiny_zip(num_classes=num_classes),
                use_labels=num_classes > 0,
                max_size=None,
                xflip=False,
                resolution=16,
            ),
            data_loader_kwargs=dict(num_workers=0),
            device="cpu",
            metrics=[],
            random_seed=3,
            G_kwargs=dict(
                class_name="training.networks.Generator", z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=dict(common)
            ),
            D_kwargs=dict(
                class_name="training.networks.Discriminator", **common, block_kwargs={}, mapping_kwargs={}, epilogue_kwargs=dict(mbstd_group_size=4)
            ),
            G_opt_kwargs=dict(adam),
            D_opt_kwargs=dict(adam),
            loss_kwargs=dict(class_name="training.loss.StyleGAN2Loss", r1_gamma=1),
            augment_kwargs=dict(class_name="training.augment.AugmentPipe", xflip=1, scale=1, brightness=1),
            augment_p=0.2,
            ada_target=0.6,
            ada_kimg=1,
            batch_size=8,
            batch_gpu=4,
            G_reg_interval=2,
            D_reg_interval=3,
            ema_kimg=0.1,
            total_kimg=1,
            kimg_per_tick=1,
            image_snapshot_ticks=None,
            network_snapshot_ticks=None,
            snap_res=128,
        )
        options.update(overrides)
        return options

    return make
