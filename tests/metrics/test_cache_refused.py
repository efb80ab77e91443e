"""A cache that cannot be written costs one line; the work goes on and gives the same numbers."""

import os

import pytest

from dnnlib import cache, download
from metrics import digit_network, metric_main, stats_cache


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """A cache folder whose parent cannot be made; also for the person who may write everywhere."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "file" / "cache"))
    return str(tmp_path / "file" / "cache")


def test_metrics_go_on_without_a_cache(options, no_cache, capsys):
    results = [
        metric_main.calc_metric(metric, **given(options, cache=kept)).results for metric in ("fid50k_full", "kid50k_full") for kept in (True, False)
    ]
    assert results[0] == results[1] and results[2] == results[3]
    warned = [line for line in capsys.readouterr().err.splitlines() if "cannot be written" in line]
    assert len(warned) == 1 and no_cache in warned[0] and "DNNLIB_CACHE_DIR" in warned[0] and "--cache=off" in warned[0]


def given(options, **changes):
    made = options(**changes)
    return {name: getattr(made, name) for name in ("G", "device", "detectors", "num_gen", "dataset_kwargs", "cache")}


def test_the_remedy_helps(options, no_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "elsewhere"))
    metric_main.calc_metric("fid50k_full", **given(options))
    assert "cannot be written" not in capsys.readouterr().err and os.listdir(tmp_path / "elsewhere" / "gan-metrics")


def test_a_full_disk_is_said_and_survived(tmp_path, monkeypatch, capsys):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stats_cache.np, "savez", full)
    path = str(tmp_path / "cache" / "gan-metrics" / "x.npz")
    assert stats_cache.save(path, {}, type("Stats", (), dict(to_arrays=lambda self: {}))()) is False
    assert capsys.readouterr().err.count("No space left") == 1 and os.listdir(os.path.dirname(path)) == []


def test_digit_classifiers_are_kept_in_the_same_way(no_cache):
    assert cache.keep(digit_network.cache_path("0" * 40), lambda path: pytest.fail("nothing can be written there")) is False


def test_it_is_tried_before_the_work(no_cache, capsys):
    assert not cache.is_writable() and not cache.is_writable()
    assert capsys.readouterr().err.count("Warning: the cache") == 1
    assert cache.is_writable(os.path.dirname(os.path.dirname(no_cache)))


def test_downloads_go_to_a_folder_of_this_process(no_cache, monkeypatch):
    monkeypatch.setattr(download, "_download_with_retries", lambda url, file, *_rest: file.write(b"weights"))
    path = download.open_remote("https://host/x.pt", no_cache, 1, False, True, True, None)
    assert open(path, "rb").read() == b"weights" and not path.startswith(no_cache)
