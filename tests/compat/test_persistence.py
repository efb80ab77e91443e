"""Pickles with embedded source: the format is the family's, and objects survive every way of travelling."""

import copy
import importlib
import io
import pickle
import pickletools
import subprocess
import sys

import pytest
import torch

import dnnlib
from torch_utils import persistence

TOY = """
import torch
from torch_utils import persistence


@persistence.persistent_class
class Toy(torch.nn.Module):
    def __init__(self, width, options={}, *, gain=1):
        super().__init__()
        self.gain = gain
        options["touched"] = True
        self.register_buffer("b", torch.ones([width]))
        self.weight = torch.nn.Parameter(torch.zeros([width]))

    def forward(self, x):
        return x * self.b * self.gain + self.weight


@persistence.persistent_class
class Special(Toy):
    def __init__(self, name):
        super().__init__(3, gain=4)
        self.name = name


class Undecorated(Toy):
    pass


@persistence.persistent_class
class WithState:
    def __init__(self):
        self.secret = 5

    def __getstate__(self):
        return {"packed": [self.secret]}

    def __setstate__(self, state):
        self.secret = state["packed"][0] + 100


def answer():
    return 42
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A freshly imported module of its own name for each test."""
    name = f"toy_{abs(hash(str(tmp_path))) % 10**9}"
    (tmp_path / f"{name}.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


class Reduces:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.reduction = function, args

    def __reduce__(self):
        return self.reduction


def persistent(**meta):
    return Reduces(persistence._reconstruct_persistent_obj, dict(dict(type="class", version=6), **meta))


def test_reduces_to_the_familys_format(toy):
    obj = toy.Toy(2, gain=3)
    function, (meta,) = obj.__reduce__()
    assert function is persistence._reconstruct_persistent_obj
    assert (function.__module__, function.__name__) == ("torch_utils.persistence", "_reconstruct_persistent_obj")
    assert list(meta) == ["type", "version", "module_src", "class_name", "state"]
    assert (meta["type"], meta["version"], meta["class_name"]) == ("class", 6, "Toy")
    assert meta["module_src"] == TOY
    assert {"training", "_parameters", "_buffers", "_modules", "_init_args", "_init_kwargs", "gain"} <= meta["state"].keys()


def test_the_pickle_names_nothing_of_ours_but_the_one_function(toy):
    names = {arg for opcode, arg, _ in pickletools.genops(pickle.dumps(toy.Toy(2), protocol=2)) if opcode.name == "GLOBAL"}
    assert {name for name in names if not name.startswith(("torch ", "torch._utils", "torch.storage", "collections", "_codecs", "__builtin__"))} == {
        "torch_utils.persistence _reconstruct_persistent_obj"
    }


def test_constructor_arguments_are_kept_as_copies(toy):
    options = {"a": [1]}
    obj = toy.Toy(2, options, gain=3)
    assert obj.init_args == (2, {"a": [1]})  # as given, not as the constructor left it
    assert obj.init_kwargs == {"gain": 3} and isinstance(obj.init_kwargs, dnnlib.EasyDict)
    obj.init_kwargs["gain"] = 7
    obj.init_args[1]["a"].append(2)
    assert obj.init_kwargs.gain == 3 and obj.init_args == (2, {"a": [1]})
    assert toy.Special("x").init_args == ("x",)
    assert toy.Undecorated(5).init_args == (5,)


def test_is_persistent(toy):
    assert persistence.is_persistent(toy.Toy) and persistence.is_persistent(toy.Toy(1)) and persistence.is_persistent(toy.Special)
    assert not persistence.is_persistent(toy.Undecorated) and not persistence.is_persistent(torch.nn.Linear(1, 1))
    assert not persistence.is_persistent([])
    assert persistence.persistent_class(toy.Toy) is toy.Toy
    with pytest.raises(TypeError):
        persistence.persistent_class(toy.answer)


def test_deep_copies_keep_subclasses_and_share_within_one_copy(toy):
    obj = toy.Undecorated(2)
    pair = copy.deepcopy([obj, obj])
    assert type(pair[0]) is toy.Undecorated and pair[0] is pair[1] and pair[0] is not obj
    assert copy.deepcopy(toy.WithState()).secret == 105


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
def test_copies_are_of_the_same_class(toy, travel):
    obj = toy.Toy(2, gain=3).eval().requires_grad_(False)
    obj.b.fill_(7)
    other = travel(obj)
    assert type(other) is toy.Toy and other is not obj and not other.training and not other.weight.requires_grad
    assert torch.equal(other(torch.ones(2)), torch.tensor([21.0, 21.0])) and other.init_kwargs == obj.init_kwargs


def test_subclasses(toy):
    assert toy.Special("x").__reduce__()[1][0]["class_name"] == "Special"
    assert pickle.loads(pickle.dumps(toy.Special("x"))).name == "x"
    assert toy.Undecorated(5).__reduce__()[1][0]["class_name"] == "Toy"


def test_own_state_methods_are_honoured(toy):
    assert pickle.loads(pickle.dumps(toy.WithState())).secret == 105


def hand_written(source, class_name="Thing", **state):
    return pickle.dumps(persistent(module_src=source, class_name=class_name, state=state))


THING = """
from torch_utils import persistence
@persistence.persistent_class
class Thing:
    def __init__(self, a):
        self.a = a
    def twice(self):
        return 2 * self.a + OFFSET
OFFSET = 1
"""


def test_reads_a_hand_written_pickle_and_writes_it_again():
    thing = pickle.loads(hand_written(THING, a=20, _init_args=(20,), _init_kwargs={}))
    assert thing.twice() == 41 and thing.init_args == (20,) and persistence.is_persistent(thing)
    meta = thing.__reduce__()[1][0]
    assert meta["module_src"] == THING and meta["state"] == dict(a=20, _init_args=(20,), _init_kwargs={})
    # Once more, and new objects of the imported class; all share one module.
    again = pickle.loads(pickle.dumps(thing))
    fresh = pickle.loads(pickle.dumps(type(thing)(5)))
    assert type(again) is type(thing) is type(fresh) and fresh.twice() == 11 and fresh.init_args == (5,)


def test_undecorated_classes_of_a_source_become_persistent():
    plain = "class Thing:\n    pass\n"
    thing = pickle.loads(hand_written(plain, a=1))
    assert thing.a == 1 and pickle.loads(pickle.dumps(thing)).__reduce__()[1][0]["module_src"] == plain


def test_a_source_that_fails_is_not_remembered():
    broken = "raise RuntimeError('from the source')\n"
    for _ in range(2):
        with pytest.raises(RuntimeError, match="from the source"):
            pickle.loads(hand_written(broken))


def test_other_versions_are_refused():
    for wrong in (dict(version=5), dict(type="function")):
        with pytest.raises(ValueError, match="only kind 'class', version 6"):
            pickle.loads(pickle.dumps(persistent(**dict(dict(module_src="", class_name="A", state={}), **wrong))))


def test_import_hooks_see_and_change_meta(monkeypatch):
    monkeypatch.setattr(persistence, "_import_hooks", [])
    seen = []

    @persistence.import_hook
    def mend(meta):
        seen.append((meta.class_name, meta.state.a, meta.version))
        meta.module_src = meta.module_src.replace("OFFSET = 1", "OFFSET = 1000")
        meta.state.a += 1
        return meta

    assert pickle.loads(hand_written(THING, a=20)).twice() == 1042
    assert seen == [("Thing", 20, 6)]
    persistence.import_hook(lambda meta: None)
    with pytest.raises(TypeError, match="returned nothing"):
        pickle.loads(hand_written(THING, a=20))


def test_travels_to_a_spawned_process_and_back(toy, tmp_path, repo):
    # The other process has never heard of the toy module: it knows the class from the pickle alone.
    (tmp_path / "elsewhere").mkdir()
    script = tmp_path / "elsewhere" / "child.py"
    script.write_text(
        "import pickle, sys, torch\n"
        "obj, thing = pickle.load(sys.stdin.buffer)\n"
        "obj.weight.data += 1\n"
        "sys.stdout.buffer.write(pickle.dumps((obj, thing, obj(torch.ones(2)))))\n"
    )
    obj = toy.Toy(2, gain=3)
    thing = pickle.loads(hand_written(THING, a=20))
    done = subprocess.run(
        [sys.executable, str(script)], input=pickle.dumps((obj, thing)), capture_output=True, env={"PYTHONPATH": str(repo), "PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stderr.decode()
    back, thing_back, result = pickle.load(io.BytesIO(done.stdout))
    assert type(back) is toy.Toy and torch.equal(back.weight, torch.ones(2)) and torch.equal(result, torch.full([2], 4.0))
    assert thing_back.twice() == 41


def test_the_prompt_is_answered_in_a_sentence():
    done = subprocess.run(
        [sys.executable, "-c", "from torch_utils import persistence\n@persistence.persistent_class\nclass A: pass"], capture_output=True, text=True
    )
    assert "needs the source text of module '__main__'" in done.stderr


def test_tracebacks_show_lines_of_embedded_sources():
    import traceback

    source = "class Thing:\n    def fail(self):\n        return 1 / 0  # in the pickle\n"
    thing = pickle.loads(hand_written(source))
    try:
        thing.fail()
    except ZeroDivisionError:
        assert "return 1 / 0  # in the pickle" in traceback.format_exc()
