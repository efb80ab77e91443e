"""Scripts of forks started by `python -m madr_plugin`: whatever their command is called, with their own help, refused in time and in a sentence."""

import pytest

from madr_plugin import options
from tests.madr.fork_families import RELATIVISTIC, WITHOUT_PIPE
from tests.madr.stand_ins import FIRST_STYLE, SECOND_STYLE, edited

KNOBS = ["--madr=1", "--madr-deficit-window=32"]
METRICS = {
    "metrics/__init__.py": "",
    "metrics/metric_main.py": """
        known = {}
        def register_metric(function):
            known[function.__name__] = function
            return function
        def is_valid_metric(name):
            return name in known
        """,
    "calc_metrics.py": """
        import click
        from metrics import metric_main
        @click.command()
        @click.option("--metrics", default="madr_prdc_10k", help="Which.")
        def calc_metrics(metrics):
            'Calculate quality metrics.'
            print(metrics, metric_main.is_valid_metric(metrics))
        if __name__ == "__main__":
            calc_metrics()
        """,
    "at_once.py": """
        import sys
        from metrics import metric_main
        print(sys.argv[1:], metric_main.is_valid_metric("madr_prdc"), __name__)
        """,
    "parsed.py": """
        import argparse
        def evaluate():
            parser = argparse.ArgumentParser()
            parser.add_argument("--metrics")
            print("found", parser.parse_args().metrics)
        if "__main__" == __name__:
            evaluate()
        """,
}


def test_scripts_start_whatever_their_command_is_called(make_fork):
    fork, run = make_fork({**WITHOUT_PIPE, **METRICS})
    started = {name: run("-m", "madr_plugin", fork / name, "--metrics=madr_recall") for name in ("calc_metrics.py", "at_once.py", "parsed.py")}
    assert all(done.returncode == 0 for done in started.values()), [done.stderr for done in started.values()]
    assert [done.stdout.strip() for done in started.values()] == ["madr_recall True", "['--metrics=madr_recall'] True __main__", "found madr_recall"]
    (fork / "train_small.py").write_text((fork / "train.py").read_text())
    trained = run("-m", "madr_plugin", fork / "train_small.py", f"--outdir={fork}/out", "--steps=1", *KNOBS)
    assert trained.returncode == 0 and "loss is MADRLoss" in trained.stdout, trained.stdout + trained.stderr


def test_help_is_the_forks_own_with_a_line_on_madr(make_fork):
    fork, run = make_fork({**WITHOUT_PIPE, **METRICS})
    own = run(fork / "train.py", "--help").stdout
    assert own.startswith("Usage: train.py [OPTIONS]")
    for flags in ([], ["--madr=1"]):
        shown = run("-m", "madr_plugin", fork / "train.py", "--help", *flags)
        assert shown.returncode == 0 and shown.stdout == own + "\nMADR's own flags, which may stand beside these: python -m madr_plugin --madr-help\n"
    assert run("-m", "madr_plugin", fork / "parsed.py", "--help").stdout.startswith("usage: parsed.py")
    remedy = run("-m", "madr_plugin", "--madr-help")
    assert remedy.returncode == 0 and "--madr-tilt" in remedy.stdout and "torch" not in remedy.stderr
    assert run("-m", "madr_plugin", "--help").stdout == remedy.stdout
    mistyped = run("-m", "madr_plugin", "--gamma=3", fork / "train.py", "--madr=1")
    assert mistyped.returncode == 1 and "python -m madr_plugin train.py --gamma=3" in mistyped.stderr
    mistyped = run("-m", "madr_plugin", fork / "train.py", "--madr=1", "--madr-capcity=3")
    assert mistyped.returncode == 1 and "there is no --madr-capcity, perhaps --madr-capacity is meant" in mistyped.stderr


@pytest.mark.parametrize("script", ["def main():\n    print('trained')\n", "import torch\nprint('trained')\n"])
def test_scripts_of_other_kinds_are_refused_before_they_run(make_fork, script):
    fork, run = make_fork(
        {
            **FIRST_STYLE,
            "train.py": script,
            "alone/train.py": script,
            "broken.py": "def main(:\n",
            "late.py": script + "launch_training = 1\n",
            "own.py": "import madr_plugin\n" + script,
        }
    )
    for name, words in [
        ("train.py", "Call madr_plugin.install() at the top of the script instead"),
        ("alone/train.py", "no package dnnlib beside it"),
        ("broken.py", "is no Python script"),
        ("late.py", "at the top of the script instead"),
        ("own.py", "start it without `-m madr_plugin`: python own.py <its flags>"),
    ]:
        done = run("-m", "madr_plugin", fork / name, "--madr=1")
        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_the_remedy_for_a_script_without_a_seam_helps(make_fork):
    """As refusals say it: the one call at the top."""
    train = SECOND_STYLE["train.py"].replace("launch_training", "begin")
    fork, run = make_fork({**SECOND_STYLE, "train.py": train})
    assert "madr_plugin.install()" in run("-m", "madr_plugin", fork / "train.py", "--madr=1").stderr
    fork, run = make_fork({**SECOND_STYLE, "train.py": train}, install="import madr_plugin; madr_plugin.install()")
    done = run(fork / "train.py", f"--outdir={fork}")
    assert done.returncode == 0 and "loss is MADRLoss" in done.stdout, done.stderr


def test_the_home_folder_may_be_written_short(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = options.with_home(dict(weights="~/a.pth,b.pth", extractor="file:~/c.pt", width=None))
    assert given == dict(weights=f"{tmp_path}/a.pth,b.pth", extractor=f"file:{tmp_path}/c.pt", width=None)
    (tmp_path / "a.pth").touch()
    assert options.from_flags(dict(madr=1, madr_extractor="dino", madr_weights="~/a.pth")).weights == f"{tmp_path}/a.pth"


def test_a_loss_of_another_kind_is_refused_before_launch(make_fork):
    fork, run = make_fork(
        edited(
            SECOND_STYLE,
            training__loss=[
                ("def accumulate_gradients(self, phase, real_img, real_c, gen_z,", "def accumulate_gradients(self, stage, real_img, real_c, noise,")
            ],
        )
    )
    done = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}/out", *KNOBS)
    assert done.returncode == 1 and "no argument phase or gen_z in accumulate_gradients()" in done.stderr and "--madr=0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("gpus", [1, 2])
def test_missing_weights_are_said_once_before_anything_is_made(make_fork, gpus):
    fork, run = make_fork(RELATIVISTIC)
    done = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}/out", f"--gpus={gpus}", *KNOBS, "--madr-extractor=own")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--madr-extractor=own needs the file" in done.stderr
    assert not (fork / "out").exists()


def test_the_one_call_says_its_errors_in_a_sentence_too(make_fork):
    for number, (call, words) in enumerate(
        [("install(extractor='own')", "install(tilt=0)"), ("install(capcity=3)", "perhaps --madr-capacity is meant")]
    ):
        fork, run = make_fork(RELATIVISTIC, install=f"import madr_plugin; madr_plugin.{call}", folder=f"fork{number}")
        done = run(fork / "train.py", f"--outdir={fork}/out")
        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert not (fork / "out").exists()


def test_an_error_in_a_process_of_the_fork_is_its_sentence(make_fork):
    blurred = edited(
        {
            **RELATIVISTIC,
            "training/loss.py": RELATIVISTIC["training/loss.py"].replace("real = real_img.detach()", "real = real_img.detach().mul(0.5)"),
        }
    )
    fork, run = make_fork(blurred)
    done = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}/out", "--gpus=2", *KNOBS, "--madr-tilt=1", "--madr-tilt-form=weight")
    assert done.returncode == 1 and "use --madr-tilt-form=draw" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (fork / "out" / "network-snapshot.pkl").exists()  # at the first step, though the tilt rests yet
    remedy = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}/out", "--steps=2", *KNOBS, "--madr-tilt=1", "--madr-tilt-form=draw")
    assert remedy.returncode == 0, remedy.stderr


FLAGS_OF_FORKS = """@click.option("--resume")
    @click.option("--data")
    @click.option("--metrics")
"""


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_the_commands_that_we_document_run_in_a_fork(make_fork, runner, repo, tmp_path, page):
    train = (
        RELATIVISTIC["train.py"]
        .replace('@click.option("--resume")\n', FLAGS_OF_FORKS)
        .replace("main(outdir, steps, gpus, resume)", "main(outdir, steps, gpus, resume, data, metrics)")
    )
    calc = (
        METRICS["calc_metrics.py"]
        .replace("@click.command()", '@click.command()\n        @click.option("--network")')
        .replace("(metrics):", "(metrics, network):")
    )
    fork, _ = make_fork({**RELATIVISTIC, **METRICS, "train.py": train, "calc_metrics.py": calc})
    section = (repo / page).read_text().partition("## In a fork")[2].partition("\n## ")[0]
    commands = [line.partition("#")[0].split() for line in section.splitlines() if line.startswith("python ")]
    assert commands and all(words[:3] == ["python", "-m", "madr_plugin"] for words in commands)
    for _, *words in commands:
        known = [word.replace("--gpus=8", "--gpus=1") for word in words] + (["--steps=1"] if "--madr=1" in words else [])
        done = runner.run(known, fork, tmp_path / "site")
        assert done.returncode == 0 and "Error" not in done.stderr, (words, done.stdout, done.stderr)
        assert ("loss is MADRLoss" in done.stdout) == ("--madr=1" in words)
