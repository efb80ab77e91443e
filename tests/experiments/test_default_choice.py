"""The rule by which the default is chosen, on numbers whose answer is known."""

import pytest

from experiments import default_choice, moments

TILT, PLAIN_MOMENTS = default_choice.CANDIDATES


def load_with(gains):
    """runs of every bed: the former default and the witness have 10 on each seed; a candidate is better by gains[candidate][bed file] (0: level)."""

    def load(file):
        [mark] = [mark for mark in default_choice.MARKS if mark.bed.file == file]
        runs = {"witness": 10.0, default_choice.FORMER: 10.0}
        for candidate, of_beds in gains.items():
            if file in of_beds:
                runs[candidate] = 10.0 + (1 if mark.higher_is_better else -1) * of_beds[file]
        return {method: {seed: {mark.measure: value + 0.1 * (seed % 2)} for seed in range(mark.bed.seeds)} for method, value in runs.items()}

    return load


FILES = [mark.bed.file for mark in default_choice.MARKS]
LEVEL = dict.fromkeys(FILES, 0.0)
GOOD = {**LEVEL, moments.DIGITS.file: 1.0, moments.GRID.file: 1.0, moments.WEAK14.file: 1.0}


@pytest.mark.parametrize(
    "gains, default",
    [
        ({TILT: GOOD, PLAIN_MOMENTS: GOOD}, TILT),
        ({TILT: {**GOOD, moments.RING.file: -1.0}, PLAIN_MOMENTS: GOOD}, PLAIN_MOMENTS),  # worse on one bed
        ({TILT: {**GOOD, moments.GRID.file: 0.0}, PLAIN_MOMENTS: GOOD}, PLAIN_MOMENTS),  # better on two beds alone
        (
            {TILT: {**GOOD, moments.DIGITS.file: 0.0, moments.RING.file: 1.0}, PLAIN_MOMENTS: LEVEL},
            default_choice.FORMER,
        ),  # Stacked Digits not among them
        ({TILT: LEVEL, PLAIN_MOMENTS: LEVEL}, default_choice.FORMER),
    ],
)
def test_the_rule(gains, default):
    assert f"`{default}`" in default_choice.conclusion(default_choice.rows(load_with(gains)))


def test_an_open_bed_leaves_it_open_unless_another_has_decided():
    without_emoji = {file: gain for file, gain in GOOD.items() if file != moments.EMOJI.file}
    assert "Not decided" in default_choice.conclusion(default_choice.rows(load_with({TILT: without_emoji, PLAIN_MOMENTS: GOOD})))
    failed = {**without_emoji, moments.RING.file: -1.0}
    assert PLAIN_MOMENTS in default_choice.conclusion(default_choice.rows(load_with({TILT: failed, PLAIN_MOMENTS: GOOD})))
