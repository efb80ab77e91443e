"""The cycling metric: planted sequences, toy generators that take turns, and `calc_metrics.py --run`."""

import itertools
import json
import pickle

import numpy as np
import pytest
import torch

import calc_metrics
import dnnlib
from dnnlib import cli
from dnnlib.errors import UserError
from metrics import cycling, metric_main
from metrics.metric_utils import construct_dataset
from training.networks import Discriminator, Generator


def test_modes_that_take_turns():
    assert cycling.cycling_statistics(np.eye(4)) == dict(cycling=0.75, mean=0.25, union=1, lost_and_found=0)
    twice = np.concatenate([np.eye(4), np.eye(4)])
    assert cycling.cycling_statistics(twice) == dict(cycling=0.75, mean=0.25, union=1, lost_and_found=4)


def test_modes_that_stay_and_planted_histories():
    held = np.tile([1, 1, 0, 1], (5, 1))
    assert cycling.cycling_statistics(held) == dict(cycling=0, mean=0.75, union=0.75, lost_and_found=0)
    histories = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]).T  # the first and no other returns
    result = cycling.cycling_statistics(histories)
    assert result["lost_and_found"] == 1 and result["union"] == pytest.approx(5 / 6) and result["mean"] == pytest.approx(7 / 18)
    nothing = cycling.cycling_statistics(np.zeros((3, 4)))
    assert np.isnan(nothing["cycling"]) and nothing["mean"] == nothing["union"] == nothing["lost_and_found"] == 0
    with pytest.raises(UserError, match="at least two snapshots"):
        cycling.cycling_statistics(np.ones((1, 4)))


class Shows(torch.nn.Module):
    """A generator of the given images."""

    z_dim, c_dim, img_channels, img_resolution = 4, 0, 3, 16

    def __init__(self, images):
        super().__init__()
        self.register_buffer("images", torch.as_tensor(np.stack(images)))

    def forward(self, z, c):
        index = (torch.special.ndtr(z[:, 0]) * len(self.images)).long().clamp(max=len(self.images) - 1)
        return (self.images[index].float() - 128) / 127.5


def score(options, networks):
    opts = options()
    return metric_main.calc_metric(
        "madr_cycling",
        G=networks[0],
        dataset_kwargs=opts.dataset_kwargs,
        device="cpu",
        num_gen=200,
        space="pixels",
        snapshots={f"{i}.pkl": lambda G=G: G for i, G in enumerate(networks)},
    )


def test_generators_that_take_turns_and_generators_that_hold(options):
    dataset = construct_dataset(options())
    images = [dataset[i][0] for i in range(len(dataset))]
    everything = score(options, [Shows(images)] * 3)
    assert everything.results == dict(madr_cycling=0, madr_cycling_mean=1, madr_cycling_union=1, madr_cycling_lost_and_found=0)
    assert everything.facts["num_modes"] == 3 and everything.facts["snapshots"] == {"0.pkl": 1, "1.pkl": 1, "2.pkl": 1}
    far = Shows([np.where(images[0] > 127, 0, 255).astype(np.uint8)])
    turns = score(options, [Shows(images), Shows(images[:1]), Shows(images)])
    assert turns.results["madr_cycling"] > 0.2 and turns.results["madr_cycling_lost_and_found"] == 2
    assert score(options, [far, far]).results["madr_cycling_union"] < 1
    assert not metric_main.higher_is_better("madr_cycling")


def test_one_network_alone_is_a_sentence(options):
    with pytest.raises(UserError, match="--run=RUN"):
        metric_main.calc_metric("madr_cycling", G=options().G, dataset_kwargs=options().dataset_kwargs, device="cpu")
    with pytest.raises(UserError, match="at least two snapshots"):
        score(options, [options().G])
    with pytest.raises(UserError, match="afterwards"):
        metric_main._metrics["madr_cycling"].prepare({})


@pytest.fixture
def run_dir(tmp_path, tiny_zip):
    kwargs = dnnlib.EasyDict(
        class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=30), use_labels=False, xflip=False, max_size=None
    )
    small = dict(channel_base=128, channel_max=8, num_fp16_res=0)
    folder = tmp_path / "00000-run"
    folder.mkdir()
    (folder / "training_options.json").write_text("{}")
    for kimg in (0, 4, 8):
        torch.manual_seed(kimg)
        G = Generator(
            z_dim=16, w_dim=16, c_dim=0, img_resolution=16, img_channels=3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=small
        ).eval()
        D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, **small)
        with open(folder / f"network-snapshot-{kimg:06d}.pkl", "wb") as file:
            pickle.dump(dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=kwargs), file)
    return folder


def call(capfd, *arguments):
    code = cli.call(calc_metrics.main, ["--device=cpu", "--num-gen=24", "--madr-extractor=pixels", "--verbose=0", *map(str, arguments)])
    return code, *capfd.readouterr()


def test_a_run_by_its_folder(run_dir, capfd):
    code, out, err = call(capfd, "--run", run_dir, "--metrics=madr_cycling,madr_coverage")
    assert code == 0, err
    line, other = (json.loads(text) for text in out.splitlines())
    assert list(line["facts"]["snapshots"]) == ["network-snapshot-000004.pkl", "network-snapshot-000008.pkl"]
    assert line["snapshot_pkl"] == other["snapshot_pkl"] == "network-snapshot-000008.pkl"
    assert json.loads((run_dir / "metric-madr_cycling.jsonl").read_text()) == line


def test_faults_of_the_run_are_sentences(run_dir, tmp_path, capfd):
    snapshot = run_dir / "network-snapshot-000004.pkl"
    code, _, err = call(capfd, "--run", tmp_path, "--metrics=madr_cycling")
    assert code != 0 and "not a run folder" in err
    code, _, err = call(capfd, "--run", run_dir, "--network", snapshot)
    assert code != 0 and "--network" in err and "--run" in err and "exclude" in err
    code, _, err = call(capfd, "--metrics=madr_cycling")
    assert code != 0 and "--network" in err
    for path in run_dir.glob("*.pkl"):
        path.unlink()
    code, _, err = call(capfd, "--run", run_dir)
    assert code != 0 and "holds no network-snapshot" in err


def test_the_floor_of_a_perfect_generator():
    """3000 draws over 1000 equal modes miss exp(-3) of them each time, and miss others the next time."""
    floor = cycling.perfect_cycling(np.ones(1000), 1000, 3000, 6, np.random.default_rng(0))
    missed = np.exp(-3)
    assert floor["mean"] == pytest.approx(1 - missed, abs=0.005) and floor["union"] == pytest.approx(1, abs=1e-3)
    assert floor["cycling"] == pytest.approx(missed, abs=0.005)
    assert floor["lost_and_found"] == pytest.approx(1000 * probability_of_a_gap(1 - missed, 6), rel=0.1)
    half = cycling.perfect_cycling(np.ones(1000), 500, 3000, 6, np.random.default_rng(0))  # the others draw their share
    assert half["mean"] == pytest.approx(1 - missed, abs=0.01) and half["lost_and_found"] == pytest.approx(floor["lost_and_found"] / 2, rel=0.15)


def probability_of_a_gap(hit, length):
    """That in so many independent snapshots a mode is hit, then missed, then hit: by all histories."""
    total = 0.0
    for history in itertools.product([0, 1], repeat=length):
        text = "".join(map(str, history)).strip("0")
        total += ("0" in text) * hit ** sum(history) * (1 - hit) ** (length - sum(history))
    return total


def test_lines_state_the_floor_and_the_rule(options):
    dataset = construct_dataset(options())
    facts = score(options, [Shows([dataset[i][0] for i in range(len(dataset))])] * 2).facts
    assert (
        set(facts["floor"]) == {"cycling", "mean", "union", "lost_and_found"}
        and 0.9 < facts["floor"]["mean"] <= 1
        and facts["hit_rule"] == "by at least 1 image"
    )
