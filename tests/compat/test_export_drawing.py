"""export.py --format=torchscript|onnx: one file that draws what the network draws, in any number of images."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

import export
from dnnlib import cli
from dnnlib.errors import UserError
from torch_utils import runnable
from training import networks

onnxruntime = pytest.importorskip("onnxruntime")


def generator(c_dim):
    torch.manual_seed(0)
    G = networks.Generator(
        4, c_dim, 4, 8, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=dict(channel_base=64, channel_max=8, num_fp16_res=1, conv_clamp=256)
    )
    G = G.eval().requires_grad_(False)
    G.mapping.w_avg.normal_()
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    return G


def saved(path, c_dim):
    """(path of a network pickle, its G)"""
    G = generator(c_dim)
    D = networks.Discriminator(c_dim=c_dim, img_resolution=8, img_channels=3, channel_base=64, channel_max=8)
    path.write_bytes(pickle.dumps(dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=None)))
    return path, G


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("drawing") / "net.pkl", c_dim=3)


def inputs(G, count):
    z = torch.from_numpy(np.random.RandomState(5).randn(count, G.z_dim)).float()
    return (z, torch.eye(G.c_dim)[[i % G.c_dim for i in range(count)]]) if G.c_dim else (z,)


def drawn(G, arguments, **how):
    with torch.no_grad():
        return G(arguments[0], arguments[1] if G.c_dim else torch.zeros([len(arguments[0]), 0]), force_fp32=True, **how)


def call(*arguments):
    return cli.call(export.main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("c_dim", [0, 3])
def test_torchscript_draws_the_images_of_the_network(c_dim, tmp_path, capsys):
    path, G = saved(tmp_path / "net.pkl", c_dim)
    assert call("--source", path, "--dest", tmp_path / "new" / "net.pt", "--format=torchscript", "--trunc=0.5") == 0
    out = capsys.readouterr().out
    assert "Wrote" in out and "Inputs: z [batch, 4]" in out and ("c [batch, 3]" in out) == bool(c_dim)
    assert "Output: image [batch, 3, 8, 8]" in out
    assert call("--source", tmp_path / "new" / "net.pt", "--dest", tmp_path / "back.pkl") == 1
    err = capsys.readouterr().err
    assert "TorchScript" in err and "cannot be turned back" in err and not (tmp_path / "back.pkl").exists()
    facts = {runnable.FACTS_FILE: ""}
    module = torch.jit.load(str(tmp_path / "new" / "net.pt"), _extra_files=facts)
    for count in (1, 5):
        arguments = inputs(G, count)
        assert torch.allclose(
            module(*arguments), drawn(G, arguments, truncation_psi=0.5, noise_mode="const"), atol=runnable.TOLERANCE, rtol=runnable.TOLERANCE
        )
    facts = json.loads(facts[runnable.FACTS_FILE])
    assert (facts["z_dim"], facts["c_dim"], facts["truncation_psi"], facts["noise_mode"]) == (4, G.c_dim, 0.5, "const") and len(facts["sha256"]) == 64


def test_onnx_draws_the_images_of_the_network(snapshot, tmp_path, capsys):
    path, G = snapshot
    assert call("--source", path, "--dest", tmp_path / "net.onnx", "--noise-mode=none") == 0  # the ending says which format
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == (["z", "c"] if G.c_dim else ["z"])
    assert [one.name for one in session.get_outputs()] == ["image"]
    for count in (1, 5):
        arguments = inputs(G, count)
        [image] = session.run(None, dict(zip("zc", (argument.numpy() for argument in arguments))))
        expected = drawn(G, arguments, noise_mode="none").numpy()
        assert image.shape == expected.shape and np.allclose(image, expected, atol=runnable.TOLERANCE, rtol=runnable.TOLERANCE)
    assert json.loads(session.get_modelmeta().custom_metadata_map["noise_mode"]) == "none"
    assert call("--source", tmp_path / "net.onnx", "--dest", tmp_path / "back.pkl") == 1
    err = capsys.readouterr().err
    assert "ONNX" in err and "cannot be turned back" in err
    assert os.listdir(tmp_path) == ["net.onnx"]


class _Unusual(torch.nn.Module):
    """A generator with a step that ONNX has no operation for."""

    z_dim, c_dim = 4, 0

    def mapping(self, z, c, truncation_psi=1):
        return torch.special.bessel_j0(z)

    def synthesis(self, ws, noise_mode, force_fp32, fused_modconv):
        return ws[:, None, None]


def test_a_layer_that_onnx_cannot_hold_is_named_and_the_remedy_helps():
    made = runnable.drawing(_Unusual())
    with pytest.raises(UserError, match="ONNX cannot hold this network: .*bessel_j0.*--format=torchscript"):
        runnable.as_onnx(made, {})
    assert runnable.largest_difference(runnable.run_torchscript(runnable.as_torchscript(made, {})), made) <= runnable.TOLERANCE


def test_a_file_that_draws_something_else_is_not_written():
    class Frozen(_Unusual):
        def synthesis(self, ws, **how):
            return ws[:, None, None] * float(ws[0, 0])  # a trace keeps the number

    made = runnable.drawing(Frozen())
    with pytest.raises(UserError, match="would draw other images"):
        runnable.largest_difference(runnable.run_torchscript(runnable.as_torchscript(made, {})), made)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--format=onnx", "--dest=x.pt"], ["--dest=x.pt", "--format=onnx", ".onnx"]),
        (["--format=torchscript", "--dest=x"], ["--format=torchscript", ".pt"]),
        (["--format=safetensors", "--dest=x.onnx"], ["--dest=x.onnx", "--format=safetensors"]),
        (["--dest=x.pth"], ["--dest=x.pth", ".pt (", ".onnx", ".safetensors", ".pkl"]),
        (["--dest=x.pth", "--format=safetensors"], ["--dest=x.pth", ".safetensors"]),
        (["--dest=new/"], ["--dest=new/ names no file", "new/network"]),
        (["--dest=x", "--trunc=0.5"], ["--trunc has no effect"]),
        (["--dest=x", "--noise-mode=none"], ["--noise-mode has no effect"]),
        (["--dest=x.onnx", "--trunc=nan"], ["--trunc", "finite"]),
    ],
)
def test_faults_are_sentences_and_leave_nothing(snapshot, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert call("--source", snapshot[0], *arguments) != 0
    err = capsys.readouterr().err
    assert "Traceback" not in err and all(word in err for word in words), err
    assert os.listdir(tmp_path) == []


def test_a_number_behind_the_last_point_is_no_ending():
    assert export.form_of("out/cats-0.7", None) == "safetensors" and export.form_of("./out.d/cats", None) == "safetensors"


def test_help_names_run_folders_and_no_empty_range(capsys):
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert "x<=None" not in out and "run folder" in out


def test_missing_packages_are_named_before_any_work(snapshot, tmp_path, monkeypatch, capsys):
    find = runnable.importlib.util.find_spec
    monkeypatch.setattr(runnable.importlib.util, "find_spec", lambda name, *more: None if name == "onnxscript" else find(name, *more))
    assert call("--source", snapshot[0], "--dest", tmp_path / "net.onnx") == 1
    assert "pip install onnxscript" in capsys.readouterr().err and os.listdir(tmp_path) == []


def test_interrupting_leaves_no_file(snapshot, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runnable, "largest_difference", interrupted)
    assert call("--source", snapshot[0], "--dest", tmp_path / "net.pt") == 130
    assert "Traceback" not in capsys.readouterr().err and os.listdir(tmp_path) == []
