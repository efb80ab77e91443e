"""Collecting features, and the cache of real statistics keyed by content."""

import glob
import os
import shutil
import threading
import zipfile

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from metrics import metric_utils, stats_cache
from metrics.detectors import INCEPTION_URL
from metrics.feature_stats import FeatureStats


def features(count=20, width=4, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def test_mean_and_covariance_equal_numpy():
    x = features(50) + 3
    stats = FeatureStats(capture_all=True, capture_mean_cov=True)
    for part in np.split(x, [7, 30]):
        stats.append(part)
    mean, cov = stats.get_mean_cov()
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), atol=1e-12)
    np.testing.assert_allclose(cov, np.cov(x.astype(np.float64), rowvar=False, bias=True), atol=1e-12)
    np.testing.assert_array_equal(stats.get_all(), x)
    assert torch.equal(stats.get_all_torch(), torch.from_numpy(x))


def test_max_items_cuts_the_last_batch():
    stats = FeatureStats(capture_all=True, max_items=25)
    stats.append(features(20))
    assert not stats.is_full()
    stats.append_torch(torch.from_numpy(features(20, seed=1)))
    assert stats.is_full() and stats.num_items == 25
    np.testing.assert_array_equal(stats.get_all()[20:], features(20, seed=1)[:5])


@pytest.mark.parametrize("kind", [dict(capture_all=True), dict(capture_mean_cov=True), dict(capture_all=True, capture_mean_cov=True, max_items=30)])
def test_file_round_trip(kind, tmp_path):
    stats = FeatureStats(**kind)
    stats.append(features())
    stats.save(tmp_path / "stats.npz")
    loaded = FeatureStats.load(tmp_path / "stats.npz")
    assert (loaded.num_items, loaded.max_items, loaded.num_features) == (20, kind.get("max_items"), 4)
    if stats.capture_all:
        np.testing.assert_array_equal(loaded.get_all(), stats.get_all())
    if stats.capture_mean_cov:
        np.testing.assert_array_equal(loaded.get_mean_cov()[1], stats.get_mean_cov()[1])
    with np.load(tmp_path / "stats.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


def test_bad_features_are_sentences():
    stats = FeatureStats(capture_all=True)
    stats.append(features())
    broken = features()
    broken[3, 1] = np.inf
    with pytest.raises(UserError, match="image 23"):
        stats.append(broken)
    with pytest.raises(UserError, match="5 features after 4"):
        stats.append(features(width=5))


# ----------------------------------------------------------------------------------------------------------------
# Cache.


@pytest.fixture
def counted(monkeypatch):
    """How many batches went through a detector."""
    calls = []
    real = metric_utils.detector_files.run_detector
    monkeypatch.setattr(metric_utils.detector_files, "run_detector", lambda *a: calls.append(1) or real(*a))
    return calls


def compute(opts, **stats_kwargs):
    return metric_utils.compute_feature_stats_for_dataset(opts, INCEPTION_URL, dict(return_features=True), **(stats_kwargs or dict(capture_all=True)))


def cache_files():
    return glob.glob(os.path.join(os.environ["DNNLIB_CACHE_DIR"], "gan-metrics", "*"))


def with_path(options, path, **kwargs):
    return options(dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=str(path), **kwargs))


def test_same_bytes_elsewhere_hit_and_changed_bytes_miss(options, tiny_zip, tmp_path, counted):
    original = tiny_zip(num_images=30)
    first = compute(with_path(options, original)).get_all()
    once = len(counted)
    assert once > 0 and len(cache_files()) == 1 and cache_files()[0].endswith(".npz")

    copy = tmp_path / "other name.zip"
    shutil.copy(original, copy)
    np.testing.assert_array_equal(compute(with_path(options, copy)).get_all(), first)
    assert len(counted) == once  # found again

    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(original) as old, zipfile.ZipFile(changed, "w") as new:
        names = [n for n in old.namelist() if n.endswith(".png")]
        for name in old.namelist():
            new.writestr(name, old.read(names[1] if name == names[0] else name))
    shutil.copy(changed, copy)  # same path as before, other content
    again = compute(with_path(options, copy)).get_all()
    assert len(counted) == 2 * once and not np.array_equal(again[0], first[0])
    assert len(cache_files()) == 2


def test_flips_counts_kind_and_detector_are_part_of_the_key(options, tiny_zip, tmp_path, counted):
    path = tiny_zip(num_images=30)
    compute(with_path(options, path))
    assert len(compute(with_path(options, path, xflip=True)).get_all()) == 60
    assert len(compute(with_path(options, path), capture_all=True, max_items=10).get_all()) == 10
    compute(with_path(options, path), capture_mean_cov=True)
    other = with_path(options, path)
    other_file = tmp_path / "other.pt"
    other_file.write_bytes(open(other.detectors["inception"], "rb").read() + b"\n")
    other.detectors["inception"] = str(other_file)
    compute(other)
    assert len(cache_files()) == 5


def test_damaged_cache_is_recomputed_with_a_line(options, counted, capsys):
    first = compute(options()).get_all()
    path = cache_files()[0]
    data = bytearray(open(path, "rb").read())
    for damage in (data[: len(data) // 2], b"", bytes(data[:300]) + bytes([data[300] ^ 255]) + bytes(data[301:])):
        before = len(counted)
        with open(path, "wb") as file:
            file.write(damage)
        np.testing.assert_array_equal(compute(options()).get_all(), first)
        assert len(counted) > before and path in capsys.readouterr().out
    before = len(counted)
    compute(options())
    assert len(counted) == before  # mended


def test_cache_off_writes_nothing(options, counted):
    compute(options(cache=False))
    compute(options(cache=False))
    assert cache_files() == [] and len(counted) == 2


def test_path_is_printed_when_verbose(options, capsys):
    for word in ("kept in", "taken from"):
        compute(options(progress=metric_utils.ProgressMonitor(verbose=True)))
        out = capsys.readouterr().out
        assert word in out and cache_files()[0] in out


def test_concurrent_writers_leave_a_readable_file(tmp_path):
    path, facts = str(tmp_path / "stats.npz"), {"detector": ["x"], "n": 1}
    stats = FeatureStats(capture_all=True)
    stats.append(features(2000, 32))
    stats_cache.save(path, facts, stats)
    faults = []

    def write():
        for _ in range(10):
            stats_cache.save(path, facts, stats)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        loaded, complaint = stats_cache.load(path, facts)
        faults += [complaint] if loaded is None else []
    assert faults == [] and os.listdir(tmp_path) == ["stats.npz"]


def test_other_facts_are_not_taken(tmp_path):
    stats = FeatureStats(capture_all=True)
    stats.append(features())
    stats_cache.save(str(tmp_path / "a.npz"), {"n": 1}, stats)
    loaded, complaint = stats_cache.load(str(tmp_path / "a.npz"), {"n": 2})
    assert loaded is None and "something else" in complaint
