"""The metrics that the plugin brings to a fork: the same numbers as here, and registration in a stand-in fork."""

import json
import sys
import types

import pytest
import torch

from madr_plugin import metrics as plugin_metrics
from madr_plugin.config import MADRConfig
from madr_spaces import neighbours
from madr_spaces.errors import MADRError
from metrics import metric_main
from tests.madr.stand_ins import COMMON, FIRST_STYLE
from tests.madr.toy_host import Host, Images, base_loss


@pytest.mark.parametrize("count", [40, 1500])
def test_kernels_equal_their_definitions(count):
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn([count, 3], generator=generator), torch.randn([count - 7, 3], generator=generator) * 0.7 + 0.3
    real[5] = real[6]  # a duplicate is a neighbour
    distance = lambda a, b: torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
    radius = lambda x, k: distance(x, x).sort(1).values[:, k]  # column 0 is the item itself
    hits = lambda points, centres, k: distance(points, centres) <= radius(centres, k)
    expected = dict(
        precision=float(hits(fake, real, 3).any(1).double().mean()),
        recall=float(hits(real, fake, 3).any(1).double().mean()),
        density=float(hits(fake, real, 5).double().sum() / (5 * len(fake))),
        coverage=float(hits(fake, real, 5).any(0).double().mean()),
    )
    assert neighbours.prdc(real, fake) == pytest.approx(expected, abs=1e-12)
    assert 0.2 < expected["coverage"] < 1 and 0.2 < expected["recall"] < 1


def test_a_collapsed_generator_has_precision_and_no_recall():
    real = torch.randn([300, 3], generator=torch.Generator().manual_seed(0))
    found = neighbours.prdc(real, real[:1] + 0.001 * torch.randn([200, 3], generator=torch.Generator().manual_seed(1)))
    assert found["precision"] == 1 and found["recall"] < 0.02 and found["coverage"] < 0.05
    with pytest.raises(MADRError, match="more than 5 real images"):
        neighbours.prdc(real[:3], real)


class Blurry(torch.nn.Module):
    """16 x 16 images of z, the label and torch's own generator, as a saved network's."""

    z_dim, c_dim, img_channels, img_resolution = 8, 3, 3, 16

    def __init__(self):
        super().__init__()
        self.register_buffer("mix", torch.randn([11, 48], generator=torch.Generator().manual_seed(1)))

    def forward(self, z, c):
        coarse = torch.tanh(torch.cat([z, c], dim=1) @ self.mix).reshape(-1, 3, 4, 4)
        return torch.nn.functional.interpolate(coarse, size=[16, 16], mode="bilinear") + 0.1 * torch.randn([len(z), 3, 16, 16])


@pytest.mark.parametrize("space", ["pca", "random", "random-conv", "pixels", "ensemble:pca+random-conv"])
def test_one_name_is_one_number_here_and_in_a_fork(space, tiny_zip, monkeypatch, tmp_path):
    """Same network, same data, same space: to the last bit, also out of the caches of either side."""
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(plugin_metrics, "SIZES", {"_10k": 90})
    data = dict(class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=80, num_classes=3), use_labels=True, xflip=True)
    of_fork = plugin_metrics.metrics(MADRConfig(extractor=space))["madr_prdc_10k"]
    for _ in range(2):
        here = metric_main.calc_metric(
            "madr_prdc_10k", G=Blurry(), dataset_kwargs=dict(data), device="cpu", num_gen=90, space=space, trained_in=space
        )
        there = of_fork(types.SimpleNamespace(G=Blurry(), G_kwargs={}, dataset_kwargs=dict(data), device=torch.device("cpu"), rank=0, num_gpus=1))
        held_out = here.facts["held_out"]["space"]
        beside = {f"madr_prdc_10k_{number}{plugin_metrics.suffix_of(held_out)}": here.facts["held_out"][number] for number in plugin_metrics.NUMBERS}
        assert there == {**here.results, **beside}
        assert 0 < there["madr_prdc_10k_recall"] < 1 and there["madr_prdc_10k_coverage"] > 0


def test_names_that_are_taken_are_left_alone():
    before = {name: metric_main.function_of(name) for name in metric_main.list_valid_metrics()}
    assert set(plugin_metrics.metrics(None)) <= set(before)  # the plugin's names are this project's
    assert plugin_metrics.register() == []
    assert {name: metric_main.function_of(name) for name in metric_main.list_valid_metrics()} == before


def test_a_second_run_in_a_process_measures_in_its_own_space(monkeypatch, capsys):
    known = {"madr_recall": print}  # the host's own
    host = types.SimpleNamespace(register_metric=lambda function: known.update({function.__name__: function}), is_valid_metric=known.__contains__)
    monkeypatch.setitem(sys.modules, "metrics.metric_main", host)
    monkeypatch.setattr(plugin_metrics, "_registered", set(), raising=False)
    monkeypatch.setattr(plugin_metrics, "compute", lambda opts, num_gen, config: {"": dict.fromkeys(plugin_metrics.NUMBERS, config.extractor)})
    for space in ("pca", "random"):
        assert "madr_prdc" in plugin_metrics.register(MADRConfig(extractor=space))
        assert known["madr_precision"](types.SimpleNamespace(rank=0)) == dict(madr_precision=space)
        assert f"in the space of {space}," in capsys.readouterr().out
    assert known["madr_recall"] is print


def test_the_numbers_do_not_depend_on_the_number_of_processes(monkeypatch):
    host = Host(base_loss(), c_dim=5)
    G = torch.nn.Module()
    G.forward, G.z_dim, G.c_dim = (lambda z, c: host.synthesis(host.mapping(z, c))), 8, 5
    opts = types.SimpleNamespace(G=G, G_kwargs={}, device=torch.device("cpu"), rank=0)
    extract = types.SimpleNamespace(of_bytes=lambda images: images.flatten(1))
    monkeypatch.setattr(plugin_metrics, "BATCH_SIZE", 32)
    [whole] = plugin_metrics.generated_features([extract], opts, host.images, 96)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(plugin_metrics.collective, "world", lambda rank=rank: (rank, 2))
        monkeypatch.setattr(plugin_metrics.collective, "gather_microbatches", torch.stack)
        parts.append(plugin_metrics.generated_features([extract], opts, host.images, 96)[0])
    assert torch.equal(torch.cat([parts[0][:32], parts[1][:32], parts[0][32:64]]), whole)


METRICS = {
    "metrics/__init__.py": "",
    "metrics/metric_main.py": """
        import types
        _known = {}
        def register_metric(fn):
            _known[fn.__name__] = fn
            return fn
        def is_valid_metric(metric):
            return metric in _known
        def calc_metric(metric, **kwargs):
            return _known[metric](types.SimpleNamespace(num_gpus=1, rank=0, **kwargs))
        @register_metric
        def fid50k_full(opts):
            return dict(fid50k_full=1.0)
        """,
    "calc_metrics.py": """
        import json, pickle, sys, torch
        from metrics import metric_main
        def main():
            with open(sys.argv[1], "rb") as f:
                data = pickle.load(f)
            G = data["G_ema"]
            G.z_dim, G.c_dim = 8, 0
            assert metric_main.is_valid_metric(sys.argv[2]), "no such metric"
            print(json.dumps(metric_main.calc_metric(sys.argv[2], G=G, G_kwargs={}, dataset_kwargs=data["training_set_kwargs"], device=torch.device("cpu"))))
        """,
}


def test_a_fork_gets_them_in_its_own_registry(make_fork):
    style = dict(FIRST_STYLE, **METRICS)
    style["train.py"] = style["train.py"].replace("import click, dnnlib", "import click, dnnlib\n    from metrics import metric_main")
    style["training/training_loop.py"] = (
        COMMON["training/training_loop.py"]
        + """
            from metrics import metric_main
            print("in the loop:", metric_main.is_valid_metric("madr_coverage"))
    """
    )
    fork, run = make_fork(style)
    done = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}", "--madr=1", "--madr-deficit-window=32")
    assert done.returncode == 0 and "in the loop: True" in done.stdout, done.stderr
    # 10,000 images of 192 values in a test's time: a smaller number under the same name.
    small = "from madr_plugin import metrics, __main__; metrics.SIZES.update(_10k=200); __main__.main()"
    found = run("-c", small, fork / "calc_metrics.py", fork / "snapshot.pkl", "madr_prdc_10k")
    assert found.returncode == 0, found.stderr
    numbers = json.loads(found.stdout.splitlines()[-1])
    assert set(numbers) == {f"madr_prdc_10k_{number}{space}" for number in plugin_metrics.NUMBERS for space in ("", "_random_conv")}
    assert all(0 <= value <= (1 if "density" not in name else 40) for name, value in numbers.items()) and "flattered" in found.stdout


def test_without_a_registry_nothing_happens(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "metrics.metric_main", None)
    assert plugin_metrics.register() == []
    monkeypatch.setitem(sys.modules, "metrics.metric_main", types.SimpleNamespace(register_metric=None))
    assert plugin_metrics.register() == [] and len(Images()) == 200
