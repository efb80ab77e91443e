"""toy_2d.py: layouts, counting, and one short run of the real plugin on points."""

import importlib.util

import numpy as np
import pytest
from click.testing import CliRunner


@pytest.fixture
def toy_2d(repo):
    from experiments import toy_2d

    return toy_2d


def command(repo):
    """The command of the script at the top, which shares its name with the module that does its work."""
    spec = importlib.util.spec_from_file_location("toy_2d_command", repo / "toy_2d.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_layouts_have_their_modes(toy_2d):
    for layout, count in [("ring", 8), ("grid", 25), ("imbalanced", 8)]:
        centres, masses, _ = toy_2d.mode_layout(layout)
        assert len(np.unique(centres.round(6), axis=0)) == len(masses) == count and masses.sum() == pytest.approx(1)


def test_counting(toy_2d):
    real = toy_2d.PointSet("ring", count=4000).points
    counted = toy_2d.measure(real, "ring")
    assert counted["modes"] == 8 and counted["quality"] > 0.98 and counted["kl"] < 0.01
    collapsed = toy_2d.measure(np.tile(real[:1], [1000, 1]), "ring")
    assert collapsed["modes"] == 1 and collapsed["kl"] == pytest.approx(np.log(8), abs=1e-6)
    off = toy_2d.measure(real * 1.5, "ring")
    assert off["quality"] == 0 and off["modes"] == off["hit"] == 0


def test_cycling_index(toy_2d):
    shares = [np.eye(8)[step % 8] for step in range(32)]
    history = [dict(modes=1, hit=1, quality=1.0, kl=2.0, shares=share) for share in shares]
    assert toy_2d.summary(history)["cycling"] == pytest.approx(1 - 1 / 8)
    steady = [dict(modes=8, hit=8, quality=1.0, kl=0.0, shares=np.full(8, 1 / 8))] * 32
    assert toy_2d.summary(steady)["cycling"] == 0


def test_a_short_run_writes_table_and_picture(toy_2d, tmp_path, repo):
    result = CliRunner().invoke(command(repo), ["--methods=plain,default", "--steps=40", f"--outdir={tmp_path}"])
    assert result.exit_code == 0, result.output
    assert "| default |" in result.output and (tmp_path / "ring.json").stat().st_size > 100 and (tmp_path / "ring.png").stat().st_size > 1000


def test_a_study_grows_by_methods_and_seeds_without_repeating_a_run(toy_2d, tmp_path, monkeypatch, repo):
    trained = []

    def instead(method, layout, seed, steps):
        trained.append((method, seed))
        return dict(modes=1.0 + seed, hit=2.0, quality=0.5, kl=0.1, cycling=0.0, seconds=1.0, samples=np.full([10, 2], 0.5))

    monkeypatch.setattr(toy_2d, "train", instead)
    for flags in (
        ["--methods=plain", "--seeds=2"],
        ["--methods=plain,witness+moments", "--seeds=2"],
        ["--methods=plain", "--seeds=1", "--first-seed=7"],
    ):
        result = CliRunner().invoke(command(repo), [*flags, "--steps=40", f"--outdir={tmp_path / 'new'}"])
        assert result.exit_code == 0, result.output
    assert trained == [("plain", 0), ("plain", 1), ("witness+moments", 0), ("witness+moments", 1), ("plain", 7)]
    assert "| witness+moments | 1.5 ± 6.4 |" in result.output
    assert set(toy_2d.samples_of(tmp_path / "new" / "ring.npz")) == {"plain", "witness+moments"}
    (tmp_path / "new" / "ring.npz").unlink()  # as with a file from elsewhere: the points are made again, the numbers stay
    numbers = (tmp_path / "new" / "ring.json").read_bytes()
    CliRunner().invoke(command(repo), ["--methods=plain", "--steps=40", f"--outdir={tmp_path / 'new'}"])
    assert set(toy_2d.samples_of(tmp_path / "new" / "ring.npz")) == {"plain"} and (tmp_path / "new" / "ring.json").read_bytes() == numbers


@pytest.mark.parametrize("method", ["witness+moments", "witness+batch-moments"])
def test_moments_act_on_points(toy_2d, method):
    assert toy_2d.train(method, "ring", 0, 20)["samples"].std() > 0


@pytest.mark.slow
def test_the_default_holds_the_ring_where_the_plain_gan_cycles(toy_2d):
    plain, default = toy_2d.train("plain", "ring", 0, 2500), toy_2d.train("default", "ring", 0, 2500)
    assert plain["modes"] < 2 and plain["cycling"] > 0.5
    assert default["modes"] > 7.8 and default["cycling"] < 0.05 and default["quality"] > 0.6
