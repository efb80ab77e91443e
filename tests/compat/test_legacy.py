"""Opening network files: upstream's call forms, and a sentence for every mix-up."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

import dnnlib
import legacy
from dnnlib import cli
from dnnlib.errors import UserError
from training import augment, networks


@pytest.fixture(scope="module")
def snapshot():
    torch.manual_seed(0)
    G = (
        networks.Generator(4, 0, 4, 8, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=dnnlib.EasyDict(channel_base=64, channel_max=8))
        .eval()
        .requires_grad_(False)
    )
    D = networks.Discriminator(c_dim=0, img_resolution=8, img_channels=3, channel_base=64, channel_max=8).eval().requires_grad_(False)
    kwargs = dnnlib.EasyDict(class_name="training.dataset.ImageFolderDataset", path="cats.zip")
    return dict(G=G, D=D, G_ema=G, augment_pipe=augment.AugmentPipe(xflip=1), training_set_kwargs=kwargs)


@pytest.fixture
def path(snapshot, tmp_path):
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(pickle.dumps(snapshot))
    return path


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


def test_upstreams_call_forms(path, snapshot):
    with open(path, "rb") as f:
        G = legacy.load_network_pkl(f)["G_ema"].to("cpu")
    z = torch.randn(1, G.z_dim)
    assert torch.equal(G(z, None, noise_mode="const"), snapshot["G_ema"](z, None, noise_mode="const"))
    with dnnlib.util.open_url(str(path)) as f:
        data = legacy.load_network_pkl(f, force_fp16=False)
    assert data.keys() == snapshot.keys() and data["training_set_kwargs"] == snapshot["training_set_kwargs"]
    with open(path, "rb") as f:
        assert torch.equal(pickle.load(f)["G_ema"](z, None, noise_mode="const"), G(z, None, noise_mode="const"))
    for name in (str(path), path, path.as_uri()):
        assert legacy.open_network(name)["G"].img_resolution == 8
    assert type(legacy.open_network(path, trust=True)["G"]) is networks.Generator


def test_keys_that_old_snapshots_lack(tmp_path, snapshot):
    data = legacy.open_network(write(tmp_path / "old.pkl", {key: snapshot[key] for key in ("G", "D", "G_ema")}))
    assert data["augment_pipe"] is None and data["training_set_kwargs"] is None


def test_force_fp16(path, snapshot):
    with open(path, "rb") as f:
        data = legacy.load_network_pkl(f, force_fp16=True)
    G, D = data["G_ema"], data["D"]
    assert G.init_kwargs.synthesis_kwargs == dict(channel_base=64, channel_max=8, num_fp16_res=4, conv_clamp=256)
    assert (D.init_kwargs.num_fp16_res, D.init_kwargs.conv_clamp) == (4, 256)
    assert G.synthesis.b8.use_fp16 and not G.synthesis.b4.use_fp16 and G.synthesis.b8.conv1.conv_clamp == 256
    for network, old in ((G, snapshot["G"]), (D, snapshot["D"])):
        assert not network.training and not any(p.requires_grad for p in network.parameters())
        for (name, one), (other_name, other) in zip(network.state_dict().items(), old.state_dict().items()):
            assert name == other_name and torch.equal(one, other)
    again = io.BytesIO(pickle.dumps(data))
    assert legacy.load_network_pkl(again, force_fp16=True)["G"].init_kwargs == data["G"].init_kwargs


def problems(tmp_path, snapshot):
    data = pickle.dumps(snapshot)
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", b"x")
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    yield str(tmp_path / "missing.pkl"), "missing.pkl: there is no such file"
    yield str(tmp_path / "folder"), "is a folder"
    yield "", "has no name"
    yield str(tmp_path / "images.zip"), "images.zip is a zip archive .* not a network pickle"
    yield str(tmp_path / "state.pt"), "state.pt is a zip archive"
    for name, content, message in [
        ("empty.pkl", b"", "empty.pkl is empty"),
        ("half.pkl", data[: len(data) // 2], "half.pkl is damaged or incomplete.*copy or download it again"),
        ("cut.pkl", data[:-1], "cut.pkl is damaged or incomplete"),
        ("text.pkl", b"hello", "text.pkl is not a pickle"),
        ("page.pkl", b"\n<!DOCTYPE html><html>", "page.pkl is a web page"),
        ("lfs.pkl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("list.pkl", [1], "not of networks .it holds a list"),
        ("stats.pkl", dict(mean=1), "it has no network 'G' .it holds mean"),
        ("no_ema.pkl", dict(G=snapshot["G"], D=snapshot["D"]), "it has no network 'G_ema' .it holds D, G"),
        ("no_module.pkl", dict(snapshot, G_ema={"weights": 1}), "it has no network 'G_ema'"),
        ("odd.pkl", dict(snapshot, training_set_kwargs=[1]), "its training_set_kwargs is a list"),
        ("evil.pkl", b"cposix\nsystem\n(Vecho\ntR.", "evil.pkl was refused: it holds posix.system.*--trust-pickle"),
        ("tf.pkl", b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01}q\x02b.", "TensorFlow.*--source=old.pkl --dest=new.pkl"),
        ("pggan.pkl", b"\x80\x02ctfutil\nNetwork\nq\x00)\x81q\x01}q\x02b.", "TensorFlow"),
    ]:
        yield str(write(tmp_path / name, content)), message


def test_every_mixup_has_its_sentence(tmp_path, snapshot):
    for path, message in problems(tmp_path, snapshot):
        with pytest.raises(UserError, match=message):
            legacy.open_network(path)


def test_tensorflow_pickles_under_trust(tmp_path):
    path = write(tmp_path / "tf.pkl", b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01}q\x02b.")
    with pytest.raises(UserError, match="tf.pkl is a pickle of the TensorFlow code.*opens here"):
        legacy.open_network(path, trust=True)
    for convert in (legacy.convert_tf_generator, legacy.convert_tf_discriminator):
        with pytest.raises(UserError, match="Convert the file once"):
            convert(object())


def torch_file(path, content, **how):
    torch.save(content, path, **how)
    return str(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content, words",
    [
        (dict(g=dict(w=1), d={}, g_ema=dict(w=torch.zeros(1)), g_optim={}, d_optim={}, ada_aug_p=0), "rosinality's stylegan2-pytorch"),
        (dict(g_ema=dict(w=torch.zeros(1)), latent_avg=torch.zeros(1)), "rosinality's stylegan2-pytorch"),
        (dict(GAN=dict(w=torch.zeros(1)), version="1.9.0"), "lucidrains' stylegan2-pytorch"),
        (dict(format=1, facts={}, parts={}, stats_of_ranks=[]), "the training state of a run.*network-snapshot-.*--resume=RUN_FOLDER"),
        (dict(anything=torch.zeros(1)), "tensors that torch.save wrote"),
    ],
)
def test_what_torch_save_wrote_is_named(tmp_path, content, words, zipped):
    path = torch_file(tmp_path / "x.pt", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=f"x.pt is .*not a network pickle.*{words}"):
        legacy.open_network(path)


def test_other_archives_are_named(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.zeros([1, 2, 3]))
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / "detector.pt"))
    for name, words in (("w.npz", "arrays of NumPy.*--projected-w"), ("detector.pt", "TorchScript")):
        with pytest.raises(UserError, match=words):
            legacy.open_network(tmp_path / name)


def test_a_run_folder_means_its_newest_snapshot(tmp_path, snapshot):
    with pytest.raises(UserError, match="is a folder that holds no network-snapshot"):
        legacy.open_network(tmp_path)
    for kimg in (0, 8, 40):
        write(tmp_path / f"network-snapshot-{kimg:06d}.pkl", dict(snapshot, cur_nimg=kimg))
    assert legacy.open_network(tmp_path)["cur_nimg"] == 40
    assert legacy.located(str(tmp_path)) == str(tmp_path / "network-snapshot-000040.pkl")


def test_an_exported_pair_opens_where_a_pickle_does(tmp_path, path, snapshot):
    import export

    export.export_snapshot(path, tmp_path / "pair")
    z = torch.randn(1, 4)
    expected = snapshot["G_ema"](z, None, noise_mode="const")
    for name in ("pair.safetensors", "pair.json"):
        assert torch.equal(legacy.open_network(tmp_path / name)["G_ema"](z, None, noise_mode="const"), expected)
        with open(tmp_path / name, "rb") as f:
            assert torch.equal(legacy.load_network_pkl(f)["G_ema"](z, None, noise_mode="const"), expected)
    half = legacy.open_network(tmp_path / "pair.safetensors", force_fp16=True)["D"]
    assert half.init_kwargs.num_fp16_res == 4
    assert cli.call(legacy.main, [f"--source={tmp_path / 'pair.json'}", f"--dest={tmp_path / 'back.pkl'}"]) == 0
    assert torch.equal(legacy.open_network(tmp_path / "back.pkl")["G_ema"](z, None, noise_mode="const"), expected)
    (tmp_path / "pair.json").unlink()
    with pytest.raises(UserError, match="pair.json: there is no such file. An exported network is a pair"):
        legacy.open_network(tmp_path / "pair.safetensors")


def test_an_unreachable_address(tmp_path):
    with pytest.raises(UserError, match="Cannot reach https://no-such-host.invalid/ffhq.pkl.*place it as"):
        legacy.open_network("https://no-such-host.invalid/ffhq.pkl", verbose=False)


FOREIGN = """
import torch
from torch_utils import persistence
@persistence.persistent_class
class ForeignGenerator(torch.nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.fc = torch.nn.Linear(z_dim, 1)
"""


def test_foreign_networks_need_trust(tmp_path, snapshot, monkeypatch):
    (tmp_path / "foreign_networks.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    import foreign_networks

    foreign = foreign_networks.ForeignGenerator(z_dim=3)
    path = write(tmp_path / "foreign.pkl", dict(snapshot, G=foreign, G_ema=foreign))
    with pytest.raises(UserError, match="foreign.pkl was refused.*Linear in class ForeignGenerator.*--trust-pickle"):
        legacy.open_network(path)
    assert legacy.open_network(path, trust=True)["G"].fc.in_features == 3
    with open(path, "rb") as f, pytest.raises(UserError, match="force_fp16 does not fit G"):
        legacy.load_network_pkl(f, trust=True, force_fp16=True)


def test_conversion_from_the_command_line_in_another_folder(path, tmp_path, repo, capsys, runner):
    done = runner.run([repo / "legacy.py", "--source=snapshot.pkl", "--dest=new/converted.pkl", "--force-fp16=1"], tmp_path, repo)
    assert done.returncode == 0 and "Saving" in done.stdout, done.stderr
    assert legacy.open_network(tmp_path / "new" / "converted.pkl")["G"].init_kwargs.synthesis_kwargs.num_fp16_res == 4
    assert cli.call(legacy.main, ["--source", str(tmp_path / "missing.pkl"), "--dest=x.pkl"]) == 1
    assert capsys.readouterr().err.startswith("Error: Cannot open ")
