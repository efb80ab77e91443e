"""python -m madr_plugin.check_sensor: what the count of cells sees of planted deficits, in spaces that tell everything and nothing."""

import io
import json
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

from madr_plugin import check_sensor, command, sensor_fitness
from madr_spaces.errors import MADRError


class Space(torch.nn.Module):
    """Features of a test: `of` the images."""

    images_to_fit, default_view = 0, "none"

    def __init__(self, of):
        super().__init__()
        self.of = of

    def forward(self, images):
        return self.of(images)

    def identity(self):
        return dict(name="test")


def pictures_of(counts, seed=0):
    """(images [N, 1, 4, 4] whose brightness is the class, with noise; classes)"""
    class_N = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn([len(class_N), 1, 4, 4], generator=torch.Generator().manual_seed(seed))
    return class_N.float()[:, None, None, None] + 0.03 * noise, class_N


def plan(**changes):
    return sensor_fitness.Plan(**{**dict(window=2000, num_cells=20, quantile=0.98, largest=5.0, unclear=0.0, repeats=2, seed=0), **changes})


def test_a_perfect_sensor_by_hand():
    """A tenth of the reals with weight 5, the rest with 1: .5 of 1.4 is drawn from it."""
    assert sensor_fitness.perfect_ratio(0.1, 5) == pytest.approx((0.5 / 1.4) / 0.1)
    assert sensor_fitness.perfect_ratio(0.3, 1) == 1
    assert sensor_fitness.window_for(0.004, 5) == 1250


def test_rare_groups_are_planted_and_split_in_halves():
    class_N = torch.repeat_interleave(torch.arange(4), torch.tensor([60, 30, 6, 3]))
    assert sensor_fitness.planted_groups(class_N) == [2]  # 3 images cannot be split, 30 are more than half the mean
    assert sensor_fitness.planted_groups(torch.tensor([0] * 9 + [2] * 8)) == [2, 0]  # none is rare: each in turn
    reals, fakes = sensor_fitness.halves(class_N, torch.Generator().manual_seed(0))
    assert sorted(torch.cat([reals, fakes]).tolist()) == list(range(99))
    assert torch.bincount(class_N[reals]).tolist() == [30, 15, 3, 2] and torch.bincount(class_N[fakes]).tolist() == [30, 15, 3, 1]
    with pytest.raises(MADRError, match="at least two groups"):
        sensor_fitness.planted_groups(torch.zeros([50], dtype=torch.int64))


def test_a_space_that_tells_the_groups_sees_what_is_left_out_and_rests_where_nothing_is():
    images, class_N = pictures_of([400, 300, 200, 60])
    found = sensor_fitness.measure(Space(lambda x: x.flatten(1)), images, class_N, plan())
    assert list(found["ratios"]) == [3] and found["shares"][3] == pytest.approx(30 / 480)
    assert found["ratios"][3] > 0.9 * sensor_fitness.perfect_ratio(found["shares"][3], 5.0)
    assert found["at_rest"][3] == pytest.approx(1, abs=0.35)


def test_a_blind_space_draws_as_the_reals_come():
    images, class_N = pictures_of([400, 300, 200, 60])
    blind = Space(lambda x: torch.randn([len(x), 3], generator=torch.Generator().manual_seed(int(1e6 * x.flatten()[0].abs()))))
    assert sensor_fitness.measure(blind, images, class_N, plan())["ratios"][3] == pytest.approx(1, abs=0.25)


def test_unclear_images_that_fall_on_a_rare_group_hide_that_it_is_left_out():
    """The rare group is as bright as the mean of the two others: blends lie on it."""
    images, class_N = pictures_of([300, 60, 300])
    space = Space(lambda x: x.flatten(1))
    clear, unclear = (sensor_fitness.measure(space, images, class_N, plan(unclear=share))["ratios"][1] for share in (0.0, 0.5))
    assert clear > 3.3 and unclear < 1.2


def test_the_fine_sensor_is_not_deceived_by_unclear_images_and_has_a_window_of_its_own():
    """Blends lie apart from every real, but within the gate of a wide cell: the mean of the two others is 1, the rare group .8."""
    images, class_N = pictures_of([300, 60, 300])
    images[class_N == 1] -= 0.2
    space = Space(lambda x: x.flatten(1))
    coarse, fine = (
        sensor_fitness.measure(space, images, class_N, plan(unclear=0.5, num_cells=2, sensor=name, rarest=0.1)) for name in ("cells", "fine")
    )
    assert coarse["ratios"][1] < 1.3 and fine["ratios"][1] > 0.9 * sensor_fitness.perfect_ratio(fine["shares"][1], 5.0)
    assert (coarse["window"], coarse["num_cells"]) == (2000, 2) and fine["num_cells"] == 10 and fine["window"] == 3 * 5 * 10 / 0.9 // 1 + 1
    assert fine["at_rest"][1] == pytest.approx(1, abs=0.35) and 0 <= fine["moved"] < 0.2


def test_weights_of_one_are_blind():
    images, class_N = pictures_of([400, 300, 60])
    found = sensor_fitness.measure(Space(lambda x: x.flatten(1)), images, class_N, plan(largest=1.0))
    assert found["ratios"][2] == pytest.approx(1)


# ----------------------------------------------------------------------------
# The command.


def zip_of(path, counts, labelled=True):
    rng = np.random.default_rng(0)
    patterns, labels = rng.integers(0, 256, (len(counts), 4, 4, 3)), []
    with zipfile.ZipFile(path, "w") as archive:
        for number, count in enumerate(counts):
            for i in range(count):
                pixels = (patterns[number] + rng.integers(-20, 21, (4, 4, 3))).clip(0, 255).astype(np.uint8)
                buffer = io.BytesIO()
                PIL.Image.fromarray(pixels).resize([8, 8], PIL.Image.NEAREST).save(buffer, "PNG")
                archive.writestr(f"{number}-{i:03d}.png", buffer.getvalue())
                labels.append([f"{number}-{i:03d}.png", number])
        archive.writestr("dataset.json", json.dumps(dict(labels=labels if labelled else None)))
    return path


@pytest.mark.parametrize("labelled", [True, False])
def test_command_prints_each_planted_deficit(tmp_path, labelled):
    data = zip_of(tmp_path / "set.zip", (120, 90, 16), labelled)
    arguments = [f"--data={data}", "--madr-extractor=pca", "--madr-extractor=random", "--madr-cells=12", "--madr-deficit-window=64", "--repeats=2"]
    result = CliRunner().invoke(check_sensor.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "226 images" in result.output and ("each class left out" if labelled else "each group of alike images left out") in result.output
    assert all(f"| {name} | {sensor} | mean of " in result.output for name in ("pca", "random") for sensor in ("cells", "fine"))
    assert "where 1 is blind" in result.output and "cells: 12 cells, window of 64, fine: 5 cells, window of 84" in result.output
    if labelled:
        [row] = [line for line in result.output.splitlines() if line.startswith("| pca | cells | 2 |")]
        assert float(row.split("|")[5]) > 1.6 and "| 7.08% |" in row
        assert "--madr-deficit-window=71 would be needed" in result.output  # 5 / (8 of 113)


@pytest.mark.parametrize(
    "counts, arguments, words",
    [
        ((10, 8), [], "holds 18 images; the check needs at least 32"),
        ((90, 1), ["--madr-cells=10"], "two groups, one of them of 4 images or more and another of 2 or more .got 2 groups, the largest of 90 of 91"),
        ((40, 30), [], "35 reals .* are few for 102 cells; use --madr-cells=2 or more --images"),
    ],
)
def test_sets_that_are_too_small_are_sentences(tmp_path, capsys, monkeypatch, counts, arguments, words):
    monkeypatch.setattr("sys.argv", ["check_sensor", f"--data={zip_of(tmp_path / 'set.zip', counts)}", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.run(check_sensor.main)
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and error.startswith("Error: ")
    assert pytest.importorskip("re").search(words, error)
