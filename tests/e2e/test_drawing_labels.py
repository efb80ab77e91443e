"""Which label is drawn: by class number and name, by vector, as a sheet of all; and what is said where the data do not know it."""

import json
import os

import numpy as np
import pytest
import torch

import generate
import projector
import style_mixing
from tests.e2e.drawing_fixtures import ANIMALS, NUM_WS, W_DIM, assert_sentence, read_png, save_snapshot, tiny_generator
from training import label_facts, pictures
from training.dataset import ImageFolderDataset

RANGES = [[5.0, 90.0], [1.0, 100.0], [3.0, 80.0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="module")
def animals(folder):
    return save_snapshot(tiny_generator(3), folder / "animals.pkl", [0, 2, 1, 0], ANIMALS)


@pytest.fixture(scope="module")
def vectors(folder):
    return save_snapshot(tiny_generator(2), folder / "vectors.pkl", np.array(RANGES, np.float32))


def expected(generator, seed, label):
    with torch.no_grad():
        image = generator(pictures.latent_of_seed(seed, 8, "cpu"), torch.tensor([label], dtype=torch.float32), noise_mode="const")
    return pictures.to_pixels(image)[0]


def test_a_class_is_drawn_by_number_and_by_name(call, animals, tmp_path):
    for typed in ("1", "dog", "Dog"):
        code, out, _ = call(generate.main, "--network", animals, "--seeds=4", f"--class={typed}", "--outdir", tmp_path / typed)
        assert code == 0 and "class 1 (dog)" in out
        assert np.array_equal(read_png(tmp_path / typed / "seed0004.png"), expected(tiny_generator(3), 4, [0, 1, 0]))


def test_a_wrong_name_brings_the_nearest(call, animals, tmp_path):
    shared = ["--network", animals, "--seeds=1", "--outdir", tmp_path]
    assert_sentence(call(generate.main, *shared, "--class=hosre"), "--class=hosre", "did you mean horse?")
    assert call(generate.main, *shared, "--class=horse")[0] == 0
    assert_sentence(call(generate.main, *shared, "--class=xyz"), "no such class", "cat, dog, horse")
    assert_sentence(call(generate.main, *shared), "one of 3 classes", "cat, dog, horse")
    assert_sentence(call(generate.main, *shared, "--class=1", "--label=1,0,0"), "--class", "--label", "one of them")
    assert_sentence(call(generate.main, *shared, "--class=0-2"), "3 labels", "--sheet")


def test_a_label_vector_is_drawn(call, vectors, tmp_path):
    code, out, err = call(generate.main, "--network", vectors, "--seeds=4", "--label=5,90", "--outdir", tmp_path)
    assert (code, err) == (0, "") and "label 5,90" in out
    assert np.array_equal(read_png(tmp_path / "seed0004.png"), expected(tiny_generator(2), 4, [5, 90]))


@pytest.mark.parametrize("tool", ["generate", "style_mixing", "projector"])
def test_classes_are_refused_where_labels_are_none(call, vectors, tmp_path, tool):
    command = {
        "generate": [generate.main, "--seeds=1"],
        "style_mixing": [style_mixing.main, "--rows=1", "--cols=2"],
        "projector": [projector.main, "--target", save_target(tmp_path), "--distance=pixel", "--num-steps=1", "--save-video=false"],
    }[tool]
    shared = [*command, "--network", vectors, "--outdir", tmp_path / "out"]
    for wrong in (["--class=1"], []):
        assert_sentence(call(*shared, *wrong), "no classes but 2 numbers", "1 to 5, 80 to 100", "--label=3,90")
    assert_sentence(call(*shared, "--label=5"), "--label=5 ", "have 2", "--label=3,90")
    assert list((tmp_path / "out").iterdir()) == []
    assert call(*shared, "--label=3,90")[0] == 0
    code, _, err = call(*shared, "--label=3,200")
    assert code == 0 and "Warning: --label=3,200" in err and "number 2 is 200" in err and "80 to 100" in err


def save_target(folder):
    import PIL.Image

    PIL.Image.fromarray(np.full([16, 16, 3], 90, np.uint8)).save(folder / "target.png")
    return folder / "target.png"


def test_a_label_that_is_no_class_is_told(call, animals, tmp_path):
    shared = ["--network", animals, "--seeds=1", "--outdir", tmp_path]
    code, _, err = call(generate.main, *shared, "--label=0.5,0.5,0")
    assert code == 0 and "outside the data" in err and "3 classes" in err
    assert call(generate.main, "--network", animals, "--seeds=1", "--label=0,1,0", "--outdir", tmp_path / "class")[2] == ""


def test_labels_are_numbers(call, vectors, tmp_path):
    for wrong in ("a,b", "1,nan", "", "1,,2"):
        code, _, err = call(generate.main, "--network", vectors, "--seeds=1", f"--label={wrong}", "--outdir", tmp_path)
        assert code == 2 and "5,90" in err


def test_classes_without_an_image_and_names_that_are_numbers_are_told(call, folder, tmp_path):
    network = save_snapshot(tiny_generator(3), folder / "numbers.pkl", [0, 2], ["1", "2", "10"])
    shared = ["--network", network, "--seeds=1", "--outdir", tmp_path]
    code, _, err = call(generate.main, *shared, "--class=1")
    assert code == 0 and "had no image" in err and "the one called 2" in err and "the one called 1 is --class=0" in err
    assert call(generate.main, "--network", network, "--seeds=1", "--class=0", "--outdir", tmp_path / "other")[2] == ""


def test_the_data_tell_what_the_network_does_not(call, folder, tiny_zip, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    target = save_target(tmp_path)
    for name in ("a.png", "b.png"):
        os.link(target, data / name)
    (data / "dataset.json").write_text(json.dumps(dict(labels=[["a.png", [1, 0, 1]], ["b.png", [0, 1, 4]]])))
    network = save_snapshot(tiny_generator(3), folder / "from-data.pkl", data=data)
    shared = ["--network", network, "--seeds=1", "--outdir", tmp_path / "out"]
    assert_sentence(call(generate.main, *shared, "--class=1"), "no classes", "1 to 4")
    (data / "dataset.json").write_text(json.dumps(dict(labels=[["a.png", 0], ["b.png", 2]], class_names=ANIMALS)))
    code, out, _ = call(generate.main, *shared, "--class=horse")
    assert code == 0 and "class 2 (horse)" in out
    (data / "dataset.json").write_text("no JSON")  # the data may have gone; drawing needs them not
    code, _, err = call(generate.main, *shared, "--class=2")
    assert code == 0 and "takes them for classes" in err
    assert_sentence(call(generate.main, *shared, "--class=horse"), "have no names", "0 to 2")
    code, _, err = call(generate.main, *shared, "--label=1,2,3")
    assert code == 0 and "may lie outside" in err


def test_a_training_run_tells_the_network_its_labels(loop_options, tmp_path):
    """Vectors and classes alike, and opened without running code."""
    from training.training_loop import training_loop

    run = tmp_path / "run"
    run.mkdir()
    training_loop(**loop_options(num_classes=2, run_dir=str(run), total_kimg=0.008, kimg_per_tick=0.008, network_snapshot_ticks=1))
    [*_, newest] = sorted(run.glob("network-snapshot-*.pkl"))
    generator, facts = pictures.open_generator(str(newest), "cpu")
    assert facts.are_classes and facts.num == 2 and facts.absent == () and label_facts.kept_with(generator) == facts


def test_facts_of_labels(tiny_zip):
    of = label_facts.of_labels
    assert of(np.zeros([4, 0], np.float32)) is None
    assert of(np.array([1, 4, 100000])).absent == ((0, 0), (2, 3), (5, 99999)) and of(np.array([0, 1])).absent == ()
    assert [of(np.array([0, 2])).is_absent(index) for index in range(3)] == [False, True, False]
    assert of(np.eye(3, dtype=np.float32)[[0, 2]]) == of(np.array([0, 2]))
    for no_classes in ([[1, 0, 1], [0, 1, 0]], [[0, 0], [1, 0]], [[0.5, 0.5]]):
        assert not of(np.array(no_classes, np.float32)).are_classes
    facts = of(np.array(RANGES, np.float32))
    assert (facts.low, facts.high) == ((1, 80), (5, 100))
    data = ImageFolderDataset(tiny_zip(num_classes=2), use_labels=True)
    vectors = np.stack([data.get_label(index) for index in range(len(data))])
    assert of(vectors) == of(np.array([data.get_details(index).raw_label for index in range(len(data))]))


@pytest.mark.parametrize("damage", [None, dict(json=torch.zeros(3)), dict(json=torch.frombuffer(bytearray(b'{"num": "x"}'), dtype=torch.uint8)), "x"])
def test_damaged_facts_are_none(damage):
    generator = tiny_generator(2)
    generator.label_facts = damage
    assert label_facts.kept_with(generator) is None


# --- A sheet. ---


def test_a_sheet_shows_every_class(call, animals, tmp_path):
    code, out, _ = call(generate.main, "--network", animals, "--seeds=4,5", "--sheet", "--batch=2", "--outdir", tmp_path)
    assert code == 0 and "Row 2: class 2 (horse)" in out
    sheet = read_png(tmp_path / "sheet.png")
    assert sheet.shape == (3 * 16, 2 * 16, 3)
    for row in range(3):
        for column, seed in enumerate((4, 5)):
            cell = sheet[row * 16 : (row + 1) * 16, column * 16 : (column + 1) * 16].astype(int)
            assert abs(cell - expected(tiny_generator(3), seed, np.eye(3)[row].tolist())).max() <= 1
    told = json.loads((tmp_path / "sheet.json").read_text())
    assert told == dict(rows=[{"class": number, "name": name} for number, name in enumerate(ANIMALS)], seeds=[4, 5])


def test_a_sheet_of_chosen_rows(call, animals, vectors, tmp_path):
    assert call(generate.main, "--network", animals, "--seeds=4", "--sheet", "--class=horse,0", "--outdir", tmp_path)[0] == 0
    assert [row["class"] for row in json.loads((tmp_path / "sheet.json").read_text())["rows"]] == [2, 0]
    assert_sentence(call(generate.main, "--network", vectors, "--seeds=4", "--sheet", "--outdir", tmp_path), "--sheet", "--label=3,90")
    assert call(generate.main, "--network", vectors, "--seeds=4", "--sheet", "--label=3,90", "--label=1,80", "--outdir", tmp_path)[0] == 0
    assert read_png(tmp_path / "sheet.png").shape == (32, 16, 3)


def test_a_sheet_needs_classes_and_memory(call, folder, animals, tmp_path, monkeypatch):
    plain = save_snapshot(tiny_generator(), folder / "plain.pkl")
    shared = ["--sheet", "--outdir", tmp_path]
    assert_sentence(call(generate.main, "--network", plain, "--seeds=1", *shared), "--sheet", "without classes")
    assert_sentence(call(generate.main, "--network", animals, "--seeds=1", "--frames=3", *shared), "--sheet", "--frames")
    from training.drawing import draw

    monkeypatch.setattr(draw, "MAX_SHEET_PIXELS", 1000)
    assert_sentence(call(generate.main, "--network", animals, "--seeds=1-2", *shared), "--class=0-9", "--seeds")
    assert list(tmp_path.iterdir()) == []


# --- Style mixing. ---


@pytest.fixture
def latents(tmp_path):
    """Two files as projector.py writes them, of the plain network."""
    random = np.random.RandomState(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "projected_w.npz", w=np.repeat(random.randn(1, 1, W_DIM), NUM_WS, axis=1).astype(np.float32))
    return [tmp_path / name / "projected_w.npz" for name in ("a", "b")]


def test_projected_pictures_are_mixed(call, folder, latents, tmp_path):
    network, out = save_snapshot(tiny_generator(), folder / "mix.pkl"), tmp_path / "out"
    code, text, _ = call(
        style_mixing.main,
        "--network",
        network,
        "--rows",
        f"{latents[0]},7",
        "--cols",
        f"{latents[1]},{latents[0]}",
        "--styles=2-3",
        "--trunc=1",
        "--outdir",
        out,
    )
    assert code == 0 and f"proj00: {latents[0]}" in text and f"proj01: {latents[1]}" in text
    mixtures = {f"{row}-{col}.png" for row in ("proj00", 7) for col in ("proj00", "proj01")}
    assert {path.name for path in out.iterdir()} == mixtures | {"proj01-proj01.png", "7-7.png", "grid.png"}
    ws = [torch.from_numpy(np.load(path)["w"]) for path in latents]
    mixed = torch.cat([ws[0][:, :2], ws[1][:, 2:4], ws[0][:, 4:]], dim=1)
    drawn = pictures.to_pixels(tiny_generator().synthesis(mixed, noise_mode="const").detach())[0]
    assert np.array_equal(read_png(out / "proj00-proj01.png"), drawn)
    assert np.array_equal(read_png(out / "grid.png")[16:32, 16:32], drawn)


def test_mixing_of_projections_alone(call, folder, animals, latents, tmp_path):
    shared = ["--rows", latents[0], "--cols", latents[1], "--outdir", tmp_path / "out"]
    assert call(style_mixing.main, "--network", animals, *shared)[0] == 0  # a latent has its class in it
    assert "no effect" in call(style_mixing.main, "--network", animals, *shared, "--class=1")[2]
    assert_sentence(call(style_mixing.main, "--network", animals, *shared, "--trunc=0.7"), "--trunc", "no effect")
    wrong = save_snapshot(tiny_generator(), folder / "again.pkl")
    gone = ["--network", wrong, "--rows", tmp_path / "gone.npz", "--cols=1", "--outdir", tmp_path / "out"]
    assert_sentence(call(style_mixing.main, *gone), "--rows=", "gone.npz")
    code, _, err = call(style_mixing.main, "--network", wrong, "--rows=a-b", "--cols=1", "--outdir", tmp_path / "out")
    assert code == 2 and "0,3,5-7" in err
