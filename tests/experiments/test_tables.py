"""The verdicts of the studies' page, on numbers whose answer is known."""

import json

import numpy as np
import pytest

from dnnlib.errors import UserError
from experiments import backbone, digits_study, moments, network_judge, pages, small_gan, tables, toy_2d
from torch_utils import devices


def runs(**values):
    """{method: {seed: dict(kl=..., modes=...)}} from method=[(kl, modes), ...]."""
    return {method: {seed: dict(kl=kl, modes=modes) for seed, (kl, modes) in enumerate(pairs)} for method, pairs in values.items()}


MEASURES = [("kl", "KL", 2, False), ("modes", "modes", 0, True)]


def test_differences_are_paired_and_called_better_only_where_they_are_sure():
    found = tables.against(runs(plain=[(2.0, 500), (1.0, 700), (3.0, 600)], default=[(1.9, 510), (0.9, 640), (2.9, 690)]), "default", MEASURES)
    [row] = [line for line in found.splitlines() if line.startswith("| plain")]
    # KL: -.1 on every seed although the seeds differ by 2; modes: +10, -60, +90, which says nothing.
    assert row == "| plain | -0.10 ± 0.00 better | +13 ± 186 |"
    worse = tables.against(runs(plain=[(1.0, 600), (1.1, 601), (1.2, 602)], default=[(2.0, 500), (2.2, 500), (2.1, 500)]), "default", MEASURES)
    assert worse.count(" worse") == 2 and "better" not in worse


def test_means_with_their_intervals_and_single_seeds_without():
    table = tables.means_table(runs(plain=[(1.0, 500), (2.0, 500), (3.0, 500)], one=[(1.5, 400)]), MEASURES)
    assert "| plain | 3 | 2.00 ± 2.48 | 500 ± 0 |" in table and "| one | 1 | 1.50 | 400 |" in table


def test_the_page_is_filled_where_there_are_results_and_told_where_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tables.records, "RESULTS", tmp_path)
    (tmp_path / "toy").mkdir()
    entry = dict(modes=3.0, hit=4.0, quality=0.5, kl=0.25, cycling=0.1, seconds=2.0, date="2026-01-02", machine="m", torch="2")
    entries = [dict(entry, method="plain", seed=seed, modes=3.0 + seed) for seed in range(2)]
    (tmp_path / "toy" / "ring.json").write_text(json.dumps(dict(facts=dict(layout="ring", steps=5), entries=entries)))
    blocks = "".join(f"<!-- {name}: begin -->\nformer\n<!-- {name}: end -->\n" for name in tables.PARTS)
    text, missing = tables.fill(blocks)
    assert "5 steps, 2 seeds" in text and "| plain | 3.5 ± 6.4 | 4.0 ± 0.0 |" in text and text.count("former") == len(tables.PARTS) - 2
    assert missing == [name for name in tables.PARTS if name not in ("toy-ring", "what-to-use")]  # which tells it row by row
    assert "not run yet" in text
    with pytest.raises(UserError, match="put them back"):
        pages.replaced("no marks here", "toy-ring", "x")


def test_every_part_has_its_place_on_the_page(repo):
    page = (repo / "docs" / "studies" / "README.md").read_text()
    assert all(f"<!-- {name}: begin -->" in page and f"<!-- {name}: end -->" in page for name in tables.PARTS)


def test_generated_images_count_for_the_class_of_their_nearest_real():
    real = np.array([[0.0], [0.1], [10.0], [10.1]], np.float32)
    real_K, fake_K = network_judge.class_shares(real, np.array([0, 0, 1, 1]), np.array([[0.2], [9.0], [11.0], [12.0]], np.float32))
    assert real_K.tolist() == [0.5, 0.5] and fake_K.tolist() == [0.25, 0.75]


def test_a_run_of_other_options_is_not_taken_for_a_methods(tmp_path):
    def make(folder, seed, madr, **further):
        run = tmp_path / "data" / "default" / folder
        run.mkdir(parents=True)
        (run / "network-snapshot-000020.pkl").write_bytes(b"x")
        (run / "training_options.json").write_text(
            json.dumps(dict(random_seed=seed, loss_kwargs=dict(class_name="x", **({} if madr is None else dict(madr=madr))), **further))
        )
        return run / "network-snapshot-000020.pkl"

    now = backbone.madr_of("default")
    assert now["preset"] == "default" and backbone.madr_of("plain") == {} and backbone.madr_of("tilt")["tilt"] == 1
    assert backbone.madr_of("witness+moments")["term"] == "witness+moments" and backbone.madr_of("moments")["term"] == "moments"
    make("0", 0, dict(now, weight=now["weight"] * 2, random_seed=0))
    make("1", 1, None)
    make("1b", 0, now, lr_tail=0.5, total_kimg=40)  # a longer run whose rates have not fallen yet at 20
    fitting = make("2", 0, dict(now, random_seed=0, training_set_kwargs=dict(path="x")), lr_tail=0.5, total_kimg=20)
    assert backbone.snapshot_of(tmp_path, "data", "default", 0, 20) == fitting
    assert backbone.snapshot_of(tmp_path, "data", "default", 1, 20) is None and backbone.snapshot_of(tmp_path, "data", "default", 0, 10) is None


def test_runs_in_half_precision_are_told_apart_and_refused_where_they_would_be_none(tmp_path, monkeypatch):
    run = tmp_path / "data" / "plain-bf16" / "0"
    run.mkdir(parents=True)
    (run / "network-snapshot-000020.pkl").write_bytes(b"x")
    for half, found in ((None, None), ("bf16", run / "network-snapshot-000020.pkl")):
        options = dict(random_seed=0, loss_kwargs=dict(class_name="x"), **({} if half is None else dict(half=half)))
        (run / "training_options.json").write_text(json.dumps(options))
        assert backbone.snapshot_of(tmp_path, "data", "plain-bf16", 0, 20) == found
    assert backbone.madr_of("default-bf16") == backbone.madr_of("default") and backbone.madr_of("plain-bf16") == {}
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: "AMX")
    backbone.check_half_precision(["plain", "plain-bf16"])
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: None)
    backbone.check_half_precision(["plain", "default"])
    with pytest.raises(UserError, match="plain-bf16 would be float32 under another name"):
        backbone.check_half_precision(["plain", "plain-bf16"])


def test_the_memory_free_twin_differs_from_its_method_in_the_horizon_alone():
    ours, twin = backbone.madr_of("witness+moments"), backbone.madr_of("witness+batch-moments")
    assert {name for name in ours if ours[name] != twin[name]} == {"moments_horizon"} and float(twin["moments_horizon"]) == 0
    for study in (toy_2d, digits_study):  # the same methods under the same names on every bed
        for method in set(moments.METHODS) - {"plain"}:
            assert small_gan.resolved(study.METHODS[method])["madr"] == backbone.madr_of(method), method


@pytest.mark.parametrize(
    "flag, name, value", [("--madr-extractor=file:a-b_c=d.pt", "extractor", "file:a-b_c=d.pt"), ("--madr-width=32", "width", 32)]
)
def test_values_of_a_methods_flags_are_taken_as_they_are(monkeypatch, flag, name, value):
    monkeypatch.setitem(backbone.METHODS, "other", ["--madr=1", flag])
    assert backbone.madr_of("other")[name] == value
