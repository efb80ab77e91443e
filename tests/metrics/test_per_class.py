"""calc_metrics.py --per-class: every class of a conditional network by itself."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

import calc_metrics
from dnnlib import cli
from metrics import metric_main, one_class, per_class
from metrics.metric_utils import ProgressMonitor
from training.dataset import ImageFolderDataset
from training.networks import Discriminator, Generator


@pytest.fixture
def three(tiny_zip):
    return dict(class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=30, num_classes=3), use_labels=True)


def judged(metric, toy_generator, detector_file, data, **more):
    how = dict(G=toy_generator(3), device="cpu", detectors=dict(inception=detector_file), num_gen=12, space="pixels", progress=ProgressMonitor())
    return per_class.of_network(metric, dict(data), **{**how, **more})


def test_a_class_is_compared_with_images_of_its_label(toy_generator, detector_file, three, tmp_path):
    """The same numbers as of a set that holds the class alone, and of a network that draws it alone."""

    class Draws(toy_generator):
        def forward(self, z, c, **kwargs):
            fixed = torch.zeros(len(c), 3)
            fixed[:, 1] = 1
            return super().forward(z, fixed, **kwargs)

    names = [name for name in zipfile.ZipFile(three["path"]).namelist() if name.endswith(".png")]
    with zipfile.ZipFile(three["path"]) as source, zipfile.ZipFile(tmp_path / "one.zip", "w") as alone:
        for name in names[1::3]:
            alone.writestr(name, source.read(name))
    G = Draws(3)
    G.c_dim = 0
    expected = metric_main.calc_metric(
        "fid50k_full",
        G=G,
        device="cpu",
        detectors=dict(inception=detector_file),
        num_gen=12,
        dataset_kwargs=dict(class_name=three["class_name"], path=str(tmp_path / "one.zip")),
    )
    line = judged("fid50k_full", toy_generator, detector_file, three)
    mean, *each = line.results.values()
    assert each[1] == pytest.approx(expected.results.fid50k_full, rel=1e-9) and mean == pytest.approx(np.mean(each))
    assert line.metric == "fid50k_full_per_class" and line.facts["per_class"][1] == dict(name="1", num_real=10, num_gen=12)
    assert not metric_main.higher_is_better(line.metric) and metric_main.higher_is_better("madr_vendi_per_class")


def test_classes_with_too_few_images_are_named_and_left_out(toy_generator, detector_file, three, tmp_path, capsys):
    with zipfile.ZipFile(three["path"]) as source, zipfile.ZipFile(tmp_path / "few.zip", "w") as few:
        labels = json.loads(source.read("dataset.json"))["labels"]
        kept = [pair for i, pair in enumerate(labels) if pair[1] != 2 or i < 3]
        for name, _ in kept:
            few.writestr(name, source.read(name))
        few.writestr("dataset.json", json.dumps(dict(labels=kept, class_names=["cat", "dog", "emu"])))
    data = dict(three, path=str(tmp_path / "few.zip"))
    line = judged("madr_prdc", toy_generator, detector_file, data)
    err = capsys.readouterr().err
    assert "Warning: too few images for madr_prdc, left out: emu (1 real, 12 generated)." in err
    assert list(line.facts["left_out"]) == [2] and not any("class2" in name for name in line.results)
    judged("fid50k_full", toy_generator, detector_file, data)
    assert "Warning: cat, dog: fid50k_full has 10 real and 12 generated images for covariances" in capsys.readouterr().err
    with pytest.raises(Exception, match="no class has as many"):
        judged("madr_prdc", toy_generator, detector_file, data, num_gen=3)


def test_a_space_fitted_to_the_data_is_that_of_all_classes(toy_generator, detector_file, three):
    line = judged("madr_vendi", toy_generator, detector_file, three, space="pca")
    whole = metric_main.calc_metric("madr_vendi", G=toy_generator(3), device="cpu", num_gen=12, space="pca", dataset_kwargs=dict(three))
    assert line.facts["detector"]["fitted"] == whole.facts["detector"]["fitted"]


def test_facts_of_the_line_are_those_of_all_classes(toy_generator, detector_file, three, monkeypatch):
    of_class = []

    def calc(metric, only_class, **kwargs):
        result = whole_calc(metric, only_class=only_class, **kwargs)
        result.facts["held_out"] = dict(space="tiles", coverage=only_class.number / 4)
        of_class.append(result.facts)
        return result

    whole_calc = metric_main.calc_metric
    monkeypatch.setattr(metric_main, "calc_metric", calc)
    facts = judged("madr_prdc", toy_generator, detector_file, three).facts
    assert facts["held_out"] == dict(space="tiles", coverage=0.25)
    assert facts["expected_coverage"] == pytest.approx(np.mean([one["expected_coverage"] for one in of_class]))
    assert (facts["num_real"], facts["num_gen"]) == (30, 36)
    whole = ImageFolderDataset(path=three["path"], use_labels=True)
    assert (facts["data"]["fingerprint"], facts["data"]["num_images"]) == (whole.content_fingerprint(), 30)


def test_facts_in_which_classes_differ_are_kept_by_class():
    of_all = per_class._of_all({0: dict(k=5, rule="<", variety=None, share=1), 2: dict(k=5, rule="<", variety=0.5, share=2)})
    assert of_all == dict(k=5, rule="<", variety={0: None, 2: 0.5}, share=1.5)


def test_parts_of_a_set_hold_every_item_once(three):
    dataset = ImageFolderDataset(path=three["path"], use_labels=True, xflip=True)
    parts = one_class.by_class(dataset)
    assert sorted(np.concatenate([part.items for part in parts.values()])) == list(range(60))
    assert all(part.get_label(i)[number] == 1 for number, part in parts.items() for i in range(len(part)))
    assert len({part.content_fingerprint() for part in parts.values()}) == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--network=x.pkl", "--metrics=madr_modes"], ["--per-class does not go with --metrics=madr_modes"]),
        (["--network=x.pkl", "--baseline=other.pkl"], ["--baseline does not go with --per-class"]),
        (["--network=x.pkl", "--repeats=2"], ["--repeats does not go with --per-class"]),
        (["--real-features=a.npz", "--fake-features=b.npz", "--metrics=madr_prdc"], ["--per-class has no effect"]),
    ],
)
def test_what_does_not_go_with_it_is_a_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").touch()
    code = cli.call(calc_metrics.main, ["--per-class", "--device=cpu", *arguments])
    err = capsys.readouterr().err
    assert code == 1 and all(word in err for word in words), err


def test_sets_whose_labels_are_no_classes_are_refused(toy_generator, detector_file, three, tiny_zip, tmp_path):
    with zipfile.ZipFile(three["path"]) as source, zipfile.ZipFile(tmp_path / "vectors.zip", "w") as vectors:
        labels = [[name, [0.5, 1.0, float(number)]] for name, number in json.loads(source.read("dataset.json"))["labels"]]
        for name, _ in labels:
            vectors.writestr(name, source.read(name))
        vectors.writestr("dataset.json", json.dumps(dict(labels=labels)))
    for path, words in ((tmp_path / "vectors.zip", "has labels that are no classes"), (tiny_zip(num_images=30), "has no labels")):
        with pytest.raises(Exception, match=words):
            judged("fid50k_full", toy_generator, detector_file, dict(three, path=str(path)))


@pytest.fixture
def pickled(tmp_path, three):
    """pickled(c_dim) -> path of a network snapshot in a run folder, trained on the set of three classes"""

    def make(c_dim):
        common = dict(c_dim=c_dim, img_resolution=16, img_channels=3)
        small = dict(channel_base=64, channel_max=8, num_fp16_res=0)
        torch.manual_seed(0)
        G = Generator(z_dim=8, w_dim=8, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=small, **common).eval()
        snapshot = dict(G=G, D=Discriminator(**common, **small).eval(), G_ema=G, augment_pipe=None, training_set_kwargs=three)
        (tmp_path / "training_options.json").write_text("{}")
        (tmp_path / "network-snapshot-000001.pkl").write_bytes(pickle.dumps(snapshot))
        return str(tmp_path / "network-snapshot-000001.pkl")

    return make


def test_the_line_is_kept_beside_those_of_all_classes(pickled, tmp_path, detector_file, capfd):
    how = ["--metrics=fid10k_full", "--per-class", "--num-gen=12", "--device=cpu", f"--detector=inception={detector_file}"]
    assert cli.call(calc_metrics.main, ["--network", pickled(3), *how]) == 0
    out = capfd.readouterr().out
    assert "Class 2 (2), 3 of 3: 10 real images" in out
    line = json.loads((tmp_path / "metric-fid10k_full_per_class.jsonl").read_text())
    assert line["snapshot_pkl"] == "network-snapshot-000001.pkl" and line["facts"]["num_real"] == 30
    assert list(line["results"]) == ["fid10k_full_per_class", *(f"fid10k_full_class{number}" for number in range(3))]
    assert cli.call(calc_metrics.main, ["--network", pickled(0), *how]) == 1
    assert "takes none (train.py --cond=1)" in capfd.readouterr().err
