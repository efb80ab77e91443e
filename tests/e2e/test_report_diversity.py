"""report.py and a snapshot's diversity: looked at once, kept in the run folder, told in words where it cannot be."""

import json
import os
import shutil

import numpy as np
import pytest

import report
from dnnlib import cli
from dnnlib.errors import UserError
from reporting import diversity_file, run_folder
from reporting.run_page import diversity_sections, page
from tests.e2e.test_report import read_page
from training import provenance
from training.training_loop import training_loop

QUICK = ["--num-gen=60", "--device=cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, loop_options, tiny_zip):
    """A run of two classes and 140 images with two snapshots, whose page is looked at in full."""
    run = tmp_path_factory.mktemp("runs") / "00000-toys"
    run.mkdir()
    options = loop_options(total_kimg=1.0, kimg_per_tick=0.5, network_snapshot_ticks=2, batch_size=40, batch_gpu=40)
    options["training_set_kwargs"] = dict(options["training_set_kwargs"], path=tiny_zip(num_images=140, num_classes=2))
    options["G_kwargs"]["synthesis_kwargs"].update(channel_base=32, channel_max=4)
    options["D_kwargs"].update(channel_base=32, channel_max=4)
    (run / "training_options.json").write_text(json.dumps(options))
    training_loop(run_dir=str(run), **options)
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "00000-toys")


def make_page(run, *arguments, expect=0):
    quick = [] if "--no-diversity" in arguments else QUICK
    assert cli.call(report.main, [str(run), *quick, *arguments]) == expect
    return read_page(run / "report.html")


def kept_file(run):
    [name] = [name for name in os.listdir(run) if name.startswith("diversity-")]
    return run / name


# ----------------------------------------------------------------------------------------------------------------
# What is made and kept.


def test_the_page_shows_what_is_missing(run, capsys):
    found = make_page(run)
    assert {"coverage", "copies"} <= found.anchors and "modes" not in found.anchors
    assert "Map of coverage" in found.texts and "The least covered real images" in found.texts and "Coverage per class" in found.texts
    assert "of 140 reals have no generated image within their neighbourhood" in found.text.replace("\u202f", "")
    assert "random-conv" in found.texts and "the weights of dino are not on this machine" in found.text
    assert "None of 60 generated images is nearer to one of 140 training images than chance allows." in found.text
    kept = diversity_file.load(str(kept_file(run)))
    assert kept.kimg == 1 and kept.facts["num_real"] == 140 and len(kept["map_real"]) == 140
    assert found.images > 2 * len(kept["missing_ratio"]) and len(kept["missing_ratio"]) > 0
    assert kept["missing_real"].shape[1:] == kept["missing_fake"].shape[1:] == (3, 16, 16)
    assert kept["class_total"].tolist() == [70, 70]
    assert "Wrote" in capsys.readouterr().out


def test_pictures_and_numbers_of_what_is_missing_belong_together(run):
    make_page(run)
    kept = diversity_file.load(str(kept_file(run)))
    from training.dataset import ImageFolderDataset

    data = ImageFolderDataset(json.loads((run / "training_options.json").read_text())["training_set_kwargs"]["path"], use_labels=True)
    for item, picture, label in zip(kept["missing_item"], kept["missing_real"], kept["missing_class"]):
        assert (data[int(item)][0] == picture).all() and data.get_details(int(item)).raw_label == label
    for item, picture in zip(kept["copies_item"], kept["copies_real"]):
        assert (data[int(item)][0] == picture).all()
    assert (kept["missing_ratio"] > 1).all()


def test_kept_until_something_else_is_asked_for(run, capsys):
    make_page(run)
    path = kept_file(run)
    first = path.read_bytes()
    capsys.readouterr()
    make_page(run)
    assert path.read_bytes() == first and "Looking at" not in capsys.readouterr().out
    make_page(run, "--num-gen=50")
    assert "Looking at" in capsys.readouterr().out and diversity_file.load(str(path)).facts["num_gen"] == 50
    make_page(run, "--num-gen=50", "--madr-extractor=pixels")
    assert diversity_file.load(str(path)).facts["space"] == "pixels"


def test_same_inputs_same_arrays(run):
    make_page(run)
    path = kept_file(run)
    first = diversity_file.load(str(path))
    path.unlink()
    make_page(run)
    again = diversity_file.load(str(path))
    assert first.arrays.keys() == again.arrays.keys()
    assert all(np.array_equal(first[name], again[name], equal_nan=first[name].dtype.kind == "f") for name in first.arrays)


def test_training_shows_what_is_kept_and_says_how_to_add_it(run):
    page.write_report(str(run))  # as training does
    found = read_page(run / "report.html")
    assert "Not looked at yet" in found.text and f"python report.py {run}" in found.text
    make_page(run, "--network=network-snapshot-000000.pkl")
    page.write_report(str(run))
    found = read_page(run / "report.html")
    assert "Map of coverage" in found.texts and "The newest network is that of kimg 1" in found.text


def test_a_snapshot_of_the_run_by_name_or_path(run, capsys):
    make_page(run, "--network=network-snapshot-000000.pkl")
    assert kept_file(run).name == "diversity-000000.npz"
    make_page(run, f"--network={run / 'network-snapshot-000000.pkl'}")
    elsewhere = run.parent / "network-snapshot-000000.pkl"
    shutil.copy(run / "network-snapshot-000000.pkl", elsewhere)
    for wrong, words in [
        (str(elsewhere), "is no network-snapshot-*.pkl in"),
        ("network-snapshot-000009.pkl", "does not exist"),
        ("stats.jsonl", "is no network"),
    ]:
        assert cli.call(report.main, [str(run), f"--network={wrong}", *QUICK]) == 1
        assert words in capsys.readouterr().err


def test_the_snapshot_asked_for_is_shown_beside_what_is_known_of_a_newer_one(run):
    make_page(run)
    found = make_page(run, "--network=network-snapshot-000000.pkl")
    assert "The newest network is that of kimg 1" in found.text
    assert "The newest network is that of kimg 1" not in make_page(run).text


def test_a_run_folder_that_cannot_be_written_to_has_a_page_elsewhere(run, capsys, monkeypatch, tmp_path):
    def refuse(path, *_):
        raise UserError(f"Cannot write {path}: Permission denied.")

    monkeypatch.setattr(diversity_file, "save", refuse)
    assert cli.call(report.main, [str(run), *QUICK, f"--dest={tmp_path / 'page.html'}"]) == 0
    assert "What was found out is not kept: Cannot write" in capsys.readouterr().err
    found = read_page(tmp_path / "page.html")
    assert "Map of coverage" in found.texts and "could not be looked at" not in found.text


def test_no_diversity(run):
    found = make_page(run, "--no-diversity")
    assert "Not looked at yet" in found.text and not [name for name in os.listdir(run) if name.startswith("diversity-")]


@pytest.mark.parametrize(
    "option",
    ["--network=x.pkl", "--data=x", "--num-gen=1000", "--num-real=20", "--no-copies", "--metric-space=pixels", "--madr-extractor=pixels",
     "--madr-weights=x", "--device=cpu", "--trust-pickle"],
)  # fmt: skip
def test_options_of_the_look_at_a_network_are_refused_without_it(run, capsys, option):
    assert cli.call(report.main, [str(run), "--no-diversity", option]) == 1
    assert f"{option.split('=')[0]} has no effect beside --no-diversity" in capsys.readouterr().err and not (run / "report.html").exists()


# ----------------------------------------------------------------------------------------------------------------
# What stands in the way.


def test_without_a_snapshot(run):
    for path in run.glob("network-snapshot-*"):
        path.unlink()
    assert "Once there is a network snapshot" in make_page(run).text


@pytest.mark.parametrize(
    "case, words",
    [
        ("missing", "is not there any more"),
        ("other size", "are 32x32 pixels"),
        ("other labels", "takes labels of 2 values"),
        ("damaged network", "damaged"),
    ],
)
def test_what_cannot_be_looked_at_is_told_on_the_page(run, tiny_zip, tmp_path, case, words):
    arguments = []
    if case == "missing":
        # The snapshot names its data by path.
        (tmp_path / "no").mkdir()
        import pickle

        import legacy

        path = run / "network-snapshot-000001.pkl"
        snapshot = legacy.open_network(str(path), verbose=False)
        snapshot["training_set_kwargs"]["path"] = str(tmp_path / "gone.zip")
        path.write_bytes(pickle.dumps(snapshot))
    elif case == "other size":
        arguments = [f"--data={tiny_zip(num_images=30, resolution=32, num_classes=2)}"]
    elif case == "other labels":
        arguments = [f"--data={tiny_zip(num_images=30, num_classes=3)}"]
    else:
        (run / "network-snapshot-000001.pkl").write_bytes((run / "network-snapshot-000001.pkl").read_bytes()[:3000])
    found = make_page(run, *arguments)
    assert "What is missing could not be looked at" in found.text and words in found.text and "Losses" in found.texts


def test_other_data_is_told(run, tiny_zip):
    assert "its fingerprint differs" not in make_page(run).text
    assert "its fingerprint differs" in make_page(run, f"--data={tiny_zip(num_images=130, num_classes=2, seed=5)}").text


def test_data_that_have_moved_are_looked_at_in_the_part_that_was_trained_on(tmp_path, loop_options, tiny_zip):
    """Else images that the run has never seen would count as missed, and as training images of which it may hold copies."""
    run, moved = tmp_path / "run", tmp_path / "moved.zip"
    run.mkdir()
    options = loop_options(num_classes=2, total_kimg=0.008, network_snapshot_ticks=1)
    options["training_set_kwargs"] = dict(options["training_set_kwargs"], path=tiny_zip(num_images=140, num_classes=2), max_size=110, random_seed=4)
    (run / "training_options.json").write_text(json.dumps(options))
    training_loop(run_dir=str(run), **options)
    shutil.copy(options["training_set_kwargs"]["path"], moved)
    make_page(run)
    before = diversity_file.load(str(kept_file(run)))
    make_page(run, f"--data={moved}")
    after = diversity_file.load(str(kept_file(run)))
    assert after.facts["num_images"] == before.facts["num_images"] == 110
    assert after["copies_item"].tolist() == before["copies_item"].tolist()


def test_sets_too_small_for_a_neighbourhood(run, tiny_zip):
    found = make_page(run, f"--data={tiny_zip(num_images=4, num_classes=2)}")
    assert "needs more than 5 real images (got 4)" in found.text and "one cannot learn how near chance brings two images" in found.text


def test_a_set_of_one_image(tmp_path, loop_options, tiny_zip):
    run = tmp_path / "run"
    run.mkdir()
    options = loop_options(num_classes=0, total_kimg=0.008, network_snapshot_ticks=1, augment_kwargs=None, ada_target=None)
    options["training_set_kwargs"] = dict(options["training_set_kwargs"], path=tiny_zip(num_images=1))
    (run / "training_options.json").write_text(json.dumps(options))
    training_loop(run_dir=str(run), **options)
    found = make_page(run)
    assert "(got 1)" in found.text and "cannot be told from others in a set of 1 image" in found.text


def test_a_damaged_file_is_left_out_and_made_again(run, capsys):
    make_page(run)
    path = kept_file(run)
    path.write_bytes(path.read_bytes()[:1000])
    page.write_report(str(run))
    found = read_page(run / "report.html")
    assert f"{path.name} is damaged" in found.text and "Not looked at yet" in found.text
    capsys.readouterr()
    assert "Map of coverage" in make_page(run).texts and "making it again" in capsys.readouterr().out


def test_wrong_flags_end_it(run, capsys):
    for arguments, words in [
        (["--madr-extractor=nonsense"], "must be one of"),
        (["--madr-extractor=pixels", f"--madr-weights={run}"], "takes no weights"),
        (["--madr-extractor=file:gone.pt"], "there is no such file"),
        (["--dest=" + str(run)], "is a folder"),
    ]:
        assert cli.call(report.main, [str(run), *QUICK, *arguments]) == 1
        assert words in capsys.readouterr().err
    assert not [name for name in os.listdir(run) if name.startswith("diversity-")]


# ----------------------------------------------------------------------------------------------------------------
# Sections from arrays, settings.


def sheet(**facts):
    memorisation = dict(num_searched=500, num_suspects=0, num_copies=0, level=0.01, num_twins=0, num_asked=500, fewest=100)
    return diversity_file.DiversityFile(
        4,
        dict(
            dict(
                num_gen=5000,
                num_images=500,
                num_real=500,
                coverage=0.9,
                expected_coverage=0.97,
                num_missed=50,
                k=5,
                problems=[],
                space="pixels",
                fingerprint="x",
                memorisation=memorisation,
            ),
            **facts,
        ),
        {},
    )


def test_the_sentence_of_what_is_missing():
    found = sheet(coverage=0.5, num_missed=250, class_names=["cats", "<dogs>"])
    found.arrays.update(class_below=np.array([1]), class_coverage=np.array([0.9, 0.125]))
    sentence = diversity_sections.missing_sentence(found)
    assert "48% of what a perfect generator would cover is missing." in sentence and "250 of 500 reals" in sentence and "about 15." in sentence
    assert "&lt;dogs&gt; (12%)" in sentence and "cats" not in sentence
    assert "Nothing is clearly missing." in diversity_sections.missing_sentence(sheet(coverage=0.96))


def test_the_sentence_of_copies():
    base = sheet().facts["memorisation"]
    told = lambda **facts: diversity_sections.copies_sentence(sheet(memorisation=dict(base, **facts)))
    assert "No copies." in told() and "5 of 5\u202f000 generated images are copies." in told(num_suspects=5, num_copies=5)
    assert "one of 500 training images" in told() and "one of 300 of 500 training images" in told(num_searched=300)
    assert "so do 7 of 500 training images" in told(num_suspects=5, num_twins=7) and "Not told." in told(num_asked=0)


def test_modes_in_ten_panels(run):
    counts = np.full(1000, 5)
    counts[123], counts[7] = 0, 12345
    found = sheet(
        modes=dict(
            confidence=0.95,
            real_confidence=0.99,
            modes=999,
            modes_5hits=999,
            kl=0.1,
            num_modes=1000,
            reference="uniform",
            floor_kl=0.09,
            floor_modes=993.2,
            outside=0.0,
        )
    )
    found.arrays.update(modes_counts=counts, modes_expected=np.full(1000, 5.0))
    read = run_folder.read_run(str(run))
    read.diversity = found
    body = diversity_sections.modes_section(read).body
    panels = body.split("<figure>")[1:]
    assert len(panels) == 10 and "1 missing" in panels[1] and all("0 missing" in panel for panel in panels[:1] + panels[2:])
    # Mode 123: the panel of red 1, row 2, column 3.
    assert f'<path class="cell m0" d="M{3 * diversity_sections.CELL + 1} {2 * diversity_sections.CELL + 1}h' in panels[1]
    assert ">12k</text>" in panels[0] and "999 of 1000 modes" in body and "about 993 " in body
    assert "show no digits" not in body
    found.facts["modes"]["confidence"] = 0.6
    assert "0.60 sure of the generated digits, 0.99 of real ones" in diversity_sections.modes_section(read).body
    read.diversity = None
    assert diversity_sections.modes_section(read) is None


def test_provenance_and_cost(run):
    facts = provenance.newest(str(run))
    with open(run / "stats.jsonl", "a") as file:
        file.write(
            json.dumps(
                {
                    "Progress/kimg": 2,
                    "Timing/MADR": dict(num=1, mean=37.25, std=0),
                    "Timing/MADR_share": dict(num=1, mean=0.1, std=0),
                    "Resources/MADR_mib": dict(num=1, mean=15.3, std=0),
                }
            )
            + "\n"
        )
    found = make_page(run, "--no-diversity")
    assert facts["data_fingerprint"] in found.texts and facts["torch"] in found.texts and facts["num_images"] == 140
    assert "MADR costs 37.25 ms per step, 10% of the time, and keeps 15.3 MiB" in found.text
    provenance.record(str(run), dict(facts, torch="9.9", version="7.6.5", commit="0a1b2c", code_changed=True))
    assert len(provenance.read(str(run))) == 2 and provenance.newest(str(run))["torch"] == "9.9"
    later = make_page(run, "--no-diversity")
    assert {"7.6.5", "0a1b2c", ", with changes"} <= set(later.texts)


def test_cost_from_the_log_of_an_older_run(run):
    (run / "log.txt").write_text("Training for 1 kimg...\nMADR: costs 37.3 ms per step, 10% of the time; keeps 15.3 MiB (memory 1.5)\n")
    assert "MADR costs 37.3 ms per step, 10% of the time; keeps 15.3 MiB (memory 1.5)." in make_page(run, "--no-diversity").text
