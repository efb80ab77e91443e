"""experiments.run and experiments.report on a study whose programs are scripts of a few lines: runs, stops, goes on, refuses, tells."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dnnlib import cli
from experiments import one_run, records, report, run, study
from tests.experiments import study_stubs


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Path of a study of a bed, three methods and two seeds; runs go to `out` in the working folder."""
    monkeypatch.chdir(tmp_path)
    return study_stubs.write_study(tmp_path)


def run_study(fake, *more):
    return cli.call(run.main, [fake, "--outdir=out", *more])


def calls(method, seed):
    path = Path("out", "fake", "ring", method, f"seed-{seed}", "calls.txt")
    return path.read_text().splitlines() if path.exists() else []


def results():
    return records.load(Path("out", "fake", "ring", "results.json"))[1]


def test_two_jobs_do_all_runs_once_and_share_the_cores(fake, monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(6)), raising=False)
    assert run_study(fake, "--jobs=2") == 0
    told = capsys.readouterr()
    assert "6 of 6 runs of the study fake are done." in told.out and told.err.count("finished (modes") == 6
    # modes = 10 * strength + seed + kimg, of the last of three snapshots; all of them are in the curve
    entry = results()["strong"][1]
    assert entry["modes"] == 24 and entry["kimg"] == 3 and [point["modes"] for point in entry["curve"]] == [22, 23, 24]
    assert entry["seconds"] == 6 and entry["curve"][0]["seconds"] == 2 and entry["threads"] == 3
    assert entry["curve"][0]["cpu_seconds"] == pytest.approx(entry["cpu_seconds"] / 3) and entry["cpu_seconds"] > 0
    [call] = calls("strong", 1)
    assert call.endswith("--strength=2 --kimg=3 --seed=1 threads=3") and "--resume" not in call
    assert run_study(fake, "--jobs=2") == 0 and len(calls("strong", 1)) == 1  # nothing twice
    assert "6 of 6 runs of the study fake are done." in capsys.readouterr().out


def test_only_some_then_by_index_then_the_rest(fake, capsys):
    assert run_study(fake, "--only=method=plain,seed=1") == 0 and set(results()) == {"plain"} and list(results()["plain"]) == [1]
    assert run_study(fake, "--index=1") == 0 and list(results()["strong"]) == [0]
    assert run_study(fake, "--index=6") == 1 and "has 6 runs here, numbered from 0" in capsys.readouterr().err
    assert run_study(fake) == 0 and {method: list(entries) for method, entries in results().items()} == dict.fromkeys(
        ("plain", "strong", "weak"), [0, 1]
    )


def test_a_dry_run_prints_the_commands_and_does_nothing(fake, capsys):
    assert run_study(fake, "--dry-run", "--only=method=strong,seed=0") == 0
    build, train, judge = capsys.readouterr().out.splitlines()
    assert build.endswith("build_stub.py --content=ring --dest=out/fake/ring/data/train.zip")
    assert train.endswith("train_stub.py --outdir=out/fake/ring/strong/seed-0 --data=out/fake/ring/data/train.zip --strength=2 --kimg=3 --seed=0")
    assert judge.endswith("judge_stub.py --network=SNAPSHOT --metrics=modes --verbose=0 --quiet")
    assert not os.path.exists("out")


def test_prepare_builds_the_data_alone(fake, capsys):
    assert run_study(fake, "--prepare") == 0 and "the data sets are there" in capsys.readouterr().out
    assert Path("out/fake/ring/data/train.zip").read_text() == "ring" and not os.path.exists("out/fake/ring/plain")


def test_a_failed_run_is_told_with_its_log_and_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fake = study_stubs.write_study(tmp_path, flags=["--fail=1"])
    assert run_study(fake, "--only=method=plain,weak") == 1
    told = capsys.readouterr()
    assert "Error: 2 runs failed:" in told.err and "2 of 4 runs of the study fake are done." in told.out
    assert "ring, weak, seed 1: training ended with code 1: the weights are not finite; lower --glr." in told.err
    assert f"({Path('out/fake/ring/weak/seed-1/log.txt')})" in told.err
    assert list(results()["plain"]) == [0] == list(results()["weak"])


def test_judging_that_failed_is_made_up_for_without_training_again(fake, tmp_path, capsys):
    judge = tmp_path / "judge_stub.py"
    text = judge.read_text()
    judge.write_text("raise SystemExit('Error: no such metric')")
    assert run_study(fake, "--index=0") == 1 and "judging network-snapshot-000001.pkl ended with code 1: no such metric" in capsys.readouterr().err
    judge.write_text(text)
    assert run_study(fake, "--index=0") == 0 and results()["plain"][0]["modes"] == 3 and len(calls("plain", 0)) == 1


def test_a_script_that_judges_by_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    Path("points.py").write_text(
        "import json, sys\n"
        "flags = dict(word.lstrip('-').split('=', 1) for word in sys.argv[1:])\n"
        "modes = int(flags['modes']) + int(flags['seed'])\n"
        "json.dump(dict(modes=modes, kimg=2, seconds=1.5, cpu_seconds=1.0), open(flags['outdir'] + '/result.json', 'w'))\n"
    )
    Path("toy.py").write_text(
        "from experiments.study import Bed, Measure, Study\n"
        'BED = Bed("ring", {}, (), (Measure("modes", "modes", 1, True),), "modes", script="points")\n'
        'STUDY = Study("toy", 1, "?", (BED,), {"plain": ("--modes=3",), "ours": ("--modes=7",)}, "ours", (0, 1), 2)\n'
    )
    assert cli.call(run.main, ["toy.py", "--outdir=out"]) == 0, capsys.readouterr().err
    runs = records.load(Path("out/toy/ring/results.json"))[1]
    assert {method: [entry["modes"] for entry in entries.values()] for method, entries in runs.items()} == dict(plain=[3, 4], ours=[7, 8])
    assert cli.call(report.main, ["toy.py", "--outdir=out", "--page=page.md"]) == 0
    assert "| plain | +4.0 ± 0.0 better |" in Path("page.md").read_text() and "| its own | `points` |  |" in Path("page.md").read_text()
    Path("points.py").write_text("")
    assert cli.call(run.main, ["toy.py", "--outdir=other", "--index=0"]) == 1 and "points ended without result.json" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------------
# Stopping.


@contextlib.contextmanager
def started(fake, repo, *more):
    """The study in a process group of its own, as under a terminal, once its first run has begun to train."""
    command = [sys.executable, "-m", "experiments.run", fake, f"--outdir={os.path.abspath('out')}", *more]
    process = subprocess.Popen(command, cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not Path("out/fake/ring/plain/seed-0/00000-stub/training-state-000001.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path, monkeypatch, repo):
    monkeypatch.chdir(tmp_path)
    fake = study_stubs.write_study(tmp_path, flags=["--pause=0.4"])
    with started(fake, repo, "--jobs=2", "--only=method=plain,strong,seed=0") as process:
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and said.count(": stopped;") == 2 and "Exit code 75." in said
    assert not os.path.exists("out/fake/ring/results.json")
    assert run_study(fake, "--only=method=plain,strong,seed=0") == 0
    for method in ("plain", "strong"):
        first, second = calls(method, 0)
        assert "--resume=latest" not in first and second.endswith("--resume=latest threads=" + second[-1])
        stats = Path("out", "fake", "ring", method, "seed-0", "00000-stub", "stats.jsonl").read_text().splitlines()
        assert [json.loads(line)["Progress/kimg"]["mean"] for line in stats] == [1, 2, 3]  # no step was lost or done twice
        parts = json.loads(Path("out", "fake", "ring", method, "seed-0", "parts.json").read_text())
        trained = [part["cpu_seconds"] for part in parts if part["what"] == "training"]
        assert len(trained) == 2 and results()[method][0]["cpu_seconds"] == pytest.approx(sum(trained))


@pytest.mark.slow
def test_a_killed_study_leaves_its_run_to_nobody_else(tmp_path, monkeypatch, repo, capsys):
    monkeypatch.chdir(tmp_path)
    fake = study_stubs.write_study(tmp_path, flags=["--pause=0.8"])
    with started(fake, repo, "--index=0") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert run_study(fake, "--index=0") == 0 and "another process is at it" in capsys.readouterr().err and len(calls("plain", 0)) == 1
    deadline = time.monotonic() + 60
    while run_study(fake, "--index=0") == 0 and not os.path.exists("out/fake/ring/results.json"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert results()["plain"][0]["modes"] == 3 and results()["plain"][0]["cpu_seconds"] is None  # nobody saw the first part end


# ----------------------------------------------------------------------------------------------------------------
# Folders of other runs.


def test_another_version_is_refused(fake, tmp_path, capsys):
    assert run_study(fake, "--index=0") == 0
    study_stubs.write_study(tmp_path, version=2)
    assert run_study(fake) == 1 and "holds runs of version 1 of the study fake, and this is version 2" in capsys.readouterr().err
    assert cli.call(report.main, [fake, "--outdir=out", "--page=page.md"]) == 1 and "version 1" in capsys.readouterr().err


def test_runs_of_other_options_are_refused(fake, tmp_path, capsys):
    assert run_study(fake, "--index=0") == 0
    study_stubs.write_study(tmp_path, flags=["--pause=0"])
    assert run_study(fake) == 1 and "was written under other settings (flags)" in capsys.readouterr().err
    os.remove("out/fake/ring/results.json")
    assert run_study(fake) == 1
    assert "holds a run of other options than the study fake gives to ring, plain, seed 0: flags was , now --pause=0" in capsys.readouterr().err
    assert len(calls("plain", 0)) == 1


def test_data_built_otherwise_are_refused(fake, tmp_path, capsys):
    assert run_study(fake, "--prepare") == 0
    path = Path(fake)
    path.write_text(path.read_text().replace("--content=ring", "--content=grid"))
    assert run_study(fake) == 1 and "was built with --content=ring, the study fake now says --content=grid" in capsys.readouterr().err


def test_refusals_of_the_command_line(fake, capsys):
    for more, words in [(["--file", "x=y"], "the study fake reads no file"), (["--only=method=x"], "no method x"), (["--jobs=0"], "--jobs")]:
        assert run_study(fake, *more) != 0 and words in capsys.readouterr().err
    assert cli.call(run.main, ["nosuch", "--outdir=out"]) == 1 and "There is no study 'nosuch'" in capsys.readouterr().err
    assert run_study(fake, "--engine=slurm", "--index=1") == 1 and "leave one of them out" in capsys.readouterr().err
    assert not os.path.exists("out")


def test_slurm_prints_the_same_command(fake, capsys):
    assert run_study(fake, "--engine=slurm", "--only=seed=0", "--jobs=2") == 0
    printed = capsys.readouterr().out
    assert "--array=0-2%2" in printed and f"{fake} --outdir={os.path.abspath('out')} --jobs=1 --only=seed=0 --index=$SLURM" in printed
    assert not os.path.exists("out")


# ----------------------------------------------------------------------------------------------------------------
# Ray.


@pytest.mark.slow
def test_ray_does_the_same_on_two_workers(fake, repo):
    pytest.importorskip("ray", reason="ray is not installed: pip install ray==2.60.0 (the extra `ray`)")
    command = [sys.executable, "-m", "experiments.run", fake, f"--outdir={os.path.abspath('out')}", "--engine=ray", "--jobs=2", "--only=seed=0"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 runs of the study fake are done." in done.stdout and done.stderr.count("finished (modes") == 3
    assert {method: entries[0]["modes"] for method, entries in results().items()} == dict(plain=3, strong=23, weak=-7)
    assert not list(Path("out").rglob(".begun*")) and not list(Path("out").rglob(".stop*"))


def test_without_ray_the_remedy_is_said(fake, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_study(fake, "--engine=ray") == 1 and "pip install ray==" in capsys.readouterr().err and not os.path.exists("out")


# ----------------------------------------------------------------------------------------------------------------
# The page.


def test_the_page_of_a_study(fake, capsys):
    assert run_study(fake, "--only=method=plain,strong") == 0
    assert cli.call(report.main, [fake, "--outdir=out", "--page=page.md"]) == 0
    page = Path("page.md").read_text()
    assert "| plain | 2 | 3.5 ± 6.4 | " in page and "| plain | +20.0 ± 0.0 better | " in page
    assert "Without a result so far (method and seed): weak 0, weak 1." in page
    assert "| ring | strong | modes | at least 20.0 | 23.5 [17.1, 29.9] | met |" in page
    assert "| ring | weak | modes | better than `plain` |  | not run yet |" in page
    assert Path("fake-ring.png").read_bytes().startswith(b"\x89PNG")
    # What stands around the marks is the author's, what is between them is made anew; and the second time comes to the same.
    Path("page.md").write_text(page.replace("## ring", "## The ring, as I see it").replace("3.5 ± 6.4", "99"))
    assert cli.call(report.main, [fake, "--outdir=out", "--page=page.md"]) == 0
    assert Path("page.md").read_text() == page.replace("## ring", "## The ring, as I see it")
    Path("page.md").write_text("# Mine")
    assert cli.call(report.main, [fake, "--outdir=out", "--page=page.md"]) == 1 and "has no marks" in capsys.readouterr().err


def test_a_page_can_be_made_before_the_runs(fake, capsys):
    assert cli.call(report.main, [fake, "--page=page.md"]) == 0 and "Without results so far: ring." in capsys.readouterr().out
    page = Path("page.md").read_text()
    assert "| strong | `--strength=2` | 0, 1 |" in page and page.count("not run yet") == 2 and "Not run yet." in page
    os.mkdir("out")
    assert (
        cli.call(report.main, [fake, "--outdir=out", "--page=page.md"]) == 1
        and "no run of the study fake has finished there" in capsys.readouterr().err
    )


# ----------------------------------------------------------------------------------------------------------------
# The real programs.


@pytest.mark.slow
def test_a_real_run_of_a_few_steps(tmp_path, monkeypatch, tiny_zip, capsys):
    """Built by dataset_tool.py, trained by train.py and judged by calc_metrics.py, at 16 px."""
    monkeypatch.chdir(tmp_path)
    Path("real.py").write_text(
        "from experiments.study import Bed, Judge, Measure, Study\n"
        'BED = Bed("tiny", dict(train=("--source={pictures}",)), (Judge(("--metrics=madr_prdc", "--metric-space=random-conv", "--num-gen=20")),),\n'
        '    (Measure("madr_prdc_coverage", "coverage", 3, True),), "madr_prdc_coverage")\n'
        'FLAGS = ("--cfg=tiny", "--cbase=64", "--cmax=4", "--batch=32", "--aug=noaug", "--map-depth=1", "--snap-res=1080p", "--device=cpu")\n'
        'STUDY = Study("real", 1, "?", (BED,), {"plain": ()}, "plain", (0,), 1, FLAGS, files=dict(pictures="some"))\n'
    )
    given = ["--file", f"pictures={tiny_zip(num_images=24, resolution=16)}"]
    assert cli.call(run.main, ["real.py", "--outdir=out", "--jobs=2", *given]) == 0, capsys.readouterr().err
    facts, runs = records.load(Path("out/real/tiny/results.json"))
    entry = runs["plain"][0]
    assert 0 <= entry["madr_prdc_coverage"] <= 1 and entry["kimg"] == 1 and entry["options"] and entry["cpu_seconds"] > 0
    assert cli.call(run.main, ["real.py", "--outdir=out"]) == 0  # what is built and done needs no file any more
    work = one_run.Work(study.load("real.py"), study.Row("tiny", "plain", 0), "out")
    assert one_run.reached_kimg(work) >= 1 and facts["flags"][0] == "--cfg=tiny"
