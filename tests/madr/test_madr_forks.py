"""Unmodified forks with MADR: stand-ins of our own for both ways in which the families prepare a run.

Each stand-in is a folder with its own dnnlib, training package and train.py. It runs in a fresh process that sees the
fork and madr_plugin and nothing else of this project.
"""

import json
import os
import subprocess
import sys
import textwrap

import pytest

COMMON = {
    "dnnlib/__init__.py": "from . import util\nfrom .util import EasyDict\n",
    "dnnlib/util.py": """
        import importlib
        class EasyDict(dict):
            def __getattr__(self, name):
                try:
                    return self[name]
                except KeyError:
                    raise AttributeError(name)
            __setattr__ = dict.__setitem__
        def get_obj_by_name(name):
            module, attribute = name.rsplit(".", 1)
            return getattr(importlib.import_module(module), attribute)
        def construct_class_by_name(*args, class_name=None, **kwargs):
            return get_obj_by_name(class_name)(*args, **kwargs)
        def open_url(path):
            return open(path, "rb")
        """,
    "legacy.py": "import pickle\ndef load_network_pkl(f):\n    return pickle.load(f)\n",
    "training/__init__.py": "",
    "training/parts.py": """
        import numpy as np, torch
        class Dataset:
            image_shape = [3, 8, 8]
            label_shape = [0]
            def __init__(self, path, count, classes=0):
                self.data = np.random.RandomState(0).randint(0, 256, [count, 3, 8, 8]).astype(np.uint8)
                self.label_shape = [classes]
            def __len__(self):
                return len(self.data)
            def __getitem__(self, index):
                return self.data[index], np.eye(*self.label_shape, dtype=np.float32)[index % max(self.label_shape[0], 1)] if self.label_shape[0] else np.zeros([0], np.float32)
        class Mapping(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = torch.nn.Linear(8, 16)
            def forward(self, z, c):
                return self.fc(z)[:, None, :].repeat(1, 2, 1)
        class Synthesis(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = torch.nn.Linear(16, 192)
            def forward(self, ws):
                return torch.tanh(self.fc(ws.mean(1))).reshape(-1, 3, 8, 8)
        class Generator(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.mapping, self.synthesis = Mapping(), Synthesis()
            def forward(self, z, c):
                return self.synthesis(self.mapping(z, c))
        class Discriminator(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = torch.nn.Linear(192, 1)
            def forward(self, img, c):
                return self.fc(img.flatten(1))
        class AugmentPipe(torch.nn.Module):
            def __init__(self, strength=1):
                super().__init__()
                self.register_buffer("p", torch.zeros([]))
            def forward(self, img):
                return img * 1.0
        """,
    "training/training_loop.py": """
        import copy, os, pickle
        import dnnlib, legacy, torch
        def training_loop(training_set_kwargs, loss_kwargs, augment_kwargs, networks, steps, outdir, sync_argument, augment_p=0, resume_pkl=None, random_seed=0, **_):
            torch.manual_seed(random_seed)
            data = dnnlib.util.construct_class_by_name(**training_set_kwargs)
            G, D = (dnnlib.util.construct_class_by_name(class_name="training.parts." + name) for name in ("Generator", "Discriminator"))
            if resume_pkl:
                with dnnlib.util.open_url(resume_pkl) as f:
                    G.load_state_dict(legacy.load_network_pkl(f)["G"].state_dict())
            pipe = None
            if augment_kwargs is not None and augment_p > 0:
                pipe = dnnlib.util.construct_class_by_name(**augment_kwargs).train().requires_grad_(False)
                pipe.p.copy_(torch.as_tensor(augment_p))
            modules = dict(G=G) if networks == "G" else dict(G_mapping=G.mapping, G_synthesis=G.synthesis)
            loss = dnnlib.util.construct_class_by_name(device=torch.device("cpu"), D=D, augment_pipe=pipe, **modules, **loss_kwargs)
            opts = dict(G=torch.optim.Adam(G.parameters(), 1e-3), D=torch.optim.Adam(D.parameters(), 1e-3))
            for step in range(steps):
                for phase in ("Gmain", "Dmain"):
                    G.requires_grad_(phase[0] == "G"), D.requires_grad_(phase[0] == "D")
                    opts[phase[0]].zero_grad()
                    z, c = torch.randn([8, 8]), torch.stack([torch.from_numpy(data[i][1]) for i in range(8)])
                    real = torch.stack([torch.from_numpy(data[i][0]).float() / 127.5 - 1 for i in range(8)])
                    extra = dict(sync=True) if sync_argument else {}
                    loss.accumulate_gradients(phase=phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, **extra)
                    opts[phase[0]].step()
            print("loss is", type(loss).__name__)
            if pipe is not None:
                pipe = copy.deepcopy(pipe).eval().requires_grad_(False).cpu()
            with open(os.path.join(outdir, "snapshot.pkl"), "wb") as f:
                pickle.dump(dict(G=G, D=D, G_ema=G, augment_pipe=pipe, training_set_kwargs=dict(training_set_kwargs)), f)
        """,
}
LOSS = """
    import torch.nn.functional as F
    class StyleGAN2Loss:
        def __init__(self, device, {networks}, D, augment_pipe=None, r1_gamma=10):
            self.run_G = lambda z, c: {call}
            self.D, self.augment_pipe, self.r1_gamma = D, augment_pipe, r1_gamma
        def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, {arguments}):
            if phase == "Gmain":
                images = self.run_G(gen_z, gen_c)
                loss = F.softplus(-self.D(images if self.augment_pipe is None else self.augment_pipe(images), gen_c))
            else:
                loss = F.softplus(self.D(self.run_G(gen_z, gen_c).detach(), gen_c)) + F.softplus(-self.D(real_img, real_c))
            loss.mean().mul(gain).backward()
    """
OPTIONS = """
    import os, sys
    import click, dnnlib
    {install}
    def make_options(outdir, gamma, resume):
        c = dnnlib.EasyDict(random_seed=5, outdir=outdir, steps=12, augment_p=0.5, networks="{networks}", sync_argument={sync})
        c.training_set_kwargs = dnnlib.EasyDict(class_name="training.parts.Dataset", path=os.path.dirname(os.path.abspath(__file__)), count=40)
        c.loss_kwargs = dnnlib.EasyDict(class_name="training.loss.StyleGAN2Loss", r1_gamma=gamma)
        c.augment_kwargs = dnnlib.EasyDict(class_name="training.parts.AugmentPipe", strength=2)
        c.resume_pkl = resume
        return c
    """
# Options are built first, then launched.
FIRST_STYLE = {
    "training/loss.py": LOSS.format(networks="G_mapping, G_synthesis", call="G_synthesis(G_mapping(z, c))", arguments="sync, gain"),
    "train.py": OPTIONS.format(networks="parts", sync=True, install="")
    + """
    def setup_training_loop_kwargs(outdir=None, gamma=None, resume=None):
        return "described", make_options(outdir, gamma, resume)
    @click.command()
    @click.option("--outdir", required=True)
    @click.option("--gamma", type=float, default=10.0)
    @click.option("--resume")
    def main(outdir, **config_kwargs):
        description, args = setup_training_loop_kwargs(outdir=outdir, **config_kwargs)
        from training.training_loop import training_loop
        training_loop(**args)
    if __name__ == "__main__":
        main()
    """,
}
# A launch function receives them.
SECOND_STYLE = {
    "training/loss.py": LOSS.format(networks="G", call="G(z, c)", arguments="gain, cur_nimg=0"),
    "train.py": OPTIONS.format(networks="G", sync=False, install="{install}")
    + """
    def launch_training(c, desc, outdir, dry_run):
        from training.training_loop import training_loop
        training_loop(**c)
    @click.command()
    @click.option("--outdir", required=True)
    @click.option("--gamma", type=float, default=10.0)
    @click.option("--resume")
    def main(**kwargs):
        launch_training(c=make_options(**kwargs), desc="described", outdir=kwargs["outdir"], dry_run=False)
    if __name__ == "__main__":
        main()
    """,
}


@pytest.fixture
def make_fork(tmp_path, repo):
    """make_fork(style) -> (folder of the fork, run(*args) -> finished process)."""

    def make(style, install=""):
        fork, only_plugin = tmp_path / "fork", tmp_path / "site"
        for name, text in {**COMMON, **style}.items():
            (fork / name).parent.mkdir(parents=True, exist_ok=True)
            (fork / name).write_text(textwrap.dedent(text.replace("{install}", install)))
        only_plugin.mkdir(exist_ok=True)
        if not (only_plugin / "madr_plugin").exists():
            for package in ("madr_plugin", "madr_spaces"):  # what one wheel brings
                os.symlink(repo / package, only_plugin / package)

        def run(*args):
            environment = dict(os.environ, PYTHONPATH=str(only_plugin), OMP_NUM_THREADS="1")
            return subprocess.run([sys.executable, *map(str, args)], cwd=tmp_path, env=environment, capture_output=True, text=True)

        return fork, run

    return make


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
    fork, run = make_fork(SECOND_STYLE, install="import madr_plugin; madr_plugin.install(capacity=32, deficit_window=32)" if way == "install" else "")
    knobs = ["--madr=1", "--madr-capacity=32", "--madr-deficit-window=32"]
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
    call = "import madr_plugin\n    madr_plugin.install(dead_zone=0); madr_plugin.install()"
    fork, run = make_fork(SECOND_STYLE, install=call)
    done = run(fork / "train.py", f"--outdir={fork}")
    assert done.returncode == 0 and "loss is MADRLoss" in done.stdout, done.stderr
    seen = json.loads(run("-c", INSPECT, fork, fork / "snapshot.pkl").stdout)
    assert seen["cls"] == "AugmentPipe" and seen["step"] == 12 and seen["replayed"]
    again = run(fork / "train.py", f"--outdir={fork}", f"--resume={fork}/snapshot.pkl")
    assert again.returncode == 0 and "state of step 12 taken from the snapshot" in again.stdout, again.stdout + again.stderr
    assert json.loads(run("-c", INSPECT, fork, fork / "snapshot.pkl").stdout)["step"] == 24


def edited(style, **changes):
    """A stand-in with words replaced: {file: [(former, new), ...]}; the slashes of file names are written as double underscores."""
    files = {**COMMON, **style}
    for name, pairs in changes.items():
        name = name.replace("__", "/") + ".py"
        for former, new in pairs:
            assert former in files[name]
            files = {**files, name: files[name].replace(former, new)}
    return files


def test_the_one_call_takes_data_and_seed_of_the_loop_and_no_state_but_the_resumed_one(make_fork, monkeypatch):
    call = """import madr_plugin
    madr_plugin.install(capacity=32, deficit_window=32)
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
    done = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}", "--madr=1", "--madr-capacity=32", "--madr-deficit-window=32")
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
    flags = [f"--outdir={fork}", "--madr=1", "--madr-capacity=32", "--madr-deficit-window=32", "--madr-dead-zone=0"]
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
        ([fork / "train.py", "--madr=1", "--madr-capacity=8", "--madr-term=none", "--madr-replay-weight=0"], "--madr=0"),
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
