"""Studies as data: what is refused before anything runs, which rows are asked for, how long is left, and the studies that there are."""

import dataclasses
import shlex

import pytest

from dnnlib.errors import UserError
from experiments import commands, engines, one_run, pace, pages, study, study_data, study_page
from experiments.study import Bed, Judge, Mark, Measure, Row, Study
from metrics import metric_main

BED = Bed("ring", dict(train=()), (Judge(("--metrics=modes",)),), (Measure("modes", "modes", 1, True),), "modes")
FAKE = Study("fake", 1, "?", (BED,), {"plain": (), "ours": ("--madr=1",)}, "ours", seeds=(0, 1), kimg=2)


def test_rows_come_seed_by_seed_and_some_methods_have_more_seeds():
    more = dataclasses.replace(FAKE, more_seeds={"ours": (0, 1, 2)})
    assert [(row.method, row.seed) for row in more.rows()] == [("plain", 0), ("ours", 0), ("plain", 1), ("ours", 1), ("ours", 2)]
    fewer = dataclasses.replace(FAKE, beds=(dataclasses.replace(BED, without=("plain",)),))
    assert [(row.method, row.seed) for row in fewer.rows()] == [("ours", 0), ("ours", 1)]
    assert more.kimg_of(BED) == 2 and more.kimg_of(dataclasses.replace(BED, kimg=7)) == 7


def test_a_method_can_have_a_length_of_its_own(tmp_path):
    longer = dataclasses.replace(FAKE, lengths={"plain": 3})
    works = {row.method: one_run.Work(longer, row, str(tmp_path)) for row in longer.rows()}
    assert (works["plain"].kimg, works["ours"].kimg) == (3, 2) and longer.kimg_of(BED) == 2
    made = one_run.store(longer, BED, tmp_path, {}).facts["methods"]
    assert made == {"plain": {"flags": [], "kimg": 3}, "ours": {"flags": ["--madr=1"]}}
    assert "| plain | `--kimg=3` |" in study_page.rows_part(longer) and "At equal steps" not in study_page.rows_part(longer)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(name="a b"), "names a study 'a b'"),
        (dict(methods={"../x": ()}, ours="../x"), "names a method '../x'"),
        (dict(beds=(BED, BED)), "beds with names of their own"),
        (dict(ours="other"), "names other in `ours`"),
        (dict(more_seeds={"other": (1,)}), "names other in"),
        (dict(lengths={"other": 1}), "names other in"),
        (dict(time="hours"), "states time='hours'"),
        (dict(beds=(dataclasses.replace(BED, primary="kl"),)), "has no measure 'kl'"),
        (dict(beds=(dataclasses.replace(BED, build=dict(eval=())),)), "builds no part 'train'"),
        (dict(beds=(dataclasses.replace(BED, script="experiments.x"),)), "not both"),
        (dict(beds=(dataclasses.replace(BED, judges=()),)), "needs judges, or a script"),
        (dict(beds=(dataclasses.replace(BED, without=("other",)),)), "is without other, which is none"),
        (dict(marks=(Mark("ring", "ours", "kl", "at least", bound=1),)), "names a bed, method or measure"),
        (dict(marks=(Mark("ring", "ours", "modes", "better", bound=1),)), "neither a bound"),
        (dict(marks=(Mark("ring", "ours", "modes", "at least"),)), "neither a bound"),
    ],
)
def test_rows_that_could_not_be_run_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(FAKE, **changes)


def test_only():
    assert study.parse_only("method=plain,ours,seed=0-2,5") == dict(method={"plain", "ours"}, seed={0, 1, 2, 5})
    assert study.parse_only("method=plain,method=ours") == dict(method={"plain", "ours"}) and study.parse_only(None) == {}
    assert study.chosen_rows(FAKE, "method=ours,seed=1") == [Row("ring", "ours", 1)]
    for text, words in [
        ("plain", "'plain' belongs to nothing"),
        ("seed=x", "'x' is no seed"),
        ("method=other", "has no method other; it has ours, plain"),
        ("seed=7", "has no seed 7; it has 0, 1"),
    ]:
        with pytest.raises(UserError, match=words):
            study.chosen_rows(FAKE, text)


def test_a_study_is_found_by_name_or_file(tmp_path):
    assert {"backbone", "cifar10", "cifar10-lt", "celeba-hq-64"} <= set(study.names())
    for given, words in [("nosuch", "There is no study 'nosuch'; there are backbone"), (str(tmp_path / "no.py"), "There is no file")]:
        with pytest.raises(UserError, match=words):
            study.load(given)
    for text, words in [("STUDY = 3", "defines no STUDY"), ("import nosuchmodule", "cannot be read as a study"), ("x = (", "cannot be read")]:
        (tmp_path / "x.py").write_text(text)
        with pytest.raises(UserError, match=words):
            study.load(str(tmp_path / "x.py"))


@pytest.mark.parametrize("name", study.names())
def test_the_studies_here_ask_for_what_their_judges_give(name):
    loaded = study.load(name)
    assert loaded.name == name
    for bed in loaded.beds:
        metrics = {}
        assert not bed.script or (commands.REPO / (bed.script.replace(".", "/") + ".py")).is_file()
        for judge in bed.judges:
            [asked] = [flag.removeprefix("--metrics=") for flag in judge.flags if flag.startswith("--metrics=")]
            metric_main.check_names(asked.split(","))
            metrics.update({judge.prefix + metric: metric for metric in asked.split(",")})
        for measure in bed.measures:
            assert bed.script or any(measure.name == known or measure.name.startswith(known + "_") for known in metrics), measure


@pytest.mark.parametrize("name", [name for name in study.names() if (commands.REPO / "docs" / "studies" / f"{name}.md").exists()])
def test_the_pages_here_tell_of_the_studies_as_they_are(name):
    """Rows and marks, at least: python -m experiments.report writes them."""
    loaded, page = study.load(name), commands.REPO / "docs" / "studies" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    assert pages.replaced(text, f"{name}-rows", study_page.rows_part(loaded)) == text
    for mark in loaded.marks:
        assert f"| {mark.bed} | {mark.method} | {loaded.bed(mark.bed).measure(mark.measure).heading} | {mark.kind} " in text


# ----------------------------------------------------------------------------------------------------------------
# Flags with files in them.


def test_files_are_put_into_flags(tmp_path):
    needing = dataclasses.replace(FAKE, files=dict(photos="folder of photographs", mnist="MNIST's files"))
    known = dict(photos="/data/p", train="/out/train.zip")
    assert study_data.filled(needing, ["--source={photos}", "--x={mnist?}", "--data={train}", "--y"], known) == [
        "--source=/data/p",
        "--data=/out/train.zip",
        "--y",
    ]
    with pytest.raises(UserError, match=r"needs photos \(folder of photographs\) for --source=\{photos\}; give it as --file photos=PATH"):
        study_data.filled(needing, ["--source={photos}"], {})
    with pytest.raises(UserError, match="reads photos, mnist; correct the name"):
        study_data.check_files(needing, dict(photo="x"))
    with pytest.raises(UserError, match="there is nothing at that path"):
        study_data.check_files(needing, dict(photos=str(tmp_path / "x")))


def test_commands_are_what_a_user_would_type():
    work = one_run.Work(FAKE, Row("ring", "ours", 1), "out")
    assert one_run.train_command(work, resumes=True)[2:] == shlex.split(
        "--outdir=out/fake/ring/ours/seed-1 --data=out/fake/ring/data/train.zip --madr=1 --kimg=2 --seed=1 --resume=latest"
    )
    judge = one_run.judge_command(work, BED.judges[0], "net.pkl")
    assert judge[1].endswith("calc_metrics.py") and judge[2:] == ["--network=net.pkl", "--metrics=modes", "--verbose=0", "--quiet"]


# ----------------------------------------------------------------------------------------------------------------
# Time left.

A, B = Row("ring", "plain", 0), Row("ring", "ours", 0)


def test_time_of_a_run_is_that_of_the_most_alike():
    finished = {Row("ring", "plain", 1): 10.0, Row("ring", "plain", 2): 20.0, Row("ring", "ours", 1): 60.0, Row("grid", "plain", 1): 90.0}
    assert pace.expected_seconds(A, finished) == 15  # its bed and method
    assert pace.expected_seconds(Row("ring", "new", 0), finished) == 30  # its bed
    assert pace.expected_seconds(Row("digits", "new", 0), finished) == 45  # all
    assert pace.expected_seconds(A, {}) is None


def test_time_left_by_hand():
    finished = {Row("ring", "plain", 1): 10.0, Row("ring", "ours", 1): 40.0}
    assert pace.seconds_left([A], {}, {}, jobs=2) is None
    assert pace.seconds_left([A, B], {}, finished, jobs=1) == 50
    assert pace.seconds_left([A, B], {}, finished, jobs=2) == 40
    # One place has 3/4 of 40 s before it, the other is free: the three of 10 s fit there in the meantime.
    waiting = [A, Row("ring", "plain", 2), Row("ring", "plain", 3)]
    assert pace.seconds_left(waiting, {B: 0.25}, finished, jobs=2) == 30
    assert pace.seconds_left([], {B: 1.2}, finished, jobs=2) == 0  # it trains no longer, but is judged yet


def test_the_board_tells_in_a_log_what_is_left(capsys):
    board = pace.Board([A, B], {Row("ring", "plain", 1): 10.0}, total=3, jobs=1, share=lambda row: 0.5)
    board.begin(A)
    board.end(A, "finished", "modes 8.0", 30.0, is_done=True)
    board.begin(B)
    board.end(B, "failed", "no space")
    assert capsys.readouterr().err.splitlines() == [
        "ring, plain, seed 0: begun",
        "ring, plain, seed 0: finished (modes 8.0); 2 of 3 runs done, about 20s left",
        "ring, ours, seed 0: begun",
        "ring, ours, seed 0: failed (no space); 2 of 3 runs done",
    ]


def test_the_script_for_slurm():
    script = engines.slurm_script("cifar10", "cifar10", "/shared/my runs", 12, 4, 8, ["--file=cifar10=/data/c.tar.gz", "--only=seed=0"])
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash" and "#SBATCH --array=0-11%4" in lines and "#SBATCH --cpus-per-task=8" in lines
    assert lines[-1] == (
        "exec python -m experiments.run cifar10 '--outdir=/shared/my runs' --jobs=1 --file=cifar10=/data/c.tar.gz --only=seed=0 --index=$SLURM_ARRAY_TASK_ID"
    )
    assert sum(line.startswith("#SBATCH") for line in lines) == 5
