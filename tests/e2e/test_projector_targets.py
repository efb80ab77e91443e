"""What projector.py looks for: the picture that dataset_tool.py --fix would put into the training set; and what Ctrl-C leaves."""

import numpy as np
import PIL.Image
import pytest

import dataset_tool
import projector
from dnnlib import cli
from tests.e2e.drawing_fixtures import ANIMALS, NUM_WS, W_DIM, assert_sentence, read_png, save_snapshot, tiny_generator
from training.dataset import ImageFolderDataset
from training.drawing import projection


def half_transparent():
    pixels = np.random.RandomState(0).randint(0, 256, [16, 16, 4], dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def with_palette():
    picture = half_transparent().convert("RGB").quantize(16)
    picture.info["transparency"] = 3
    return picture


def rotated_by_exif(path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    half_transparent().convert("RGB").save(path, exif=exif)


PICTURES = {
    "rgba.png": half_transparent,
    "la.png": lambda: half_transparent().convert("LA"),
    "palette.png": with_palette,
    "cmyk.tif": lambda: half_transparent().convert("CMYK"),
    "one-bit.png": lambda: half_transparent().convert("1"),
    "exif.png": rotated_by_exif,
}


@pytest.mark.parametrize("name", list(PICTURES))
def test_the_target_is_what_the_data_set_would_hold(tmp_path, capsys, name):
    source = tmp_path / "pictures"
    source.mkdir()
    made = PICTURES[name]
    if made is rotated_by_exif:
        made(source / name)
    else:
        picture = made()
        picture.save(source / name, **({"transparency": 3} if name == "palette.png" else {}))
    assert cli.call(dataset_tool.main, [f"--source={source}", f"--dest={tmp_path / 'set.zip'}", "--fix"]) == 0
    [(stored, _)] = list(ImageFolderDataset(str(tmp_path / "set.zip")))
    capsys.readouterr()
    target = projector.load_target(str(source / name), 16, stored.shape[0])
    assert np.array_equal(target.transpose(2, 0, 1), stored)
    assert "as by dataset_tool.py --fix" in capsys.readouterr().err


def test_the_background_of_a_transparent_target_is_said(tmp_path, capsys):
    PIL.Image.new("RGBA", (16, 16), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert (projector.load_target(str(tmp_path / "clear.png"), 16, 3) == 255).all()
    out = capsys.readouterr().err
    assert "transparency" in out and "laid over white" in out


def test_a_target_without_a_stated_range_is_refused(tmp_path):
    PIL.Image.fromarray(np.full([16, 16], 0.5, np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("float.tif", "empty.png"):
        with pytest.raises(projector.UserError, match=f"--target=.*{name}"):
            projector.load_target(str(tmp_path / name), 16, 3)
    with pytest.raises(projector.UserError, match="--target=.*cannot be opened"):
        projector.load_target(str(tmp_path), 16, 3)


def test_an_interrupted_projection_leaves_its_latent(tmp_path, capsys, monkeypatch):
    network = save_snapshot(tiny_generator(3), tmp_path / "net.pkl", [0, 1, 2], ANIMALS)
    PIL.Image.new("RGB", (16, 16), (10, 200, 30)).save(tmp_path / "target.png")
    calls = []

    def features(images):
        calls.append(None)
        if len(calls) == 5:  # the target's, and those of three steps
            raise KeyboardInterrupt
        return images.flatten(1)

    monkeypatch.setattr(projection, "pixel_features", features)
    out = tmp_path / "out"
    shared = [f"--network={network}", f"--target={tmp_path / 'target.png'}", "--distance=pixel", "--class=dog", f"--outdir={out}", "--device=cpu"]
    assert cli.call(projector.main, shared) == cli.EXIT_INTERRUPTED
    captured = capsys.readouterr()
    assert "after 3 of 1000 steps" in captured.out and captured.err.count("Error: interrupted") == 1
    assert {path.name for path in out.iterdir()} == {"target.png", "proj.png", "projected_w.npz"}
    with np.load(out / "projected_w.npz") as content:
        assert content["w"].shape == (1, NUM_WS, W_DIM)
    assert read_png(out / "proj.png").shape == (16, 16, 3)


def test_a_seed_beyond_torch_is_refused(tmp_path, capsys):
    code = cli.call(projector.main, ["--network=x", "--target=y", f"--outdir={tmp_path}", "--seed=99999999999999999999"])
    assert_sentence((code, "", capsys.readouterr().err), "--seed", "smaller")
