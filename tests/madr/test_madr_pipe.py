"""MADRAugmentPipe: transparent, a carrier of state, and openable where there is no madr_plugin."""

import copy
import pickle

import pytest
import torch

from madr_plugin import augment_pipe as pipes
from madr_plugin.host import snapshots
from madr_plugin.loss import MADRLoss
from tests.madr.toy_host import BASE as TOY_BASE, Host, madr_loss

BASE = dict(class_name="training.augment.AugmentPipe", xflip=1, brightness=1)


def state():
    return dict(step=7, reference="abc", memory=dict(count=2, tensors=dict(features=torch.arange(6.0).reshape(3, 2))), scales=[1.0, -1.0])


def carrying(base_kwargs):
    pipe = pipes.MADRAugmentPipe(base_kwargs=base_kwargs).train().requires_grad_(False)
    pipe.carry(pipes.flatten(state()))
    pipe.p.copy_(torch.as_tensor(0.25))
    return pipe


def test_what_it_carries_lies_on_its_own_device():
    """Loops compare buffers by NCCL, which takes none of the CPU. The meta device stands in for a GPU."""
    pipe = pipes.MADRAugmentPipe(base_kwargs=BASE).to("meta")
    pipe.carry(pipes.flatten(state()))
    assert len(list(pipe.buffers())) > 5 and {buffer.device.type for buffer in pipe.buffers()} == {"meta"}


@pytest.mark.parametrize("base_kwargs", [BASE, None])
def test_it_is_the_base(base_kwargs):
    pipe = carrying(base_kwargs)
    images = torch.randn([4, 3, 16, 16])
    torch.manual_seed(0)
    ours = pipe(images)
    torch.manual_seed(0)
    assert torch.equal(ours, pipe.base(images))
    assert pipe.p is pipe.base.p and float(pipe.p) == 0.25
    if base_kwargs is None:
        assert torch.equal(ours, images)


@pytest.mark.parametrize("base_kwargs", [BASE, None])
def test_a_copy_carries_the_state_and_is_independent(base_kwargs):
    pipe = carrying(base_kwargs)
    duplicate = copy.deepcopy(pipe).eval().requires_grad_(False).cpu()
    assert isinstance(duplicate, pipes.MADRAugmentPipe)
    pipe.carried()["memory__tensors__features"].zero_()
    assert float(duplicate.carried()["memory__tensors__features"].sum()) == 15


def test_pickle_opens_without_the_plugin(tmp_path, repo, runner):
    for name, base_kwargs in [("AugmentPipe", BASE), ("Identity", None)]:
        (tmp_path / name).write_bytes(pickle.dumps(dict(augment_pipe=carrying(base_kwargs))))
    code = f"""
import sys, pickle, torch
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "madr_plugin":
            raise ImportError("no madr_plugin here")
sys.meta_path.insert(0, Refuse())
for class_name in ("AugmentPipe", "Identity"):
    pipe = pickle.load(open({str(tmp_path)!r} + "/" + class_name, "rb"))["augment_pipe"]
    assert type(pipe).__name__ == class_name and isinstance(pipe, torch.nn.Module), type(pipe)
    assert float(pipe.p) == 0.25 and pipe(torch.zeros([2, 3, 16, 16])).shape == (2, 3, 16, 16)
    assert all(type(value) is torch.Tensor for value in pipe._madr_state.values())
    assert not any(name.startswith("madr") for name in pipe.state_dict())
"""
    done = runner.run(["-c", code], repo, repo)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("base_kwargs", [BASE, None])
def test_with_the_plugin_the_state_comes_back(base_kwargs):
    pipe = pipes.restored(pickle.loads(pickle.dumps(carrying(base_kwargs))))
    nested = pipes.unflatten(pipe.carried())
    assert nested["reference"] == "abc" and int(nested["step"]) == 7
    assert torch.equal(nested["memory"]["tensors"]["features"], state()["memory"]["tensors"]["features"])


def test_a_runs_state_survives_the_pickled_pipe():
    host = Host(madr_loss())
    pipe = host.loss.augment_pipe = pipes.MADRAugmentPipe(base_kwargs=None)
    for _ in range(3):
        host.step()
    brought_back = pipes.restored(pickle.loads(pickle.dumps(pipe)))
    other = Host(madr_loss())
    other.loss.engine.load(pipes.unflatten(brought_back.carried()))
    a, b = host.loss.state_dict()["madr"], other.loss.state_dict()["madr"]
    assert a["step"] == b["step"] == 3
    for name, value in a["memory"]["tensors"].items():
        assert torch.equal(value, b["memory"]["tensors"][name])


def test_names_of_the_state_are_those_that_saved_runs_have():
    host = Host(madr_loss(dict(controller="integral")))
    host.step()
    state = pipes.flatten(host.loss.engine.live_state())
    # Not in the runs of early versions: the meter, and D's steps since G's last.
    later = {"forgetting__groups__0__images", "forgetting__groups__0__labels", "critic_steps"}
    assert later <= set(state) and sorted(set(state) - later) == sorted(
        ["format", "reference__text", "step", "nimg", "controller__strength", "signal__power", "signal__null", "balance__sizes"]
        + ["sensor__cells", "sensor__count", "sensor__next_slot", "memory__count", "memory__offered", "memory__next_slot"]
        + [f"memory__tensors__{name}" for name in ("features", "latents", "layers", "labels", "born", "importance")]
        + [f"balance__{kind}__{name}" for kind in ("norms", "reaches") for name in ("host", "term", "replay")]
        + [f"balance__peaks__{name}" for name in ("term", "replay")]
    )
    resumed = Host(madr_loss(dict(controller="integral")))
    resumed.loss.engine.load(pipes.unflatten({name: value for name, value in state.items() if name not in later}))
    assert resumed.loss.engine.step == 1 and resumed.loss.engine.forgetting.groups == []


def test_the_restricted_loader_accepts_it(tmp_path):
    from torch_utils import safe_unpickle

    path = tmp_path / "pipe.pkl"
    path.write_bytes(pickle.dumps(dict(augment_pipe=carrying(BASE))))
    with open(path, "rb") as file:
        pipe = safe_unpickle.load(file)["augment_pipe"]
    assert torch.equal(pipes.restored(pipe).carried()["memory__tensors__features"], torch.arange(6.0).reshape(3, 2))
    assert float(pipe.p) == 0.25 and pipe(torch.zeros([2, 3, 16, 16])).shape == (2, 3, 16, 16)


def test_in_a_fork_with_labels_the_default_carries_its_state():
    """Moments per class have no common axes: their state lacks some tensors."""
    pipe = pipes.MADRAugmentPipe()

    def make(host):
        loss = MADRLoss(
            device=torch.device("cpu"),
            G_mapping=host.mapping,
            G_synthesis=host.synthesis,
            D=host.D,
            augment_pipe=pipe,
            madr=dict(capacity=64, deficit_window=64, reals=32, width=8, random_seed=3),
            **TOY_BASE,
        )
        loss.training_set = host.images  # as in a fork: nothing is attached
        return loss

    try:
        host = Host(make, c_dim=2)
        host.step(), host.step()
        objective = host.loss.engine.objective.objectives["moments"]
        assert len(objective.reals.targets) == 2 and objective.reals.turn_KK is None
        later = Host(make, c_dim=2)
        later.loss.prepare()
        later.loss.engine.load(pipes.unflatten(host.loss.state_for_snapshot()))
        assert torch.equal(later.loss.engine.objective.objectives["moments"].memory.second_GDD, objective.memory.second_GDD)
    finally:
        snapshots.unwatch()
