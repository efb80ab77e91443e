"""Shared by all tests: one compute thread each, a private cache folder, the golden numbers, tiny data sets."""
import json
import os
import zlib
from pathlib import Path

# Before torch is imported: two test workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

REPO = Path(__file__).resolve().parent.parent
GOLDEN = REPO / "tests" / "golden"


def pytest_collection_modifyitems(config, items):
    if config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="slow; run with -m slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


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
