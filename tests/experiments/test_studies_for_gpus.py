"""The studies that wait for a GPU, on stand-in data of the formats that they name: data are built, every training is planned, every judge understood."""

import os

import numpy as np
import pytest

import calc_metrics
import dataset_tool
import train
from dnnlib import cli
from experiments import one_run, study, study_data
from tests.training.data_fixtures import png, write_cifar10, write_folder
from training.dataset import ImageFolderDataset

# Of each study: its file, and what is written there.
SOURCES = {
    "cifar10": ("cifar10", lambda path: write_cifar10(path / "cifar-10-python.tar.gz", per_batch=200) and path / "cifar-10-python.tar.gz"),
    "cifar10-lt": ("cifar10", lambda path: write_cifar10(path / "cifar-10-python.tar.gz", per_batch=200) and path / "cifar-10-python.tar.gz"),
    "celeba-hq-64": ("celeba-hq", lambda path: write_folder(path / "faces", {f"{i:05d}.png": png(i, size=96) for i in range(12)}) or path / "faces"),
}


def built(loaded, given, outdir):
    """{part: data set}, by the study's own commands."""
    [bed] = loaded.beds
    parts = {}
    for part, command in study_data.build_commands(loaded, bed, outdir, given).items():
        assert cli.call(dataset_tool.main, command[2:]) == 0
        parts[part] = ImageFolderDataset(str(study_data.parts_of(loaded, bed, outdir)[part]), use_labels=True)
    return parts


@pytest.mark.parametrize("name", SOURCES)
def test_it_is_ready_but_for_the_gpu(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    loaded, (source, write) = study.load(name), SOURCES[name]
    given = {source: str(write(tmp_path))}
    study_data.check_files(loaded, given)
    parts = built(loaded, given, "out")
    side = 64 if name == "celeba-hq-64" else 32
    assert all(part.image_shape == [3, side, side] for part in parts.values())
    if name == "cifar10-lt":
        counts = {part: np.bincount([int(data.get_details(index).raw_label) for index in range(len(data))]) for part, data in parts.items()}
        assert (
            counts["train"][0] >= 10 * counts["train"][1] * 0.9
            and counts["train"][2] == counts["train"][0] // 100
            and counts["balanced"].sum() == 600
        )
    plans = {}
    for row in study.chosen_rows(loaded, "seed=0"):
        work = one_run.Work(loaded, row, "out", given)
        assert cli.call(train.main, [*one_run.train_command(work)[2:], "--dry-run"]) == 0, capsys.readouterr().err
        plans[row.method] = capsys.readouterr().out
        for judge in work.bed.judges:
            calc_metrics.main.make_context(
                "calc_metrics", one_run.judge_command(work, judge, study_data.parts_of(loaded, work.bed, "out")["train"])[2:-1]
            )
    assert list(plans) == list(loaded.methods) and all(f"Training duration:  {loaded.kimg} kimg" in plan for plan in plans.values())
    assert '"madr"' not in plans["plain"] and '"madr"' in plans["default"]
    assert os.listdir("out") == [name]  # a dry run makes no run folder
