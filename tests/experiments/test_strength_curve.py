"""The curve of strengths: ten points evenly over a run, a run that logged too few refused, the page's table from the file."""

import json

import pytest
from click.testing import CliRunner

from dnnlib.errors import UserError
from experiments import strength_curve


def logged(ticks):
    return [{"Progress/kimg": dict(mean=2.0 * tick), **{name: dict(mean=tick / 100) for name in strength_curve.MEASURES}} for tick in range(ticks)]


def test_ten_points_evenly_over_the_run_the_last_tick_among_them():
    curve = strength_curve.curve_of([{"Progress/kimg": dict(mean=0.0)}, *logged(50)])
    assert [point["kimg"] for point in curve] == [2.0 * tick for tick in (4, 9, 14, 19, 24, 29, 34, 39, 44, 49)]
    assert curve[-1]["MADR/lambda"] == 0.49


def test_a_run_without_moments_is_refused_with_what_is_missing():
    with pytest.raises(UserError, match="MADR/signal_moments.*10 are needed"):
        strength_curve.curve_of([{"Progress/kimg": dict(mean=0.0)}] * 50)


def test_the_table_comes_from_the_file_that_the_command_writes(tmp_path):
    (tmp_path / "stats.jsonl").write_text("\n".join(json.dumps(line) for line in logged(10)))
    (tmp_path / "training_options.json").write_text(json.dumps(dict(total_kimg=20, random_seed=3, loss_kwargs={})))
    out = tmp_path / "found.json"
    assert CliRunner().invoke(strength_curve.main, [str(tmp_path), f"--out={out}"]).exit_code == 0
    table = strength_curve.part(out)
    assert "| 18 | 0.1 | 0.09 | 0.09 | 0.090 | 0.09 |" in table and "20 kimg, seed 3." in table
