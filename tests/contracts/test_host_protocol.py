"""The training loop and a loss: every method of the protocol is there, and nobody asks whether it is."""

import ast
import inspect
import pickle
import re

import numpy as np
import pytest
import torch

from madr_plugin.host import base_loss
from madr_plugin.loss import MADRLoss
from training import dataset, loss
from training.data import foreign

# Where a loop or a loss could ask the other what it has; the adapters are elsewhere.
ASK_NOTHING = ["training/training_loop.py", "training/keeper.py", "training/teller.py", "training/phases.py", "training/setup.py"]
TAKES_ANYTHING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def assert_takes(function, expected, where):
    """Every call that fits `expected` fits `function`."""
    own = inspect.signature(function).parameters.values()
    if {parameter.kind for parameter in own} >= set(TAKES_ANYTHING):
        return
    names = [parameter.name for parameter in own if parameter.name != "self"]
    assert names[: len(expected)] == expected, where
    assert all(parameter.default is not parameter.empty for parameter in list(own)[1 + len(expected) :]), where


@pytest.mark.parametrize("kind", [MADRLoss, loss.StyleGAN2Loss, loss.ForeignLoss])
def test_every_loss_has_the_whole_protocol(kind):
    assert len(loss.protocol()) == 8
    for name in loss.protocol():
        expected = [parameter for parameter in inspect.signature(getattr(loss.Loss, name)).parameters if parameter != "self"]
        assert_takes(inspect.getattr_static(kind, name), expected, f"{kind.__name__}.{name}")
        assert getattr(loss.Loss, name).__doc__, name


def test_the_plugin_hands_on_the_same_methods():
    assert set(base_loss.HANDED_ON) == set(loss.protocol()) - {"accumulate_gradients"}
    for name in base_loss.HANDED_ON:
        expected = list(inspect.signature(getattr(loss.Loss, name)).parameters)
        assert list(inspect.signature(getattr(base_loss.BaseLoss, name)).parameters) == expected, name


def asked_in(path):
    """What the file looks for in an object that may lack it: the first arguments of hasattr, and of getattr with a default."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [ast.unparse(node.args[0]) for node in calls if node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)]


def test_nobody_asks_what_the_other_has(repo):
    assert {file: asked_in(repo / file) for file in ASK_NOTHING} == {file: [] for file in ASK_NOTHING}
    assert not [what for what in asked_in(repo / "madr_plugin/loss.py") if "base" in what or what == "self"]


def test_only_the_options_name_classes(repo):
    """A class is chosen where options are resolved; what builds, steps, keeps and tells takes it by the name that they state."""
    named = set()
    for path in (repo / "training").rglob("*.py"):
        strings = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        if any(re.fullmatch(r"(training|torch|madr_plugin)\.([a-z_0-9]+\.)*[A-Z]\w+", text) for text in strings):
            named.add(path.name)
    assert named == {
        "config.py",
        "choosing.py",
        "schedule.py",
        "network_methods.py",
        "drs.py",  # whose logits mean what
        "changes.py",
        "latents.py",
    }  # all but the first: what --gan and --method make of the options


class Bare:
    """A loss of another code base."""

    r1_gamma = 3

    def accumulate_gradients(self, phase, gain, cur_nimg=0):
        return phase, gain


class WithState(Bare):
    def state_dict(self):
        return dict(a=1)


@pytest.mark.parametrize("wrap", [loss.as_loss, base_loss.whole])
def test_a_foreign_loss_is_wrapped_once_and_stays_what_it_is(wrap):
    wrapped = wrap(Bare())
    assert wrap(wrapped) is wrapped and wrapped.r1_gamma == 3 and wrapped.accumulate_gradients("Gmain", gain=2) == ("Gmain", 2)
    assert list(inspect.signature(wrapped.accumulate_gradients).parameters) == ["phase", "gain", "cur_nimg"]
    assert wrapped.attach({}) is wrapped.begin_phase("Gmain", 0) is wrapped.end_phase("Gmain") is wrapped.close() is None
    assert wrapped.telemetry() == wrapped.state_dict() == {} and wrapped.load_state_dict({}) is None
    assert wrap(WithState()).state_dict() == dict(a=1)
    with pytest.raises(AttributeError):
        _ = wrapped.no_such_thing
    assert pickle.loads(pickle.dumps(wrapped)).r1_gamma == 3


def test_a_whole_loss_is_not_wrapped():
    whole = loss.StyleGAN2Loss(device="cpu", G_mapping=None, G_synthesis=None, D=None)
    assert loss.as_loss(whole) is whole and base_loss.whole(whole) is whole


def test_a_loss_without_state_says_so_when_it_is_given_some():
    with pytest.raises(ValueError, match="Bare|ForeignLoss"):
        loss.as_loss(Bare()).load_state_dict(dict(pl_mean=1))


# ----------------------------------------------------------------------------------------------------------------
# Data sets.


class ForeignImages(torch.utils.data.Dataset):
    """What a fork's own data set has."""

    name, resolution, label_shape, has_labels = "foreign", 4, [0], False

    def __init__(self, seed=0):
        self.images = np.random.RandomState(seed).randint(0, 256, [6, 3, 4, 4]).astype(np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], np.zeros([0], np.float32)


def test_a_foreign_data_set_gets_what_the_loop_asks_for():
    made = foreign.as_dataset(ForeignImages())
    assert foreign.as_dataset(made) is made and made.resolution == 4 and len(made) == 6 and made[2][0].shape == (3, 4, 4)
    assert made.check_images() is None and made.use_cache(100) is False
    assert made.content_fingerprint() == foreign.as_dataset(ForeignImages()).content_fingerprint()
    assert made.content_fingerprint() != foreign.as_dataset(ForeignImages(seed=1)).content_fingerprint()
    assert pickle.loads(pickle.dumps(made)).name == "foreign"
    with pytest.raises(AttributeError):
        _ = made.no_such_thing


def test_our_own_data_sets_are_not_wrapped():
    assert all(callable(getattr(dataset.Dataset, name)) for name in foreign.FALLBACKS)
