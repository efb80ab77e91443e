"""The front page says what the result files say, and its picture says what was counted."""

import importlib.util
import json

import numpy as np
import PIL.Image
import pytest

from dnnlib.errors import UserError


def script(repo, name):
    spec = importlib.util.spec_from_file_location(f"front_{name}", repo / "docs" / "front" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(repo):
    return script(repo, "table")


@pytest.fixture
def make(repo):
    return script(repo, "make")


# ----------------------------------------------------------------------------------------------------------------
# The table.


def test_readme_and_results_page_hold_what_the_script_gives(repo, table):
    readme = (repo / "README.md").read_text(encoding="utf-8")
    assert table.filled(readme) == readme, "README.md is behind experiments/results/; run python docs/front/table.py"
    assert (repo / "docs" / "front" / "results.md").read_text(encoding="utf-8") == table.text()


def test_readme_without_marks_is_refused(table):
    with pytest.raises(UserError, match="put them back"):
        table.filled("no marks here")


def write_runs(folder, table, ours=(1.0, 2.0, 3.0), twin=((1.0, 1.0, 1.0), (3.0, 3.1, 3.2)), shorter=(3.0, 3.1, 3.2), **values):
    """A results folder with one file for all rows: numbers per seed of MADR, whose rows are the default's, and of others by name.

    twin: the moments without memory, where a step sees few images and where it sees many; with memory: 2.0 to 2.2; shorter: with a shorter one."""
    numbers = {"witness": (1.0, 2.0, 3.0), "plain": (1.0, 2.0, 3.0), **values, table.DEFAULT: ours}
    entries = [
        dict(method=method, seed=seed, date="2026-11-28", **{bed.measure: value for bed in table.BEDS})
        for method, of_seeds in numbers.items()
        for seed, value in enumerate(of_seeds)
    ]
    for bed in (*table.BEDS, table.MODES_OF_64):
        path = folder / bed.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with_twin = [
            dict(method=method, seed=seed, date="2026-11-28", **{one.measure: value for one in table.BEDS})
            for method, of_seeds in {
                "witness+moments": (2.0, 2.1, 2.2),
                "horizon-0.2": shorter,
                "witness+batch-moments": twin[bed.file == table.MODES_OF_64.file],
            }.items()
            for seed, value in enumerate(of_seeds)
        ]
        path.write_text(json.dumps(dict(facts=dict(methods={}), entries=[*entries, *with_twin])))


def test_differences_are_paired_by_seed_with_their_interval(tmp_path, monkeypatch, table):
    monkeypatch.setattr(table.records, "RESULTS", tmp_path)
    write_runs(tmp_path, table, plain=[1.0, 5.0, 9.0], ours=[0.9, 4.9, 8.9], witness=[0.0, 6.0, 8.8])
    rows = [table.row(bed) for bed in table.BEDS]
    # Each seed is lower by 0.1 although the seeds differ by 4.
    assert (
        rows[0]
        == "| Ring of 8 Gaussians | modes held, of 8 | 5.0 ± 9.9 | 4.9 ± 11.2 | 4.9 ± 9.9 | -0.1 [-0.1, -0.1] worse | -0.0 [-2.5, +2.5] open | 3 |"
    )
    assert "-0.1 [-0.1, -0.1] better" in rows[2]  # a distance: less is better


def test_what_was_not_run_is_told(table):
    assert table.told(None, table.BEDS[0]) == "not run" == table.mean({"plain": {}}, table.DEFAULT, table.BEDS[0])
    assert table.difference({"a": {0: dict(modes=1)}, "b": {0: dict(modes=2)}}, "a", "b", table.BEDS[0]) is None


def test_the_sentence_on_what_does_not_work_is_refused_once_it_is_untrue(tmp_path, monkeypatch, table):
    monkeypatch.setattr(table.records, "RESULTS", tmp_path)
    write_runs(tmp_path, table, plain=[0.3, 0.1, 0.2], ours=[0.2, 0.4, 0.3], witness=[0.2, 0.4, 0.3])
    assert "of their share MADR makes" in table.not_yet()
    (tmp_path / table.LONG_TAIL.file).unlink()
    assert "was not run" in table.not_yet() and "| not run |" in table.row(table.LONG_TAIL)
    write_runs(tmp_path, table, plain=[0.3, 0.1, 0.2], ours=[0.6, 0.7, 0.65], witness=[0.6, 0.7, 0.65])
    with pytest.raises(UserError, match="write it anew in table.py"):
        table.not_yet()


def test_the_sentence_on_what_memory_adds_is_refused_once_it_is_untrue(tmp_path, monkeypatch, table):
    monkeypatch.setattr(table.records, "RESULTS", tmp_path)
    write_runs(tmp_path, table)
    assert "16 images: +1 [+1, +1] better;" in table.what_memory_adds() and "sees 64: -1 [-1, -1] worse;" in table.what_memory_adds()
    for twin in (((3.0, 3.0, 3.0), (3.0, 3.1, 3.2)), ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))):
        write_runs(tmp_path, table, twin=twin)
        with pytest.raises(UserError, match="write it anew in table.py"):
            table.what_memory_adds()
    write_runs(tmp_path, table, shorter=(1.0, 1.1, 1.2))
    with pytest.raises(UserError, match="write it anew in table.py"):
        table.what_memory_adds()


# ----------------------------------------------------------------------------------------------------------------
# The picture.


def test_the_picture_comes_with_its_figures_and_commands(repo, make):
    told = json.loads((repo / "docs" / "front" / "front.json").read_text(encoding="utf-8"))
    assert set(told["ring"]) == set(told["digits"]) == set(make.METHODS) and told["machine"] and told["date"]
    assert all((repo / command.split()[1]).is_file() for command in told["commands"]) and {"--madr=0", "--madr=1"} <= set(
        " ".join(told["commands"]).split()
    )
    with PIL.Image.open(repo / "docs" / "front" / "front.png") as image:
        assert image.width == 1800 and image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_picture_is_drawn_from_counted_points_and_images(tmp_path, make):
    points = make.toy_2d.PointSet("ring", count=500).points
    ring = {"plain": make.ring_figures(np.full([500, 2], [2.0, 0.0])), "default": make.ring_figures(points)}
    assert (ring["plain"]["modes_hit"], ring["default"]["modes_hit"], ring["plain"]["near_a_mode"]) == (1, 8, 1.0)
    for seed in range(make.COLUMNS * make.ROWS):
        PIL.Image.new("RGB", (32, 32), (seed, 0, 0)).save(tmp_path / f"seed{seed:04d}.png")
    PIL.Image.new("RGB", (512, 32), "blue").save(tmp_path / "reals.png")
    digits = {method: dict(modes=1.0, of=1000, images=10, kl=1.0, floor_kl=0.1, cpu_minutes=5.0) for method in make.METHODS}
    make.picture(
        {"plain": points, "default": points},
        dict(ring=ring, digits=digits),
        {method: tmp_path for method in make.METHODS},
        tmp_path,
        tmp_path / "front.png",
    )
    with PIL.Image.open(tmp_path / "front.png") as image:
        assert image.width == 1800


def test_what_is_there_is_not_made_again(tmp_path, monkeypatch, make):
    monkeypatch.setattr(make, "STEPS", 20)
    first = make.ring_run(tmp_path, "plain")
    kept = (tmp_path / "ring-plain.npz").stat().st_mtime_ns
    assert np.array_equal(make.ring_run(tmp_path, "plain"), first) and (tmp_path / "ring-plain.npz").stat().st_mtime_ns == kept
    monkeypatch.setattr(make, "STEPS", 21)
    assert not np.array_equal(make.ring_run(tmp_path, "plain"), first)
    commands = []
    make.once(commands, tmp_path, True, "no_such_script.py", f"--dest={tmp_path}/x")
    assert commands == ["python no_such_script.py --dest=out/front/x"]
    with pytest.raises(UserError, match="no_such_script.py --seed=0 failed"):
        make.once(commands, tmp_path, False, "no_such_script.py", "--seed=0")
