"""Discriminator rejection sampling at the command line: generate.py and calc_metrics.py with --drs."""

import json

import numpy as np
import pytest
import torch

import calc_metrics
import generate
from madr_spaces import sampling
from metrics import extractors
from tests.e2e.drawing_fixtures import assert_sentence, read_png, save_snapshot, tiny_generator
from torch_utils import rejection_sampling as drs

QUICK = ["--drs", "--drs-burn-in=128"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sifting")


@pytest.fixture(scope="module")
def network(folder):
    return save_snapshot(tiny_generator(), folder / "plain.pkl")


@pytest.fixture(scope="module")
def conditional(folder):
    return save_snapshot(tiny_generator(c_dim=3), folder / "conditional.pkl")


@pytest.fixture
def judged(tiny_zip, tmp_path, call):
    """judged(network, *flags) -> (code, result line, stdout, stderr) of calc_metrics.py."""
    detector = tmp_path / "detector.pt"
    extractors.save_torchscript("random-conv", detector)

    def run(network, *flags, num_classes=0):
        fixed = [f"--data={tiny_zip(num_images=30, num_classes=num_classes)}", "--metrics=kid50k_full", f"--detector=inception={detector}"]
        code, out, err = call(calc_metrics.main, "--network", network, *fixed, "--num-gen=40", "--batch=20", *flags)
        lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"results"')]
        return code, lines[-1] if lines else None, out, err

    return run


def test_pictures_are_the_same_again_and_the_rate_is_told(call, network, tmp_path):
    told = []
    for name in ("one", "two"):
        code, out, err = call(generate.main, "--network", network, "--seeds=0-9", "--batch=10", "--outdir", tmp_path / name, *QUICK)
        assert code == 0, err
        told.append(next(line for line in out.splitlines() if line.startswith("Discriminator rejection sampling accepted")))
    assert told[0] == told[1] and "of the first 128 images" in told[0]
    plain, same = tmp_path / "plain", 0
    assert call(generate.main, "--network", network, "--seeds=0-9", "--outdir", plain)[0] == 0
    for seed in range(10):
        first, second, unsifted = (read_png(tmp_path / name / f"seed{seed:04d}.png") for name in ("one", "two", "plain"))
        assert np.array_equal(first, second)
        same += np.array_equal(first, unsifted)
    assert same < 10  # some seeds drew further latents


def test_a_mild_gamma_keeps_every_seeds_own_picture(call, network, tmp_path):
    code, out, err = call(generate.main, "--network", network, "--seeds=3-5", "--batch=3", "--drs-gamma=-60", "--outdir", tmp_path / "sifted", *QUICK)
    assert code == 0 and "accepted 100.0% (3 of 3 images" in out and err.count("nobody knows which loss trained D") == 1, err
    assert call(generate.main, "--network", network, "--seeds=3-5", "--batch=3", "--outdir", tmp_path / "plain")[0] == 0
    for seed in (3, 4, 5):
        assert np.array_equal(*(read_png(tmp_path / name / f"seed{seed:04d}.png") for name in ("sifted", "plain")))


def test_a_sheet_sifts_each_class_apart(call, conditional, tmp_path):
    code, out, err = call(generate.main, "--network", conditional, "--seeds=0-2", "--sheet", "--outdir", tmp_path, *QUICK)
    assert code == 0, err
    assert out.count("Discriminator rejection sampling accepted") == 3 and (tmp_path / "sheet.png").exists()


def test_a_result_line_states_the_acceptance(judged, network):
    code, line, out, err = judged(network, *QUICK)
    assert code == 0, err
    facts = line["facts"]["drs"]
    assert facts["accepted"] == 40 <= facts["proposed"] and facts["acceptance"] == facts["accepted"] / facts["proposed"]
    assert facts["assumed_loss"] == "non-saturating" and "nobody knows which loss trained D" in err  # it lies in no run folder
    assert facts["burn_in"] == 128 and facts["percentile"] == 95 and line["facts"]["num_gen"] == 40
    assert f"accepted {facts['acceptance']:.1%}" in out
    assert judged(network, *QUICK)[1]["results"] == line["results"]
    without = judged(network)[1]
    assert without["results"] != line["results"] and "drs" not in without["facts"]


def test_a_mild_gamma_gives_the_numbers_without_rejection(judged, network, conditional):
    """Everything is accepted at once, so that latents, labels and numbers are those of the plain generator, without noise."""
    for path, num_classes in ((network, 0), (conditional, 3)):
        plain = judged(path, num_classes=num_classes)[1]["results"]
        sifted = judged(path, *QUICK, "--drs-gamma=-60", num_classes=num_classes)[1]
        assert sifted["facts"]["drs"]["acceptance"] == 1
        assert sifted["results"]["kid50k_full"] == pytest.approx(plain["kid50k_full"], rel=0.05, abs=1e-3)  # other noise, in other batches


def test_latents_of_the_burn_in_are_no_others():
    near, far = sampling.latents(0, 0, 4, 8), sampling.latents(0, drs.BURN_IN_ITEMS, 4, 8)
    assert near.shape == far.shape and not np.array_equal(near, far)


# --- what is refused ---


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--drs-gamma=1"], ["--drs-gamma=1.0", "without --drs"]),
        (["--drs", "--drs-gamma=1", "--drs-percentile=80"], ["--drs-gamma=1", "--drs-percentile=80"]),
        (["--drs", "--video"], ["--drs and --video"]),
        (["--drs", "--noise-mode=random"], ["--noise-mode=random"]),
        (["--drs", "--projected-w=w.npz"], ["--projected-w"]),
    ],
)
def test_contradictions_of_generate(call, network, tmp_path, flags, parts):
    assert_sentence(call(generate.main, "--network", network, "--seeds=0-1", "--outdir", tmp_path, *flags), *parts)


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--drs", "--metrics=ppl2_wend"], ["ppl2_wend", "network itself"]),
        (["--drs", "--gpus=2"], ["--gpus=2", "--drs"]),
        (["--drs", "--baseline=NETWORK"], ["--baseline", "--drs"]),
        (["--drs-percentile=50"], ["--drs-percentile=50", "without --drs"]),
    ],
)
def test_contradictions_of_calc_metrics(call, network, flags, parts):
    flags = [flag.replace("NETWORK", network) for flag in flags]
    assert_sentence(call(calc_metrics.main, "--network", network, *flags), *parts)


def test_a_d_of_packs_is_refused(call, tmp_path):
    G = tiny_generator()
    path = save_snapshot(G, tmp_path / "packs.pkl")
    import pickle

    from training import networks

    with open(path, "rb") as file:
        snapshot = pickle.load(file)
    snapshot["D"] = networks.Discriminator(c_dim=0, img_resolution=16, img_channels=6, channel_base=64, channel_max=4)
    with open(path, "wb") as file:
        pickle.dump(snapshot, file)
    assert_sentence(call(generate.main, "--network", path, "--seeds=0", "--outdir", tmp_path / "out", "--drs"), "6 channels", "packs")


def test_a_loss_without_densities_is_refused(call, tmp_path):
    torch.manual_seed(0)
    path = save_snapshot(tiny_generator(), tmp_path / "network-snapshot-000001.pkl")
    options = dict(loss_kwargs=dict(class_name="somewhere.else.Loss"))
    (tmp_path / "training_options.json").write_text(json.dumps(options))
    result = call(generate.main, "--network", path, "--seeds=0", "--outdir", tmp_path / "out", "--drs")
    assert_sentence(result, "somewhere.else.Loss", "leave out --drs")
