"""The options of the drawing tools; generate.py and style_mixing.py from the command line, on a 16x16 network."""

import importlib
import inspect
import os
import pickle

import click
import numpy as np
import pytest
import torch

import generate
import style_mixing
from dnnlib.errors import UserError
from tests.e2e.drawing_fixtures import NUM_WS, W_DIM, assert_sentence, read_png, save_snapshot, tiny_generator
from training import networks, pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawing")


@pytest.fixture(scope="module")
def network(folder):
    return save_snapshot(tiny_generator(), folder / "plain.pkl")


@pytest.fixture(scope="module")
def conditional(folder):
    return save_snapshot(tiny_generator(c_dim=3), folder / "conditional.pkl")


# --- Options. ---


@pytest.mark.parametrize("tool", ["generate", "style_mixing", "projector"])
def test_options_are_the_known_ones(golden, tool):
    options = {flag: option for option in importlib.import_module(tool).main.params for flag in option.opts}
    for known in golden("cli.json")[tool]:
        for flag in known["flags"]:
            option = options[flag]
            assert option.required == known["required"] and option.is_flag == known["is_flag"], flag
            kind = list(option.type.choices) if isinstance(option.type, click.Choice) else option.type.name
            assert kind == known["type"], flag
            default = None if repr(option.default).startswith("Sentinel") else option.default
            assert default == known["default"], flag
    assert {"--device", "--trust-pickle"} <= set(options)


# --- generate.py ---


def test_generate_from_another_folder(network, repo, tmp_path, runner):
    """As a program, with relative paths, from a working directory that is not the checkout."""
    os.link(network, tmp_path / "net.pkl")
    command = [repo / "generate.py", "--network=net.pkl", "--seeds=0,3-4", "--outdir=out/deep", "--device=cpu"]
    done = runner.run(command, tmp_path, repo)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out" / "deep").iterdir()) == ["seed0000.png", "seed0003.png", "seed0004.png"]
    assert "(3/3)" in done.stdout


@pytest.mark.parametrize("trunc", [1, 0.5])
def test_generate_draws_the_picture_of_the_seed(call, network, tmp_path, trunc):
    code, out, _ = call(generate.main, "--network", network, "--seeds=5", f"--trunc={trunc}", "--outdir", tmp_path)
    assert code == 0
    z = torch.from_numpy(np.random.RandomState(5).randn(1, 8))
    with torch.no_grad():
        image = tiny_generator()(z, torch.zeros([1, 0]), truncation_psi=trunc, noise_mode="const")
    expected = (image.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)[0].numpy()
    assert np.array_equal(read_png(tmp_path / "seed0005.png"), expected)


def test_generate_in_batches_draws_the_same(call, network, tmp_path):
    for batch, name in ((1, "one"), (4, "four")):
        assert call(generate.main, "--network", network, "--seeds=0-5", f"--batch={batch}", "--outdir", tmp_path / name)[0] == 0
    for seed in range(6):
        one, four = (read_png(tmp_path / name / f"seed{seed:04d}.png").astype(int) for name in ("one", "four"))
        assert abs(one - four).max() <= 1


def test_generate_classes(call, conditional, tmp_path):
    for class_index in (0, 2):
        assert call(generate.main, "--network", conditional, "--seeds=1", f"--class={class_index}", "--outdir", tmp_path / str(class_index))[0] == 0
    assert not np.array_equal(read_png(tmp_path / "0" / "seed0001.png"), read_png(tmp_path / "2" / "seed0001.png"))


def test_generate_grey(call, folder, tmp_path):
    grey = save_snapshot(tiny_generator(img_channels=1), folder / "grey.pkl")
    assert call(generate.main, "--network", grey, "--seeds=1", "--outdir", tmp_path)[0] == 0
    assert read_png(tmp_path / "seed0001.png").shape == (16, 16)


def test_generate_projected_w(call, network, tmp_path):
    generator = tiny_generator()
    with torch.no_grad():
        ws = generator.mapping(torch.cat([pictures.latent_of_seed(seed, 8, "cpu") for seed in (5, 6)]), torch.zeros([2, 0]))
    np.savez(tmp_path / "w.npz", w=ws.numpy())
    code, _, err = call(generate.main, "--network", network, "--projected-w", tmp_path / "w.npz", "--seeds=5,6", "--outdir", tmp_path)
    assert code == 0 and "--seeds has no effect" in err
    call(generate.main, "--network", network, "--seeds=5,6", "--outdir", tmp_path)
    for index, seed in enumerate((5, 6)):
        assert np.array_equal(read_png(tmp_path / f"proj{index:02d}.png"), read_png(tmp_path / f"seed{seed:04d}.png"))


@pytest.fixture(scope="module")
def noisy(folder):
    generator = tiny_generator()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(1)
    return save_snapshot(generator, folder / "noisy.pkl")


@pytest.mark.parametrize("noise_mode", ["none", "random"])
def test_generate_noise_comes_from_the_seed_alone(call, noisy, tmp_path, noise_mode):
    before = torch.get_rng_state()
    for name, seeds, batch in (("a", "1,2", 1), ("b", "0-2", 3)):
        shared = ["--network", noisy, f"--noise-mode={noise_mode}", f"--batch={batch}"]
        assert call(generate.main, *shared, f"--seeds={seeds}", "--outdir", tmp_path / name)[0] == 0
    for seed in (1, 2):
        assert np.array_equal(*(read_png(tmp_path / name / f"seed{seed:04d}.png") for name in ("a", "b")))
    assert torch.equal(before, torch.get_rng_state())


def test_random_noise_differs_between_seeds_and_from_the_constant(call, noisy, tmp_path):
    ws = generate_ws(1)
    np.savez(tmp_path / "twice.npz", w=ws.expand(2, -1, -1).numpy())
    for mode in ("random", "const"):
        shared = ["--network", noisy, f"--noise-mode={mode}", "--outdir", tmp_path / mode]
        assert call(generate.main, *shared, "--projected-w", tmp_path / "twice.npz")[0] == 0
    drawn = {(mode, index): read_png(tmp_path / mode / f"proj{index:02d}.png") for mode in ("random", "const") for index in (0, 1)}
    assert np.array_equal(drawn["const", 0], drawn["const", 1])
    assert not np.array_equal(drawn["random", 0], drawn["random", 1]) and not np.array_equal(drawn["random", 0], drawn["const", 0])


def generate_ws(seed):
    """[1, NUM_WS, W_DIM] of the plain network."""
    return tiny_generator().mapping(pictures.latent_of_seed(seed, 8, "cpu"), torch.zeros([1, 0])).detach()


def test_generate_says_what_is_wrong(call, network, conditional, tmp_path):
    out = ["--outdir", tmp_path / "out"]
    assert_sentence(call(generate.main, "--network", network, *out), "--seeds", "--projected-w")
    assert_sentence(call(generate.main, "--network", tmp_path / "none.pkl", "--seeds=1", *out), "none.pkl")
    assert_sentence(call(generate.main, "--network", network, "--seeds=1", "--class=0", *out), "--class=0", "without classes")
    assert_sentence(call(generate.main, "--network", conditional, "--seeds=1", *out), "3 classes", "--class=2")
    for wrong in (3, -1):
        assert_sentence(call(generate.main, "--network", conditional, "--seeds=1", f"--class={wrong}", *out), "between 0 and 2", f"got {wrong}")
    assert_sentence(call(generate.main, "--network", network, "--seeds=4294967296", *out), "4294967295")
    assert_sentence(call(generate.main, "--network", network, "--seeds=1", "--batch=0", *out), "--batch")
    (tmp_path / "file").write_text("x")
    assert_sentence(call(generate.main, "--network", network, "--seeds=1", "--outdir", tmp_path / "file" / "sub"), "--outdir", "another folder")


def test_generate_refuses_wrong_latents(call, network, tmp_path):
    np.savez(tmp_path / "shape.npz", w=np.zeros([1, NUM_WS + 2, W_DIM]))
    np.savez(tmp_path / "key.npz", v=np.zeros([1, NUM_WS, W_DIM]))
    np.savez(tmp_path / "nan.npz", w=np.full([1, NUM_WS, W_DIM], np.nan))
    np.save(tmp_path / "bare.npy", np.zeros([1, NUM_WS, W_DIM]))
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "empty.npz").write_text("")
    np.savez(tmp_path / "objects.npz", w=np.array([{"a": 1}], dtype=object))
    for name, part in (
        ("shape", f"[any number, {NUM_WS}, {W_DIM}]"),
        ("key", "named 'w'"),
        ("nan", "finite"),
        ("text", "npz"),
        ("empty", "npz"),
        ("objects", "npz"),
        ("missing", "No such file"),
    ):
        result = call(generate.main, "--network", network, "--projected-w", tmp_path / f"{name}.npz", "--outdir", tmp_path)
        assert_sentence(result, part, f"{name}.npz")
    assert_sentence(call(generate.main, "--network", network, "--projected-w", tmp_path / "bare.npy", "--outdir", tmp_path), "bare.npy")


def test_a_pickle_with_foreign_code_runs_only_when_trusted(call, network, tmp_path):
    reconstruct, (meta,) = tiny_generator().__reduce__()
    source = inspect.getsource(networks) + "\nprint('code of the pickle')\nclass Other(Generator):\n    pass\n"

    class Foreign:
        def __reduce__(self):
            return reconstruct, (dict(meta, module_src=source, class_name="Other"),)

    with open(network, "rb") as file:
        snapshot = pickle.load(file)
    with open(tmp_path / "foreign.pkl", "wb") as file:
        pickle.dump(dict(snapshot, G_ema=Foreign()), file)
    shared = ["--network", tmp_path / "foreign.pkl", "--seeds=1", "--outdir", tmp_path]
    refused = call(generate.main, *shared)
    assert_sentence(refused, "refused", "--trust-pickle")
    assert "code of the pickle" not in refused[1]
    code, out, _ = call(generate.main, *shared, "--trust-pickle")
    assert code == 0 and "code of the pickle" in out and (tmp_path / "seed0001.png").exists()


# --- style_mixing.py ---


def test_style_mixing(call, network, tmp_path):
    code, out, _ = call(style_mixing.main, "--network", network, "--rows=1,2", "--cols=3,2,4", "--styles=0-1", "--outdir", tmp_path)
    assert code == 0
    names = {"1-1", "2-2", "3-3", "4-4", "1-3", "1-2", "1-4", "2-3", "2-4"}
    assert {path.name for path in tmp_path.glob("*.png")} == {f"{name}.png" for name in names} | {"grid.png"}
    sheet = read_png(tmp_path / "grid.png")
    assert sheet.shape == (3 * 16, 4 * 16, 3)
    assert not sheet[:16, :16].any()
    for y, row in enumerate((1, 2)):
        for x, col in enumerate((3, 2, 4)):
            cell = sheet[(y + 1) * 16 : (y + 2) * 16, (x + 1) * 16 : (x + 2) * 16]
            assert np.array_equal(cell, read_png(tmp_path / f"{row}-{col}.png"))
    call(generate.main, "--network", network, "--seeds=1", "--outdir", tmp_path)
    assert np.array_equal(read_png(tmp_path / "1-1.png"), read_png(tmp_path / "seed0001.png"))


def test_style_mixing_takes_the_layers_of_the_column():
    generator = tiny_generator()
    label = torch.zeros([1, 0])
    w = {seed: generator.mapping(pictures.latent_of_seed(seed, 8, "cpu"), label) for seed in (1, 2)}
    mixed = torch.cat([w[1][:, :2], w[2][:, 2:4], w[1][:, 4:]], dim=1)
    expected = pictures.to_pixels(generator.synthesis(mixed, noise_mode="const").detach())[0]
    drawn = dict(style_mixing.mixed_pictures(generator, [1], [2], [2, 3], label))
    assert np.array_equal(drawn[1, 2], expected)


def test_style_mixing_layers(call, network, conditional, tmp_path):
    shared = ["--network", network, "--rows=1", "--cols=2", "--outdir", tmp_path]
    code, out, _ = call(style_mixing.main, *shared)  # The default 0-6 is made for 18 layers.
    assert code == 0 and "6 style layers" in out and "layers 0-1" in out
    by_default = read_png(tmp_path / "1-2.png")
    assert not any(np.array_equal(by_default, read_png(tmp_path / f"{seed}-{seed}.png")) for seed in (1, 2))
    assert call(style_mixing.main, *shared, "--styles=0-1")[0] == 0
    assert np.array_equal(by_default, read_png(tmp_path / "1-2.png"))
    refused = call(style_mixing.main, *shared, "--styles=0-5")
    assert_sentence(refused, "--styles", "all 6 layers", "--styles=0-4")
    assert call(style_mixing.main, *shared, "--styles=0-4")[0] == 0
    assert_sentence(call(style_mixing.main, *shared, "--styles=0-6"), "layer 6", "0-5")
    assert_sentence(call(style_mixing.main, "--network", conditional, "--rows=1", "--cols=2", "--outdir", tmp_path), "--class=0")
    assert call(style_mixing.main, "--network", conditional, "--rows=1", "--cols=2", "--class=1", "--outdir", tmp_path)[0] == 0


@pytest.mark.parametrize("num_ws, last", [(18, 6), (16, 5), (14, 4), (8, 2), (6, 1), (2, 0)])
def test_the_default_layers_are_the_same_share_of_every_network(num_ws, last):
    assert style_mixing.check_styles(list(range(7)), num_ws, chosen_by_user=False) == list(range(last + 1))


def test_one_layer_cannot_be_mixed():
    with pytest.raises(UserError, match="nothing to mix"):
        style_mixing.check_styles([0], 1, chosen_by_user=True)


def test_a_grid_of_more_pictures_than_memory_holds_is_refused(call, network, tmp_path, monkeypatch):
    from training.drawing import draw

    shared = [style_mixing.main, "--network", network, "--outdir", tmp_path]
    assert_sentence(call(*shared, "--rows=0-9999", "--cols=0-9999"), "100,000,000 pictures", "10,000 is the most", "fewer rows or columns")
    monkeypatch.setattr(draw, "MAX_SHEET_PIXELS", 12 * 16**2)  # three by four pictures of 16 px
    assert_sentence(call(*shared, "--rows=1-3", "--cols=4-6"), "4 x 4 pictures of 16 px", "fewer --rows or --cols")
    assert list(tmp_path.iterdir()) == []
    assert call(*shared, "--rows=1-2", "--cols=4-6")[0] == 0
