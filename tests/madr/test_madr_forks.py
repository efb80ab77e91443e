"""Unmodified forks with MADR: stand-ins of our own (stand_ins.py) for both ways in which the families prepare a run.

Each runs in a fresh process that sees the fork and madr_plugin and nothing else of this project.
"""

import json

import pytest

from tests.madr.stand_ins import FIRST_STYLE, SECOND_STYLE, edited

INSPECT = """
import sys, json, pickle
sys.path.insert(0, sys.argv[1])
pipe = pickle.load(open(sys.argv[2], "rb"))["augment_pipe"]
state = getattr(pipe, "_madr_state", {})
print(json.dumps(dict(cls=type(pipe).__name__, step=int(state.get("step", -1)), replayed=float(state["balance__norms__replay"]) > 0,
                      classes=len(set(state["memory__tensors__labels"].argmax(1).tolist())) if state["memory__tensors__labels"].shape[1] else 0,
                      plugin="madr_plugin" in sys.modules)))
"""


@pytest.mark.parametrize("style", [FIRST_STYLE, SECOND_STYLE], ids=["built-before-launch", "launch-function"])
def test_an_unmodified_fork_trains_with_madr_and_resumes(make_fork, style):
    fork, run = make_fork(style)
    done = run(
        "-m",
        "madr_plugin",
        fork / "train.py",
        f"--outdir={fork}",
        "--gamma=3",
        "--madr=1",
        "--madr-capacity=32",
        "--madr-deficit-window=32",
        "--madr-preset=replay",
        "--madr-dead-zone=0",
    )
    assert done.returncode == 0, done.stderr
    assert "loss is MADRLoss" in done.stdout and "real features" not in done.stderr
    seen = json.loads(run("-c", INSPECT, fork, fork / "snapshot.pkl").stdout)
    assert seen == dict(cls="AugmentPipe", step=12, replayed=True, classes=0, plugin=False)  # opened without the plugin, the state rides along
    again = run(
        "-m",
        "madr_plugin",
        fork / "train.py",
        f"--outdir={fork}",
        f"--resume={fork}/snapshot.pkl",
        "--madr=1",
        "--madr-capacity=32",
        "--madr-deficit-window=32",
        "--madr-preset=replay",
        "--madr-dead-zone=0",
        "--madr-tilt=1",
        "--madr-tilt-guard=0",
        "--madr-tilt-form=weight",
    )
    assert again.returncode == 0 and "state of step 12" in again.stdout, again.stdout + again.stderr


FORGET = """
import sys, pickle
sys.path.insert(0, sys.argv[1])
data = pickle.load(open(sys.argv[2], "rb"))
del data["augment_pipe"]._madr_state
pickle.dump(data, open(sys.argv[2], "wb"))
"""


@pytest.mark.parametrize("way", ["command", "install"])
def test_a_snapshot_without_state_is_said_to_have_none(make_fork, way):
    """Such as those of the loop of this project, which keeps MADR's state elsewhere."""
    fork, run = make_fork(SECOND_STYLE, install="import madr_plugin; madr_plugin.install(deficit_window=32)" if way == "install" else "")
    knobs = ["--madr=1", "--madr-deficit-window=32"]
    train = [fork / "train.py", f"--outdir={fork}"] if way == "install" else ["-m", "madr_plugin", fork / "train.py", f"--outdir={fork}", *knobs]
    first = run(*train)
    assert first.returncode == 0 and "memory starts empty" not in first.stdout, first.stdout + first.stderr
    assert run("-c", FORGET, fork, fork / "snapshot.pkl").returncode == 0
    again = run(*train, f"--resume={fork}/snapshot.pkl")
    assert again.returncode == 0 and "holds no MADR state; the memory starts empty" in again.stdout, again.stdout + again.stderr


def test_without_madr_the_fork_runs_as_it_is(make_fork):
    fork, run = make_fork(FIRST_STYLE)
    done = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}")
    assert done.returncode == 0 and "loss is StyleGAN2Loss" in done.stdout, done.stderr


def test_the_one_call(make_fork):
    call = "import madr_plugin\n    madr_plugin.install(preset='replay', dead_zone=0); madr_plugin.install()"
    fork, run = make_fork(SECOND_STYLE, install=call)
    done = run(fork / "train.py", f"--outdir={fork}")
    assert done.returncode == 0 and "loss is MADRLoss" in done.stdout, done.stderr
    seen = json.loads(run("-c", INSPECT, fork, fork / "snapshot.pkl").stdout)
    assert seen["cls"] == "AugmentPipe" and seen["step"] == 12 and seen["replayed"]
    again = run(fork / "train.py", f"--outdir={fork}", f"--resume={fork}/snapshot.pkl")
    assert again.returncode == 0 and "state of step 12 taken from the snapshot" in again.stdout, again.stdout + again.stderr
    assert json.loads(run("-c", INSPECT, fork, fork / "snapshot.pkl").stdout)["step"] == 24


def test_the_one_call_takes_data_and_seed_of_the_loop_and_no_state_but_the_resumed_one(make_fork, monkeypatch):
    call = """import madr_plugin
    madr_plugin.install(deficit_window=32)
    from metrics import metric_main
    assert metric_main.is_valid_metric("madr_recall")  # as train.py asks before it constructs anything
    dnnlib.util.construct_class_by_name(class_name="training.parts.Dataset", path=".", count=60, classes=3)  # a look into the data
    import madr_plugin.loss
    import legacy
    if "LOOK_AT" in os.environ:  # another run's snapshot
        legacy.load_network_pkl(open(os.environ["LOOK_AT"], "rb"))
    original = madr_plugin.loss.MADRLoss.__init__
    def told(self, *args, **kwargs):
        original(self, *args, **kwargs)
        print("seed", self.seed, "count", self.training_set_kwargs["count"], "classes", self.training_set_kwargs.get("classes"))
    madr_plugin.loss.MADRLoss.__init__ = told"""
    metrics = {
        "metrics/__init__.py": "",
        "metrics/metric_main.py": """
        known = {}
        def register_metric(function):
            known[function.__name__] = function
            return function
        def is_valid_metric(name):
            return name in known
        """,
    }
    fork, run = make_fork({**SECOND_STYLE, **metrics}, install=call)
    done = run(fork / "train.py", f"--outdir={fork}")
    assert done.returncode == 0 and "seed 5 count 40 classes None" in done.stdout, done.stdout + done.stderr
    monkeypatch.setenv("LOOK_AT", str(fork / "snapshot.pkl"))
    looked = run(fork / "train.py", f"--outdir={fork}")
    assert looked.returncode == 0 and "loss is MADRLoss" in looked.stdout and "state of step" not in looked.stdout, looked.stdout + looked.stderr


def test_a_fork_whose_synthesis_takes_labels_too(make_fork):
    style = edited(
        FIRST_STYLE,
        training__parts=[("def forward(self, ws):", "def forward(self, ws, c):"), ("(self.mapping(z, c))", "(self.mapping(z, c), c)")],
        training__loss=[("G_synthesis(G_mapping(z, c))", "G_synthesis(G_mapping(z, c), c)")],
        train=[("count=40)", "count=40, classes=4)")],
    )
    fork, run = make_fork(style)
    done = run(
        "-m",
        "madr_plugin",
        fork / "train.py",
        f"--outdir={fork}",
        "--madr=1",
        "--madr-capacity=32",
        "--madr-deficit-window=32",
        "--madr-preset=replay",
        "--madr-dead-zone=0",
        "--madr-refresh=2",
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(run("-c", INSPECT, fork, fork / "snapshot.pkl").stdout)
    assert seen["replayed"] and seen["classes"] == 4
    again = run(
        "-m",
        "madr_plugin",
        fork / "train.py",
        f"--outdir={fork}",
        f"--resume={fork}/snapshot.pkl",
        "--madr=1",
        "--madr-capacity=32",
        "--madr-deficit-window=32",
        "--madr-preset=replay",
        "--madr-dead-zone=0",
        "--madr-replay-interval=4",
        "--madr-refresh=2",
    )  # begins with a replay, before the fork has called its synthesis
    assert again.returncode == 0 and "state of step 12" in again.stdout, again.stderr


def test_a_loop_that_knows_no_strength_of_augmentation_is_given_none(make_fork):
    style = edited(
        FIRST_STYLE,
        train=[
            ("augment_p=0.5, ", ""),
            ('c.augment_kwargs = dnnlib.EasyDict(class_name="training.parts.AugmentPipe", strength=2)', "c.augment_kwargs = None"),
        ],
        training__training_loop=[
            ("augment_p=0, ", ""),
            ("random_seed=0, **_", "random_seed=0"),
            ("augment_kwargs is not None and augment_p > 0", "augment_kwargs is not None"),
            ("pipe.p.copy_(torch.as_tensor(augment_p))", "pass"),
        ],
    )
    fork, run = make_fork(style)
    done = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}", "--madr=1", "--madr-deficit-window=32")
    assert done.returncode == 0 and "loss is MADRLoss" in done.stdout, done.stderr


@pytest.mark.parametrize("style", [FIRST_STYLE, SECOND_STYLE], ids=["built-before-launch", "launch-function"])
def test_without_augmentation_too_the_state_rides_along(make_fork, style):
    fork, run = make_fork(
        edited(
            style,
            train=[
                ("augment_p=0.5, ", ""),
                ('c.augment_kwargs = dnnlib.EasyDict(class_name="training.parts.AugmentPipe", strength=2)', "c.augment_kwargs = None"),
            ],
        )
    )
    flags = [f"--outdir={fork}", "--madr=1", "--madr-preset=replay", "--madr-capacity=32", "--madr-deficit-window=32", "--madr-dead-zone=0"]
    done = run("-m", "madr_plugin", fork / "train.py", *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(run("-c", INSPECT, fork, fork / "snapshot.pkl").stdout)["cls"] == "Identity"
    again = run("-m", "madr_plugin", fork / "train.py", *flags, f"--resume={fork}/snapshot.pkl")
    assert again.returncode == 0 and "state of step 12" in again.stdout, again.stdout + again.stderr


def test_a_script_without_a_known_seam_is_refused(make_fork):
    fork, run = make_fork(dict(FIRST_STYLE, **{"train.py": "def main():\n    print('trained')\n"}))
    for args, words in [
        ([fork / "train.py", "--madr=1"], "setup_training_loop_kwargs"),
        ([fork / "absent.py", "--madr=1"], "does not exist"),
        ([fork, "--madr=1"], "is a folder"),
        ([fork / "train.py", "--madr=1", "--madr-term=none", "--madr-replay-weight=0"], "--madr=0"),
    ]:
        done = run("-m", "madr_plugin", *args)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


def test_install_is_undone_by_uninstall():
    import dnnlib
    import madr_plugin
    from madr_plugin import forks

    original = dnnlib.util.construct_class_by_name
    madr_plugin.install(), madr_plugin.install()
    assert dnnlib.util.construct_class_by_name is not original
    madr_plugin.uninstall(), madr_plugin.uninstall()
    assert dnnlib.util.construct_class_by_name is original and not forks._seen and not forks._originals
