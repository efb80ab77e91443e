"""The registry, every registered metric with a toy detector, the result line, and path lengths in closed form."""

import io
import json

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from dnnlib.util import format_time
from madr_spaces import neighbours
from metrics import kernels, metric_main, metric_utils, perceptual_path_length
from metrics.detectors import INCEPTION_URL, VGG16_URL

UPSTREAM = [
    "fid50k_full",
    "kid50k_full",
    "pr50k3_full",
    "ppl2_wend",
    "is50k",
    "fid50k",
    "kid50k",
    "pr50k3",
    "ppl_zfull",
    "ppl_wfull",
    "ppl_zend",
    "ppl_wend",
]
TWO_VALUED = {
    "pr50k3_full": ["_precision", "_recall"],
    "pr50k3": ["_precision", "_recall"],
    "pr10k3_full": ["_precision", "_recall"],
    "is50k": ["_mean", "_std"],
}


def arguments(opts):
    return dict(G=opts.G, dataset_kwargs=opts.dataset_kwargs, device="cpu", detectors=opts.detectors, num_gen=40)


def test_every_name_is_registered():
    assert set(UPSTREAM) <= set(metric_main.list_valid_metrics())
    assert metric_main.is_valid_metric("fid50k_full") and not metric_main.is_valid_metric("fid50")
    with pytest.raises(UserError, match="no metric 'fid50'.*fid50k_full"):
        metric_main.calc_metric("fid50")


@pytest.mark.parametrize("name", [*UPSTREAM, "fid10k_full", "kid10k_full", "pr10k3_full"])
def test_every_metric_gives_finite_numbers_and_facts(name, options):
    result = metric_main.calc_metric(name, **arguments(options(c_dim=3)))
    assert list(result.results) == [name + suffix for suffix in TWO_VALUED.get(name, [""])]
    assert all(isinstance(value, float) and np.isfinite(value) for value in result.results.values())
    assert (result.metric, result.num_gpus, result.total_time_str) == (name, 1, format_time(result.total_time))
    facts = result.facts
    assert (facts["num_gen"], facts["seed"], facts["counts_overridden"]) == (40, 0, True)
    assert len(facts["detector"]["sha256"]) == 64 and facts["detector"]["name"] in ("inception-2015-12-05", "vgg16")
    if not name.startswith(("ppl", "is")):
        assert facts["num_real"] == 30 and len(facts["data"]["fingerprint"]) >= 32
    json.dumps(result)


def features_by_hand(opts, url):
    real = metric_utils.compute_feature_stats_for_dataset(opts, url, dict(return_features=True), capture_all=True).get_all()
    fake = metric_utils.compute_feature_stats_for_generator(opts, url, dict(return_features=True), capture_all=True, max_items=40).get_all()
    return real, fake


def test_metrics_are_the_kernels_of_the_features(options):
    real, fake = features_by_hand(options(), INCEPTION_URL)
    value = metric_main.calc_metric("fid50k_full", **arguments(options())).results.fid50k_full
    assert value == pytest.approx(kernels.frechet_distance(*kernels.mean_and_covariance(real), *kernels.mean_and_covariance(fake)), rel=1e-6)
    real, fake = features_by_hand(options(), VGG16_URL)
    results = metric_main.calc_metric("pr50k3_full", **arguments(options())).results
    assert tuple(results.values()) == neighbours.precision_recall(real, fake, 3)


def test_full_metrics_use_all_images_unmirrored_and_older_ones_the_mirrored(options):
    seen = {}
    for name in ("fid50k_full", "fid50k"):
        given = arguments(options())
        given["dataset_kwargs"].update(xflip=True, max_size=7)
        before = dict(given["dataset_kwargs"])
        seen[name] = metric_main.calc_metric(name, **given).facts
        assert given["dataset_kwargs"] == before  # the caller's options stay as they are
    assert (seen["fid50k_full"]["num_real"], seen["fid50k"]["num_real"]) == (30, 60)


def test_path_length_draws_its_labels_from_the_subset_of_the_training(options, monkeypatch):
    """As training did: a network trained on a --subset never saw the labels of the rest."""
    opts, asked = options(c_dim=3), []
    opts.dataset_kwargs.update(max_size=2, random_seed=5)
    whole = metric_utils.LabelSource.__init__
    monkeypatch.setattr(metric_utils.LabelSource, "__init__", lambda self, opts: (whole(self, opts), asked.append(len(self.dataset)))[0])
    metric_main.calc_metric("ppl2_wend", **arguments(opts))
    assert asked == [2]


def test_counts_are_the_published_ones_without_overrides(options, monkeypatch):
    asked = []

    def note(opts, **counts):
        asked.append((counts["max_real"], counts["num_gen"]))
        return 0.0

    monkeypatch.setattr(metric_main.frechet_inception_distance, "compute_fid", note)
    given = arguments(options())
    del given["num_gen"]
    facts = metric_main.calc_metric("fid50k_full", **given).facts
    metric_main.calc_metric("fid50k", **given)
    assert asked == [(None, 50_000), (50_000, 50_000)] and "counts_overridden" not in facts


def test_forks_can_register_their_own(options, monkeypatch):
    monkeypatch.setattr(metric_main, "_metrics", dict(metric_main._metrics))

    @metric_main.register_metric
    def my_recall(opts):
        return dict(my_recall=np.float32(0.5))

    assert metric_main.calc_metric("my_recall").results == {"my_recall": 0.5}
    assert metric_main.higher_is_better("my_recall") and metric_main.higher_is_better("madr_modes")
    assert not any(metric_main.higher_is_better(name) for name in ("fid50k_full", "kid50k", "ppl2_wend"))
    my_recall.higher_is_better = False
    assert not metric_main.higher_is_better("my_recall")


def test_result_line(options, tmp_path, capsys):
    result = metric_main.calc_metric("fid50k_full", **arguments(options()))
    run_dir = tmp_path / "00000-run"
    run_dir.mkdir()
    for _ in range(2):
        metric_main.report_metric(result, run_dir=str(run_dir), snapshot_pkl=str(run_dir / "network-snapshot-000000.pkl"))
    lines = (run_dir / "metric-fid50k_full.jsonl").read_text().splitlines()
    assert len(lines) == 2 and capsys.readouterr().out.splitlines() == lines
    line = json.loads(lines[0])
    assert list(line)[:7] == ["results", "metric", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "timestamp"]
    assert line["snapshot_pkl"] == "network-snapshot-000000.pkl" and list(line["results"]) == ["fid50k_full"]
    assert line["facts"]["detector"]["sha256"] == result.facts["detector"]["sha256"]
    metric_main.report_metric(dict(results={"x": 1.0}, metric="x"))  # no folder: printed only
    assert json.loads(capsys.readouterr().out)["snapshot_pkl"] is None
    assert sorted(p.name for p in tmp_path.rglob("*.jsonl")) == ["metric-fid50k_full.jsonl"]


# ----------------------------------------------------------------------------------------------------------------
# Progress.


def test_progress_callback_runs_over_the_whole_range():
    seen = []
    outer = metric_utils.ProgressMonitor(progress_fn=lambda cur, total: seen.append((cur, total)))
    first = outer.sub(tag="a", num_items=10, rel_lo=0, rel_hi=0.5)
    first.update(5)
    first.update(10)
    second = outer.sub(tag="b", num_items=4, rel_lo=0.5, rel_hi=1)
    second.sub(tag="c", num_items=2, rel_lo=0.5, rel_hi=1).update(1)
    second.update(4)
    assert seen == [(0, 1000), (0, 1000), (250, 1000), (500, 1000), (500, 1000), (750, 1000), (875, 1000), (1000, 1000)]


def test_verbose_progress_prints_lines_with_the_time_left(capsys):
    monitor = metric_utils.ProgressMonitor(verbose=True).sub(tag="task", num_items=2500, flush_interval=1000)
    for items in range(100, 2501, 100):
        monitor.update(items)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["1000", "2000", "2500"]
    assert all("left" in line and "ms/item" in line for line in lines)
    metric_utils.ProgressMonitor(tag="silent", num_items=10).update(10)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monitor = metric_utils.ProgressMonitor(tag="features", num_items=10, verbose=True)
    monitor.update(4)
    monitor.update(10)
    assert "features: 100%" in terminal.getvalue() and "10/10" in terminal.getvalue()


# ----------------------------------------------------------------------------------------------------------------
# Path length.


def test_slerp_follows_the_great_circle():
    a, b = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)
    t = torch.full([5, 1], 0.3, dtype=torch.float64)
    middle = perceptual_path_length.slerp(a, b, t)
    angle = lambda x, y: torch.acos((unit(x) * unit(y)).sum(-1))
    torch.testing.assert_close(middle.norm(dim=-1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(angle(a, middle), 0.3 * angle(a, b))
    torch.testing.assert_close(angle(middle, b), 0.7 * angle(a, b))
    torch.testing.assert_close(perceptual_path_length.slerp(a, b, torch.zeros(5, 1, dtype=torch.float64)), unit(a))


class LinearGenerator(torch.nn.Module):
    """Synthesis = the latent laid out as an image, so that path lengths are known."""

    z_dim, c_dim, img_channels, img_resolution = 48, 0, 3, 4

    def mapping(self, z, c, truncation_psi=1):
        return truncation_psi * z[:, None]

    def synthesis(self, ws, noise_mode, force_fp32):
        assert noise_mode == "const" and force_fp32
        return ws[:, 0].reshape(-1, 3, 4, 4)


def pixels_as_lpips(images, resize_images, return_lpips):
    assert not resize_images and return_lpips
    return (images / (255 / 2) - 1).flatten(1).double()


@pytest.mark.parametrize("psi", [1, 0.5])
def test_path_length_in_w_is_the_squared_distance_of_the_ends(psi):
    sampler = perceptual_path_length.PPLSampler(LinearGenerator(), dict(truncation_psi=psi), 1e-2, "w", "full", False, pixels_as_lpips)
    z = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(0))
    expected = psi**2 * (z[0] - z[1]).square().sum(dim=1)
    torch.testing.assert_close(sampler.measure(z[0], z[1], torch.zeros(16, 0)).float(), expected, rtol=2e-3, atol=0)


def test_path_length_in_z_is_the_squared_arc():
    sampler = perceptual_path_length.PPLSampler(LinearGenerator(), {}, 1e-2, "z", "end", False, pixels_as_lpips)
    z = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(0))
    angle = torch.acos(torch.nn.functional.cosine_similarity(z[0], z[1]))
    torch.testing.assert_close(sampler.measure(z[0], z[1], torch.zeros(16, 0)).float(), angle.square(), rtol=2e-2, atol=0)
    assert sampler(torch.zeros(4, 0)).shape == (4,)


def test_path_length_crop_takes_the_centre():
    sampler = perceptual_path_length.PPLSampler(LinearGenerator(), {}, 1e-4, "w", "end", True, None)
    images = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(1, 3, 1, 1)
    cropped = sampler._as_detector_input(images)
    torch.testing.assert_close(cropped / (255 / 2) - 1, images[:, :, 3:7, 2:6])
    big = perceptual_path_length.PPLSampler(type("Big", (LinearGenerator,), dict(img_resolution=512))(), {}, 1e-4, "w", "end", False, None)
    assert big._as_detector_input(torch.zeros(1, 1, 512, 512)).shape == (1, 3, 256, 256)


@pytest.mark.parametrize("metric", ["fid50k_full", "kid50k_full", "is50k"])
def test_a_network_trained_in_the_space_of_fid_is_flattered_there(metric, options, capfd):
    for trained_in, own in (("inception-fid", True), ("ensemble:pca+inception-fid", True), ("pca", False)):
        facts = metric_main.calc_metric(metric, **arguments(options()), trained_in=trained_in).facts
        assert (facts["trained_in"], facts["trained_in_own_space"]) == (trained_in, own)
        assert ("the number flatters it" in capfd.readouterr().err) == own
    assert "trained_in" not in metric_main.calc_metric(metric, **arguments(options())).facts
