"""Safe loading: honest snapshots arrive bit for bit, and nothing that a file brings is ever executed.

Each hostile pickle is first shown to bite the ordinary unpickler where it can, so that a harmless one cannot pass.
"""

import collections
import io
import itertools
import os
import pickle
import struct
import sys

import numpy as np
import pytest
import torch

import dnnlib
from dnnlib.errors import UserError
from torch_utils import pickle_machine, rebuild, safe_unpickle
from torch_utils.persistence import _reconstruct_persistent_obj
from training import augment, networks


class Reduces:
    """Pickles as whatever __reduce__ is told to return."""

    def __init__(self, function, args=(), *rest):
        self.reduction = (function, args, *rest)

    def __reduce__(self):
        return self.reduction

    def __call__(self, *_args):  # pickle asks that what is called be callable
        raise AssertionError


def persistent(class_name, module_src, state, **meta):
    return Reduces(_reconstruct_persistent_obj, (dict(type="class", version=6, module_src=module_src, class_name=class_name, state=state, **meta),))


def small_networks():
    synthesis_kwargs = dnnlib.EasyDict(channel_base=128, channel_max=8, num_fp16_res=1, conv_clamp=256)
    G = networks.Generator(
        z_dim=4, c_dim=2, w_dim=4, img_resolution=8, img_channels=3, mapping_kwargs=dnnlib.EasyDict(num_layers=1), synthesis_kwargs=synthesis_kwargs
    )
    D = networks.Discriminator(c_dim=2, img_resolution=8, img_channels=3, channel_base=128, channel_max=8)
    return G, D


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    return small_networks()


def load(data, **kwargs):
    return safe_unpickle.load(io.BytesIO(data), **kwargs)


def state_of(module):
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def assert_same_module(one, two):
    assert type(one) is type(two) and one.init_kwargs == two.init_kwargs and one.init_args == two.init_args
    assert state_of(one).keys() == state_of(two).keys()
    for name, tensor in state_of(one).items():
        other = state_of(two)[name]
        assert torch.equal(tensor, other) and tensor.dtype == other.dtype and tensor.requires_grad == other.requires_grad
    assert [m.training for m in one.modules()] == [m.training for m in two.modules()]


# ---------------------------------------------------------------------------------------------------------------------
# Honest files.


@pytest.mark.parametrize("protocol", range(6))
def test_snapshots_arrive_bit_for_bit(nets, protocol):
    G, D = nets
    G_ema = pickle.loads(pickle.dumps(G)).eval().requires_grad_(False)
    G_ema.mapping.fc0.bias.requires_grad_(True)
    G_ema.synthesis.b8.train()
    pipe = augment.AugmentPipe(xflip=1, imgfilter=1)
    pipe.p.fill_(0.25)
    kwargs = dnnlib.EasyDict(class_name="training.dataset.ImageFolderDataset", path="x.zip", max_size=None, xflip=False)
    snapshot = dict(G=G, D=D, G_ema=G_ema, augment_pipe=pipe, training_set_kwargs=kwargs)
    torch.manual_seed(1)
    expected_draw = torch.rand(1)
    data = pickle.dumps(snapshot, protocol=protocol)
    torch.manual_seed(1)
    loaded = load(data)
    assert torch.equal(torch.rand(1), expected_draw)  # loading draws nothing from the global generator
    for key in ("G", "D", "G_ema", "augment_pipe"):
        assert_same_module(snapshot[key], loaded[key])
    assert loaded["training_set_kwargs"] == kwargs and type(loaded["training_set_kwargs"]) is dnnlib.EasyDict
    z, c = torch.randn(2, 4), torch.eye(2)
    assert torch.equal(loaded["G_ema"](z, c, noise_mode="const"), G_ema(z, c, noise_mode="const"))
    # And the loaded objects are the project's own, pickled as ever.
    assert pickle.loads(pickle.dumps(loaded["G"])).init_kwargs.synthesis_kwargs.num_fp16_res == 1


def old_style_record(module):
    """The module as torch 1.7 under Python 3.7 pickled it: ordered dictionaries, fewer hook tables, protocol 3."""
    tables = "_parameters _buffers _backward_hooks _forward_hooks _forward_pre_hooks _state_dict_hooks _load_state_dict_pre_hooks"
    state = {"training": module.training, **{name: collections.OrderedDict() for name in tables.split()}}
    state["_non_persistent_buffers_set"] = set()
    state["_parameters"].update(module._parameters)
    state["_buffers"].update(module._buffers)
    state["_modules"] = collections.OrderedDict((name, old_style_record(child)) for name, child in module._modules.items())
    state.update((name, value) for name, value in vars(module).items() if not name.startswith("_") and name != "training")
    state.update(_init_args=module._init_args, _init_kwargs=dnnlib.EasyDict(module._init_kwargs))
    return persistent(type(module).__name__, "from torch_utils import persistence\nraise SystemExit('executed')\n", state)


def test_pickles_of_old_torch_versions_arrive(nets):
    G, D = nets
    G = pickle.loads(pickle.dumps(G)).eval().requires_grad_(False)
    data = pickle.dumps(dict(G=old_style_record(G), D=old_style_record(D), training_set_kwargs=None), protocol=3)
    loaded = load(data)
    assert_same_module(loaded["G"], G)
    assert_same_module(loaded["D"], D)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_arrives_as_the_ordinary_unpickler_gives_it(protocol):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    shared = [1]
    data = dict(
        none=None,
        flags=[True, False],
        ints=[0, -1, 255, 256, 1 << 40, -(1 << 100)],
        floats=[0.5, float("inf")],
        text=["", "a\n\u00e9\U0001f600'\"\\"],
        data=[b"", b"\x00\xff" * 200, bytearray(b"xy")],
        nested=((), (1,), (1, (2, [3]))),
        sets=[{1, "a"}, frozenset({(1, "b")})],
        ordered=collections.OrderedDict([("b", 1), ("a", 2)]),
        number=3 + 4j,
        cut=slice(1, None, 2),
        same=[shared, shared],
        many=list(range(3000)),
        keys={i: str(i) for i in range(2000)},
        array=array,
        fortran=np.asfortranarray(array),
        transposed=array.T,
        big_endian=array.astype(">f4"),
        scalar=np.float32(1.5),
        empty=np.zeros([0, 3]),
        text_array=np.array(["a", "bc"]),
        dtype=np.dtype("<i8"),
        truth=np.bool_(True),
        size=torch.Size([1, 2]),
        torch_dtype=torch.float16,
        device=torch.device("cpu"),
    )
    loaded = load(pickle.dumps(data, protocol=protocol))
    expected = pickle.loads(pickle.dumps(data, protocol=protocol))
    for key, value in expected.items():
        assert type(loaded[key]) is type(value), key
        if isinstance(value, np.ndarray):
            assert loaded[key].dtype == value.dtype.newbyteorder("=") and np.array_equal(loaded[key], value), key
        else:
            assert loaded[key] == value and repr(loaded[key]) == repr(value), key
    assert loaded["same"][0] is loaded["same"][1]


def test_tensors_of_all_kinds():
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = [
        base,
        base.T,
        base[1:, ::2],
        base.half(),
        base.bfloat16(),
        base.long(),
        base > 3,
        torch.tensor(3.5),
        torch.zeros(0, 2),
        base.to(torch.complex64),
        torch.ones(1).expand(5),
        torch.nn.Parameter(base, requires_grad=False),
    ]
    loaded = load(pickle.dumps([tensors, base]))
    for tensor, other in zip(tensors, loaded[0]):
        assert type(tensor) is type(other) and torch.equal(tensor, other) and tensor.stride() == other.stride()
    assert loaded[1] is loaded[0][0]


def test_cycles_arrive():
    loop = {"list": []}
    loop["list"].append(loop)
    loaded = load(pickle.dumps(loop))
    assert loaded["list"][0] is loaded


def test_weights_only_modules_can_be_registered(monkeypatch):
    monkeypatch.setattr(rebuild, "_known_classes", dict(rebuild._known_classes))
    monkeypatch.setattr(networks, "Renamed", networks.FullyConnectedLayer, raising=False)
    safe_unpickle.register_known_class("Renamed", "training.networks")
    layer = networks.FullyConnectedLayer(2, 3)
    data = pickle.dumps(persistent("Renamed", "", layer.__dict__))
    with pytest.raises(UserError, match="should be a FullyConnectedLayer, but is Renamed"):
        load(data)
    safe_unpickle.register_known_class("Generator", "training.networks.Generator")  # again is harmless
    with pytest.raises(ValueError, match="taken"):
        safe_unpickle.register_known_class("Generator", "elsewhere")


# ---------------------------------------------------------------------------------------------------------------------
# Hostile files. `marker` is a path; a pickle bites if something appears there.


def touch(marker):
    return f"open({str(marker)!r}, 'w').close()"


def blob(obj):
    """torch.save as storages use it."""
    buffer = io.BytesIO()
    torch.save(obj, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def text_op(opcode, *lines):
    return opcode + b"".join(line.encode() + b"\n" for line in lines)


def short_text(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


class ObjectArray:
    """A numpy array whose elements run code while they are read."""

    def __init__(self, marker):
        self.array = np.empty(1, dtype=object)
        self.array[0] = Reduces(eval, (touch(marker),))

    def __reduce__(self):
        return self.array.__reduce__()


class StateTrick:
    """An object whose state is given to a foreign callable: BUILD calls __setstate__, or the sixth reduce item."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return dnnlib.EasyDict, (), [touch(self.marker)], None, None, exec_state


def exec_state(_obj, state):
    exec(state[0])


def bytes_of_setstate_in_easydict(marker):
    # EasyDict()['__setstate__'] = eval; BUILD then finds it through __getattr__ and calls it with the code.
    return b"\x80\x02cdnnlib.util\nEasyDict\n)\x81" + short_text("__setstate__") + b"c__builtin__\neval\ns" + text_op(b"V", touch(marker)) + b"b."


def build_hostile():
    """name -> function of the marker, giving the pickle's bytes (or an object to pickle)."""

    def lambda_chain(marker):
        import functools
        import operator

        return Reduces(functools.partial(operator.call if hasattr(operator, "call") else eval, eval), (touch(marker),))

    return {
        "os.system": lambda m: Reduces(os.system, (f"touch {m}",)),
        "posix.system by name": lambda m: b"cposix\nsystem\n(" + text_op(b"V", f"touch {m}") + b"tR.",
        "eval": lambda m: Reduces(eval, (touch(m),)),
        "exec": lambda m: Reduces(exec, (touch(m),)),
        "python 2 spelling": lambda m: b"c__builtin__\neval\n(" + text_op(b"V", touch(m)) + b"tR.",
        "getattr": lambda m: Reduces(Reduces(getattr, (Reduces(__import__, ("os",)), "system")), (f"touch {m}",)),
        "dotted name": lambda m: b"\x80\x04" + short_text("dnnlib") + short_text("util.os.system") + b"\x93" + short_text(f"touch {m}") + b"\x85R.",
        "dotted name of an allowed class": lambda m: (
            b"\x80\x04" + short_text("collections") + short_text("OrderedDict.__reduce__") + b"\x930." + pickle.dumps(Reduces(eval, (touch(m),)))
        ),
        "old-style instance": lambda m: b"(" + text_op(b"V", touch(m)) + text_op(b"i", "builtins", "eval") + b".",
        "object instruction": lambda m: b"(cbuiltins\neval\n" + text_op(b"V", touch(m)) + b"o.",
        "list item": lambda m: {"G": [1, Reduces(eval, (touch(m),))]},
        "subprocess": lambda m: Reduces(__import__("subprocess").call, ((["touch", str(m)]),)),
        "runpy": lambda m: Reduces(__import__("runpy")._run_code, (touch(m), {})),
        "functools and operator": lambda_chain,
        "attrgetter": lambda m: Reduces(
            Reduces(Reduces(__import__("operator").attrgetter, ("system",)), (Reduces(__import__, ("os",)),)), (f"touch {m}",)
        ),
        "map and list": lambda m: Reduces(list, (Reduces(map, (eval, [touch(m)])),)),
        "codecs": lambda m: Reduces(eval, (Reduces(__import__("codecs").decode, (touch(m).encode(), "utf-8")),)),
        "codecs of allowed name": lambda m: Reduces(__import__("_codecs").encode, ("x", "rot13")),
        "torch.load in a storage": lambda m: Reduces(torch.storage._load_from_bytes, (blob(Reduces(eval, (touch(m),))),)),
        "zip in a storage": lambda m: Reduces(torch.storage._load_from_bytes, (zip_blob(Reduces(eval, (touch(m),))),)),
        "torch.load": lambda m: Reduces(torch.load, (Reduces(io.BytesIO, (blob(Reduces(eval, (touch(m),))),)),)),
        "torch.jit": lambda m: Reduces(torch.jit.load, (str(m),)),
        "torch.hub": lambda m: b"ctorch.hub\nload\n(" + text_op(b"V", str(m)) + b"tR.",
        "tensor of a foreign type": lambda m: Reduces(torch._tensor._rebuild_from_type_v2, (eval, torch.Tensor, (touch(m),), {})),
        "tensor with hooks": lambda m: Reduces(
            torch._utils._rebuild_parameter, (torch.zeros(1), True, collections.OrderedDict(a=Reduces(eval, (touch(m),))))
        ),
        "numpy object array": ObjectArray,
        "numpy load": lambda m: Reduces(np.load, (Reduces(io.BytesIO, (npy_with_pickle(m),)), None, True)),
        "numpy subclass": lambda m: b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\neval\n(I0\ntS'b'\ntR.",
        "state setter": StateTrick,
        "setstate in an EasyDict": bytes_of_setstate_in_easydict,
        "EasyDict with arguments": lambda m: Reduces(dnnlib.EasyDict, (Reduces(eval, (touch(m),)),)),
        "EasyDict items": lambda m: Reduces(dnnlib.EasyDict, (), None, None, iter([("a", Reduces(eval, (touch(m),)))])),
        "defaultdict": lambda m: Reduces(collections.defaultdict, (os.getcwd,)),
        "import hook": lambda m: [Reduces(__import__("torch_utils.persistence").persistence.import_hook, (eval,)), persistent("A", touch(m), {})],
        "unknown class": lambda m: persistent("Malware", touch(m) + "\nclass Malware: pass\n", {}),
        "nested unknown class": lambda m: persistent(
            "Generator",
            touch(m) + "\nclass Generator: pass\n",
            dict(
                _init_args=(),
                _init_kwargs={},
                _parameters={},
                _buffers={},
                training=True,
                _modules={"mapping": persistent("Malware", touch(m) + "\nclass Malware: pass\n", {})},
            ),
        ),
        "code in the arguments": lambda m: persistent(
            "FullyConnectedLayer",
            "class FullyConnectedLayer: pass\n",
            dict(networks.FullyConnectedLayer(2, 2).__dict__, _init_args=(2, Reduces(eval, (touch(m) + " or 2",)))),
        ),
        "copyreg extension": lambda m: Reduces(__import__("copyreg").add_extension, ("builtins", "eval", 77)),
        "extension code": lambda m: b"\x80\x02\x82\x4d" + text_op(b"V", touch(m)) + b"\x85R.",
        "copyreg reconstructor": lambda m: b"ccopyreg\n_reconstructor\n(cbuiltins\nset\ncbuiltins\nobject\nNtR.",
        "persistent id": lambda m: text_op(b"P", str(m)) + b".",
        "binary persistent id": lambda m: b"\x80\x02" + text_op(b"V", str(m)) + b"Q.",
        "class as a value": lambda m: eval,
        "call of a value": lambda m: b"\x80\x02" + text_op(b"V", str(m)) + b")R.",
        "call of a rebuilt network": lambda m: Reduces(networks.FullyConnectedLayer(2, 2), (torch.zeros(1, 2),)),
        "new instance": lambda m: b"\x80\x02csubprocess\nPopen\n(](" + text_op(b"V", "touch") + text_op(b"V", str(m)) + b"et\x81.",
        "class with arguments": lambda m: b"\x80\x02ccollections\nOrderedDict\n(" + text_op(b"V", str(m)) + b"t\x81.",
        "state for a function": lambda m: b"\x80\x02ccollections\nOrderedDict\n}" + text_op(b"V", "x") + b"Nsb.",
        "state for a list": lambda m: b"\x80\x02]}" + text_op(b"V", "x") + b"Nsb.",
    }


def zip_blob(obj):
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def npy_with_pickle(marker):
    buffer = io.BytesIO()
    np.save(buffer, ObjectArray(marker).array, allow_pickle=True)
    return buffer.getvalue()


# These do not run code when read by the ordinary unpickler either; they must be refused for what they could lead to.
SILENT = {
    "codecs of allowed name",
    "import hook",
    "torch.load",
    "new instance",
    "copyreg reconstructor",
    "torch.jit",
    "torch.hub",
    "defaultdict",
    "numpy subclass",
    "copyreg extension",
    "extension code",
    "persistent id",
    "binary persistent id",
    "class as a value",
    "call of a value",
    "call of a rebuilt network",
    "class with arguments",
    "state for a function",
    "state for a list",
    "dotted name of an allowed class",
    "numpy load",
}
HOSTILE = build_hostile()


def hostile_bytes(name, marker):
    content = HOSTILE[name](marker)
    return content if isinstance(content, bytes) else pickle.dumps(content)


def imported():
    return {name for name in sys.modules if not name.startswith("encodings.")}  # Python's own decoders come when needed


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_pickles_leave_no_trace(name, tmp_path, monkeypatch):
    # What a hostile file could change beside the marker.
    monkeypatch.setattr("torch_utils.persistence._import_hooks", [])
    marker = tmp_path / "marker"
    data = hostile_bytes(name, marker)
    marker.unlink(missing_ok=True)
    if name not in SILENT:
        try:
            pickle.loads(data)
        except Exception:  # after the code has run, the rest may fail in any way
            pass
        assert marker.exists(), "this pickle would not have bitten anybody"
        marker.unlink()
    modules_before = imported()
    with pytest.raises(UserError) as caught:
        load(data, name="evil.pkl")
    assert not marker.exists()
    assert imported() == modules_before  # not even an import
    text = str(caught.value)
    assert text.startswith("evil.pkl was refused: it holds ") and "--trust-pickle" in text and "trust=True" in text


def test_at_least_ten_kinds_really_bite():
    assert len(set(HOSTILE) - SILENT) > 20


def test_source_under_a_known_name_is_not_executed(tmp_path):
    marker = tmp_path / "marker"
    layer = networks.FullyConnectedLayer(2, 3)
    source = touch(marker) + "\nclass FullyConnectedLayer:\n    pass\n"
    data = pickle.dumps(persistent("FullyConnectedLayer", source, layer.__dict__))
    assert_same_module(load(data), layer)
    assert not marker.exists()
    load(data, trust=True)
    assert marker.exists()


def test_hooks_and_odd_state_of_a_known_class_do_nothing(tmp_path):
    layer = networks.FullyConnectedLayer(2, 3)
    state = dict(layer.__dict__, __setstate__=1, __class__="x", forward="not a method", extra=[1, 2])
    loaded = load(pickle.dumps(persistent("FullyConnectedLayer", "", state)))
    assert_same_module(loaded, layer)
    assert callable(loaded.forward) and not hasattr(loaded, "extra")


def test_tensors_that_ride_on_a_network_arrive_and_take_nobodys_place():
    layer = networks.FullyConnectedLayer(2, 3)
    ride = {"memory": torch.arange(3)}
    state = dict(layer.__dict__, _plugin_state=ride, forward=ride, training_note={"text": "no tensor"})
    loaded = load(pickle.dumps(persistent("FullyConnectedLayer", "", state)))
    assert torch.equal(loaded._plugin_state["memory"], torch.arange(3)) and not hasattr(loaded, "training_note")
    assert loaded(torch.zeros(1, 2)).shape == (1, 3)  # forward is still the method
    assert torch.equal(load(pickle.dumps(loaded))._plugin_state["memory"], torch.arange(3))


def test_the_message_names_the_class(tmp_path):
    with pytest.raises(UserError, match="refused: it holds embedded code: class Malware, which is not known here"):
        load(pickle.dumps(persistent("Malware", "", {})))
    with pytest.raises(UserError, match="refused: it holds posix.system"):
        load(hostile_bytes("os.system", tmp_path / "marker"))


# ---------------------------------------------------------------------------------------------------------------------
# Other networks under known names.


def altered(layer, **changes):
    return pickle.dumps(persistent(type(layer).__name__, "", dict(layer.__dict__, **changes)))


def test_foreign_networks_of_the_same_name_are_refused(nets):
    G, _ = nets
    cases = {
        # StyleGAN3 gives the synthesis arguments to the generator itself.
        "got an unexpected keyword argument 'channel_base'": dict(
            _init_kwargs=dict(z_dim=4, c_dim=2, w_dim=4, img_resolution=8, img_channels=3, channel_base=128)
        ),
        "missing a required argument: 'img_channels'": dict(_init_kwargs=dict(z_dim=4, c_dim=2, w_dim=4, img_resolution=8)),
        "power of two": dict(_init_kwargs=dict(G.init_kwargs, img_resolution=9)),
        "additional modules": dict(_modules={**G._modules, "extra": networks.FullyConnectedLayer(1, 1)}),
        "mapping should be a MappingNetwork, but is nothing": dict(_modules={"synthesis": G.synthesis}),
        "mapping should be a MappingNetwork, but is FullyConnectedLayer": dict(
            _modules={"synthesis": G.synthesis, "mapping": networks.FullyConnectedLayer(1, 1)}
        ),
        "additionally has 1 tensors: noise": dict(_buffers={"noise": torch.zeros(1)}),
        r"affine.weight should be \[8, 5\] torch.float32, but is \[8, 4\]": dict(_init_kwargs=dict(G.init_kwargs, w_dim=5)),
        "a Generator without its constructor arguments": dict(_init_kwargs=None),
        "num_ws|absurdly large": dict(_init_kwargs=dict(G.init_kwargs, img_resolution=10**9)),
        "which is absurdly large": dict(_init_kwargs=dict(G.init_kwargs, mapping_kwargs=dict(num_layers=10**6))),
        "an object of type Linear among its modules|torch.nn.modules.linear.Linear": dict(_modules={"mapping": torch.nn.Linear(1, 1)}),
    }
    for message, changes in cases.items():
        with pytest.raises(UserError, match="refused") as caught:
            load(altered(G, **changes))
        assert caught.match(message), str(caught.value)


def test_foreign_layers_of_the_same_name_are_refused():
    layer = networks.FullyConnectedLayer(2, 3)
    tensors = dict(layer._parameters)
    cases = {
        "lacks 1 tensors: bias": dict(_parameters={"weight": tensors["weight"]}),
        r"weight should be \[3, 2\] torch.float32, but is \[3, 2\] torch.float16": dict(
            _parameters=dict(tensors, weight=torch.nn.Parameter(tensors["weight"].detach().half()))
        ),
        "parameters and buffers are interchanged": dict(_parameters={"weight": tensors["weight"]}, _buffers={"bias": tensors["bias"]}),
        "activation should be 'linear', but is lrelu": dict(activation="lrelu"),
        "not a torch module": dict(_modules=None),
        "among its tensors": dict(_parameters=dict(tensors, weight=[1.0])),
        "cannot|KeyError|nosuch": dict(_init_kwargs=dict(activation="nosuch")),
    }
    for message, changes in cases.items():
        with pytest.raises(UserError, match="refused") as caught:
            load(altered(layer, **changes))
        assert caught.match(message), str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# Bombs and damage.


def raw_tensor(storage_numbers, offset, size, stride):
    storage = torch.storage.TypedStorage(wrap_storage=torch.zeros(storage_numbers).untyped_storage(), dtype=torch.float32, _internal=True)
    return Reduces(torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, collections.OrderedDict()))


@pytest.mark.parametrize(
    "size, stride, offset",
    [((1 << 40,), (1,), 0), ((1 << 40,), (0,), 0), ((2, 2), (1 << 50, 1), 0), ((2,), (1,), 1 << 50), ((2,), (1,), -1), ((-2,), (1,), 0)],
)
def test_tensors_larger_than_their_data_are_refused(size, stride, offset):
    with pytest.raises(UserError, match="refused.*(larger than its data|impossible shape)"):
        load(pickle.dumps(raw_tensor(4, offset, size, stride)))


def test_repeated_tensors_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr(rebuild, "MAX_REPEATED_ELEMENTS", 100)
    layer = networks.FullyConnectedLayer(100, 50)
    parameters = {name: torch.nn.Parameter(torch.zeros(1).expand(tensor.shape)) for name, tensor in layer._parameters.items()}
    with pytest.raises(UserError, match="refused.*far more memory than the file holds"):
        load(altered(layer, _parameters=parameters))


BOMBS = {
    "memo index": b"\x80\x02]r\xff\xff\xff\xff.",
    "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
    "text that is not there": b"\x80\x02X\xff\xff\xff\xffx.",
    "frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "deep lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "deep tuples as a key": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.",
    "deep tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
    "range in a set": b"\x80\x02c__builtin__\nset\nc__builtin__\nrange\nI1000000000000\n\x85R\x85R.",
    "bytes of a length": b"\x80\x02c__builtin__\nbytearray\nI1000000000000\n\x85R.",
    "network that contains itself": b"\x80\x02ctorch_utils.persistence\n_reconstruct_persistent_obj\n}q\x00("
    + b"".join(
        short_text(key) + value
        for key, value in {
            "type": short_text("class"),
            "version": b"K\x06",
            "class_name": short_text("Generator"),
            "state": b"}q\x01("
            + short_text("_init_args")
            + b")"
            + short_text("_init_kwargs")
            + b"}"
            + short_text("_parameters")
            + b"}"
            + short_text("_buffers")
            + b"}"
            + short_text("_modules")
            + b"}q\x02u",
        }.items()
    )
    + b"u\x85Rq\x03h\x02"
    + short_text("mapping")
    + b"h\x03s0h\x03.",
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bombs_end_in_a_sentence(name):
    if name in ("memo index", "frame that is not there"):  # harmless here: the memo is no array, frames mean nothing
        assert load(BOMBS[name]) in ([], None)
        return
    with pytest.raises(UserError, match="refused|damaged"):
        load(BOMBS[name])


def test_laughing_lists_cost_nothing():
    laughs = []
    for _ in range(60):
        laughs = [laughs, laughs]
    loaded = load(pickle.dumps(laughs))
    assert loaded[0] is loaded[1]
    layer = networks.FullyConnectedLayer(2, 3)
    with pytest.raises(UserError, match="refused.*absurd size"):
        load(altered(layer, _init_args=(2, 3, laughs)))


def test_damaged_pickles_are_called_damaged(nets):
    data = pickle.dumps(nets[0].mapping)
    rng = np.random.RandomState(0)
    for length in [0, 1, 2, *rng.randint(3, len(data) - 1, 15)]:
        with pytest.raises(UserError, match="damaged or incomplete|refused"):
            load(data[:length])
    for _ in range(60):  # flipped bits: a sentence, or a network if only weights were hit
        broken = bytearray(data)
        broken[rng.randint(len(data))] ^= 1 << rng.randint(8)
        try:
            assert isinstance(load(bytes(broken)), networks.MappingNetwork)
        except UserError:
            pass


def test_random_instruction_streams_never_escape(tmp_path):
    """Whatever the opcodes, the outcome is data or a UserError."""
    rng = np.random.RandomState(1)
    pieces = [
        b"N",
        b"]",
        b"}",
        b")",
        b"(",
        b"t",
        b"l",
        b"d",
        b"a",
        b"s",
        b"u",
        b"e",
        b"R",
        b"b",
        b"\x81",
        b"\x85",
        b"0",
        b"2",
        b"\x94",
        b"q\x00",
        b"h\x00",
        b"\x8f",
        b"\x90",
        b"\x91",
        b"K\x02",
        b"\x8c\x01a",
        b"C\x02bb",
        b"ccollections\nOrderedDict\n",
        b"cdnnlib\nEasyDict\n",
        b"c__builtin__\nset\n",
        b"ctorch\nSize\n",
        b"cnumpy\ndtype\n",
        b"ccopyreg\n_reconstructor\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n",
    ]
    pieces += [pickle.dumps(value, protocol=2)[2:-1] for value in (torch.zeros(2), np.zeros(2), np.dtype("<i4"), torch.Size([1]))]
    outcomes = collections.Counter()
    for _ in range(3000):
        data = b"\x80\x04" + b"".join(pieces[i] for i in rng.randint(len(pieces), size=rng.randint(1, 12))) + b"."
        try:
            load(data)
            outcomes["data"] += 1
        except UserError:
            outcomes["sentence"] += 1
    assert outcomes["data"] > 20 and outcomes["sentence"] > 20


def test_files_without_seek(nets):
    class Stream:
        def __init__(self, data):
            self.read = io.BytesIO(data).read

    assert_same_module(safe_unpickle.load(Stream(pickle.dumps(nets[1]))), nets[1])


# ---------------------------------------------------------------------------------------------------------------------
# Trust.


def test_trust_runs_the_file(tmp_path):
    marker = tmp_path / "marker"
    load(pickle.dumps(Reduces(eval, (touch(marker),))), trust=True)
    assert marker.exists()
    source = "from torch_utils import persistence\n@persistence.persistent_class\nclass Foreign:\n    pass\n"
    assert load(pickle.dumps(persistent("Foreign", source, dict(a=3))), trust=True).a == 3


def test_trusted_files_still_fail_in_sentences():
    with pytest.raises(UserError, match="needs the Python module 'no_such_module'"):
        load(b"cno_such_module\nThing\n.", trust=True)
    with pytest.raises(UserError, match="damaged or incomplete"):
        load(pickle.dumps([1, 2, 3])[:-2], trust=True)


def test_the_table_holds_no_doors():
    """Everything that a stream may call is a function of ours; real callables of Python, torch and numpy are not in reach."""
    from torch_utils import safe_globals

    for (module, name), entry in safe_globals.TABLE.items():
        assert isinstance(entry, (pickle_machine.Function, torch.dtype, torch.memory_format, torch.layout)), (module, name)
    assert not any("." in name or name.startswith("__") for _, name in safe_globals.TABLE)
    assert not set(itertools.chain.from_iterable(safe_globals.TABLE)) & {"eval", "exec", "getattr", "os", "posix", "load", "type"}
