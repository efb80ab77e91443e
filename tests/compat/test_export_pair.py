"""Snapshots as safetensors + JSON and back: bit-equal, from any folder, and as safe as the pickles."""

import json
import os
import pickle

import pytest
import torch

import dnnlib
import export
import legacy
from dnnlib import cli
from dnnlib.errors import UserError
from madr_plugin.augment_pipe import MADRAugmentPipe
from training import augment, networks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with snapshot.pkl and its exported pair."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    G = (
        networks.Generator(4, 0, 4, 8, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=dnnlib.EasyDict(channel_base=64, channel_max=8))
        .eval()
        .requires_grad_(False)
    )
    G_ema = pickle.loads(pickle.dumps(G))
    G_ema.mapping.w_avg.fill_(float("nan"))  # bits, not values
    D = networks.Discriminator(c_dim=0, img_resolution=8, img_channels=3, channel_base=64, channel_max=8, num_fp16_res=1)
    pipe = augment.AugmentPipe(xflip=1)
    pipe.p.fill_(0.3)
    kwargs = dnnlib.EasyDict(path="cats.zip", max_size=None, crop=(1, 2), more=[1.5, {"a": True}])
    (folder / "snapshot.pkl").write_bytes(pickle.dumps(dict(G=G, D=D, G_ema=G_ema, augment_pipe=pipe, training_set_kwargs=kwargs, cur_nimg=5000)))
    export.export_snapshot(folder / "snapshot.pkl", folder / "pair")
    return folder


def bits(module):
    return {name: tensor.contiguous().view(-1).view(torch.uint8).tolist() for name, tensor in module.state_dict().items() if tensor.ndim}


def test_back_again_is_bit_equal(folder):
    original, back = legacy.open_network(folder / "snapshot.pkl"), export.import_snapshot(folder / "pair.safetensors")
    assert original.keys() == back.keys() and back["cur_nimg"] == 5000
    for key in ("G", "D", "G_ema", "augment_pipe"):
        one, two = original[key], back[key]
        assert type(one) is type(two) and bits(one) == bits(two)
        assert one.init_args == two.init_args and one.init_kwargs == two.init_kwargs
        assert [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in two.parameters()]
        assert [m.training for m in one.modules()] == [m.training for m in two.modules()]
    assert float(back["augment_pipe"].p) == float(original["augment_pipe"].p)
    assert back["training_set_kwargs"] == original["training_set_kwargs"]
    assert type(back["training_set_kwargs"]) is dnnlib.EasyDict and type(back["G"].init_kwargs.synthesis_kwargs) is dnnlib.EasyDict


def test_the_same_snapshot_gives_the_same_bytes(folder, tmp_path):
    for extension in ("", ".json"):
        export.export_snapshot(folder / "snapshot.pkl", tmp_path / f"again{extension}")
        for suffix in (".json", ".safetensors"):
            assert (tmp_path / f"again{suffix}").read_bytes() == (folder / f"pair{suffix}").read_bytes()


def test_the_json_tells_where_it_comes_from(folder):
    document = json.loads((folder / "pair.json").read_text())
    assert document["provenance"]["file"] == "snapshot.pkl" and len(document["provenance"]["sha256"]) == 64
    assert document["networks"]["G"]["class_name"] == "Generator"


def test_command_line_from_any_folder(folder, tmp_path, repo, capsys, runner):
    done = runner.run([repo / "export.py", f"--source={folder / 'pair.json'}", "--dest=back.pkl"], tmp_path, repo)
    assert done.returncode == 0, done.stderr
    assert bits(legacy.open_network(tmp_path / "back.pkl")["G_ema"]) == bits(legacy.open_network(folder / "snapshot.pkl")["G_ema"])
    for source, dest, message in [("snapshot.pkl", "x.pkl", "--dest must not end in .pkl"), ("pair.json", "x", "--dest must end in .pkl")]:
        assert cli.call(export.main, ["--source", str(folder / source), "--dest", str(tmp_path / dest)]) == 1
        assert capsys.readouterr().err.startswith(f"Error: {message}")
    assert sorted(os.listdir(tmp_path)) == ["back.pkl"]


def edited(folder, tmp_path, edit):
    document = json.loads((folder / "pair.json").read_text())
    edit(document)
    (tmp_path / "pair.json").write_text(json.dumps(document))
    (tmp_path / "pair.safetensors").write_bytes((folder / "pair.safetensors").read_bytes())
    return tmp_path / "pair.json"


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda d: d["networks"]["G"].update(class_name="os.system"), "refused.*class os.system"),
        (lambda d: d["networks"]["G"]["init_kwargs"].update(__easydict__={"img_resolution": 10**9}), "refused.*absurdly large"),
        (lambda d: d["networks"]["G"].update(init_args=[4, 0, 4, 16, 3]), "refused.*not the Generator known here"),
        (lambda d: d["networks"]["G"].pop("training"), "not a whole description"),
        (lambda d: d.update(networks=[]), "not a whole description"),
        (lambda d: d.update(format="else"), "does not describe networks"),
    ],
)
def test_edited_descriptions_end_in_a_sentence(folder, tmp_path, edit, message):
    with pytest.raises(UserError, match=message):
        export.import_snapshot(edited(folder, tmp_path, edit))


def test_damaged_pairs_end_in_a_sentence(folder, tmp_path):
    path = edited(folder, tmp_path, lambda document: None)
    (tmp_path / "pair.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="pair.safetensors is damaged"):
        export.import_snapshot(path)
    (tmp_path / "pair.safetensors").unlink()
    with pytest.raises(UserError, match="must lie beside"):
        export.import_snapshot(path)
    path.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        export.import_snapshot(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        export.import_snapshot(path)


def test_no_pickle_is_written_over(folder, tmp_path, capsys):
    """A pair holds networks alone: written over the snapshot it was made of, it would end what rides along there."""
    dest = tmp_path / "fork.pkl"
    dest.write_bytes(b"the only copy")
    for command, source in ((export.main, "pair.json"), (legacy.main, "snapshot.pkl"), (legacy.main, "pair.json")):
        assert cli.call(command, [f"--source={folder / source}", f"--dest={dest}"]) == 1
        err = capsys.readouterr().err
        assert f"--dest={dest} exists already" in err and "give another name, or delete that file first" in err
    assert dest.read_bytes() == b"the only copy" and os.listdir(tmp_path) == ["fork.pkl"]


def test_what_rides_along_is_said_to_stay_behind(folder, tmp_path, capsys):
    assert cli.call(export.main, [f"--source={folder / 'snapshot.pkl'}", f"--dest={tmp_path / 'plain'}"]) == 0
    assert "left out" not in capsys.readouterr().err
    data = legacy.open_network(folder / "snapshot.pkl")
    pipe = MADRAugmentPipe(base=data["augment_pipe"])
    pipe.carry(dict(step=torch.tensor(7), memory__features=torch.arange(6.0)))
    (tmp_path / "fork.pkl").write_bytes(pickle.dumps(dict(data, augment_pipe=pipe)))
    assert cli.call(export.main, [f"--source={tmp_path / 'fork.pkl'}", f"--dest={tmp_path / 'pair'}"]) == 0
    err = capsys.readouterr().err
    assert "2 tensors that ride on augment_pipe are left out" in err and f"Keep {tmp_path / 'fork.pkl'}" in err


@pytest.mark.parametrize("place", ["/proc/no-folder/x", "FILE/x", "FILE/more/x"])
def test_a_place_without_a_folder_is_said_before_anything_is_loaded(folder, tmp_path, capsys, monkeypatch, place):
    (tmp_path / "file").write_text("")
    place = place.replace("FILE", str(tmp_path / "file"))
    for name in ("open_network", "load_network_pkl"):
        monkeypatch.setattr(legacy, name, None)
    monkeypatch.setattr(export, "import_snapshot", None)
    for command, source, ending in (
        (legacy.main, "snapshot.pkl", ".pkl"),
        (export.main, "snapshot.pkl", ""),
        (export.main, "snapshot.pkl", ".pt"),
        (export.main, "pair.json", ".pkl"),
    ):
        assert cli.call(command, [f"--source={folder / source}", f"--dest={place}{ending}"]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"Error: --dest={place}{ending} cannot be written to") and "choose another folder" in err and "Traceback" not in err


def test_a_missing_source_leaves_no_folder_behind(tmp_path):
    for command, dest in ((legacy.main, "new/x.pkl"), (export.main, "new/x"), (export.main, "new/x.pt")):
        assert cli.call(command, [f"--source={tmp_path / 'gone.pkl'}", f"--dest={tmp_path / dest}"]) == 1
    assert cli.call(export.main, [f"--source={tmp_path / 'gone.json'}", f"--dest={tmp_path / 'new/x.pkl'}"]) == 1
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_exported_is_said(folder, tmp_path):
    data = legacy.open_network(folder / "snapshot.pkl")
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(dict(data, note={1, 2})))
    with pytest.raises(UserError, match="note holds a set, which cannot be written as JSON"):
        export.export_snapshot(tmp_path / "odd.pkl", tmp_path / "odd")
    assert sorted(os.listdir(tmp_path)) == ["odd.pkl"]
