"""generate.py --video and --frames: from seed to seed, class to class, label to label, latent to latent; mp4 and numbered PNG."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch

import generate
from dnnlib import cli
from dnnlib.errors import UserError
from tests.e2e.drawing_fixtures import ANIMALS, assert_sentence, read_png, save_snapshot, tiny_generator
from training import pictures
from training.drawing import latents, video

HAS_ENCODER = not video.missing_packages()
needs_encoder = pytest.mark.skipif(not HAS_ENCODER, reason="imageio-ffmpeg is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def network(folder):
    return save_snapshot(tiny_generator(), folder / "plain.pkl")


@pytest.fixture(scope="module")
def animals(folder):
    return save_snapshot(tiny_generator(3), folder / "animals.pkl", [0, 1, 2], ANIMALS)


@pytest.fixture
def call(capsys):
    """call(*args of generate.py) -> (exit code, stdout, stderr)."""

    def run(*args):
        code = cli.call(generate.main, [*map(str, args), "--device=cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def frames_in(folder):
    return [read_png(path) for path in sorted(folder.glob("frame*.png"))]


def drawn(generator, seed, label=(), trunc=1):
    with torch.no_grad():
        w = generator.mapping(pictures.latent_of_seed(seed, 8, "cpu"), torch.tensor([label], dtype=torch.float32), truncation_psi=trunc)
    return w, pictures.drawn_from_ws(generator, w, [0])[0]


def decoded(path):
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    width, height = facts["size"]
    return facts, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


# --- The way. ---


def test_frames_lead_from_seed_to_seed(call, network, tmp_path):
    code, out, _ = call("--network", network, "--seeds=3,5,4", "--frames=4", "--trunc=0.8", "--outdir", tmp_path)
    assert code == 0 and "9 frames: seed 3 -> seed 5 -> seed 4" in out
    frames, generator = frames_in(tmp_path), tiny_generator()
    assert len(frames) == 9
    ws = {seed: drawn(generator, seed, trunc=0.8) for seed in (3, 5, 4)}
    for place, seed in ((0, 3), (4, 5), (8, 4)):
        assert np.array_equal(frames[place], ws[seed][1])
    middle = pictures.drawn_from_ws(generator, torch.lerp(ws[3][0], ws[5][0], 0.25), [0])[0]
    assert np.array_equal(frames[1], middle)


def test_a_loop_ends_before_its_begin(call, network, tmp_path):
    assert call("--network", network, "--seeds=3,5", "--frames=3", "--loop", "--batch=4", "--outdir", tmp_path)[0] == 0
    frames = [frame.astype(int) for frame in frames_in(tmp_path)]
    assert len(frames) == 6
    assert abs(frames[1] - frames[5]).max() <= 1 and abs(frames[2] - frames[4]).max() <= 1  # there and back on one line
    assert not np.array_equal(frames[0], frames[5])


def test_frames_lead_from_class_to_class(call, animals, tmp_path):
    code, out, _ = call("--network", animals, "--seeds=3", "--class=cat", "--class=2", "--frames=2", "--outdir", tmp_path)
    assert code == 0 and "seed 3, class 0 (cat) -> seed 3, class 2 (horse)" in out
    generator, frames = tiny_generator(3), frames_in(tmp_path)
    first, last = drawn(generator, 3, (1, 0, 0)), drawn(generator, 3, (0, 0, 1))
    assert np.array_equal(frames[0], first[1]) and np.array_equal(frames[2], last[1])
    assert np.array_equal(frames[1], pictures.drawn_from_ws(generator, (first[0] + last[0]) / 2, [0])[0])


def test_between_label_vectors_lie_labels(call, folder, tmp_path):
    labels = save_snapshot(tiny_generator(2), folder / "vectors.pkl", np.array([[5, 90], [1, 100]], np.float32))
    assert call("--network", labels, "--seeds=3", "--label=1,90", "--label=5,100", "--frames=2", "--outdir", tmp_path)[0] == 0
    for frame, label in zip(frames_in(tmp_path), [(1, 90), (3, 95), (5, 100)]):
        assert np.array_equal(frame, drawn(tiny_generator(2), 3, label)[1])


def test_seeds_and_classes_go_in_pairs(call, animals, tmp_path):
    shared = ["--network", animals, "--frames=1", "--outdir", tmp_path]
    assert call(*shared, "--seeds=1,2", "--class=0,1")[0] == 0
    assert np.array_equal(frames_in(tmp_path)[1], drawn(tiny_generator(3), 2, (0, 1, 0))[1])
    assert_sentence(call(*shared, "--seeds=1,2", "--class=0-2"), "2 seeds and 3 labels", "one seed")


def test_projected_latents_come_before_the_seeds(call, network, tmp_path):
    generator = tiny_generator()
    ws = torch.cat([drawn(generator, seed)[0] for seed in (8, 9)])
    np.savez(tmp_path / "a.npz", w=ws.numpy())
    np.savez(tmp_path / "b.npz", w=ws[:1].numpy())
    files = ["--projected-w", tmp_path / "a.npz", "--projected-w", tmp_path / "b.npz"]
    code, out, _ = call("--network", network, *files, "--seeds=5", "--trunc=0.5", "--frames=1", "--outdir", tmp_path)
    assert code == 0 and "proj00 -> proj01 -> proj02 -> seed 5" in out
    expected = [*(drawn(generator, seed)[1] for seed in (8, 9, 8)), drawn(generator, 5, trunc=0.5)[1]]
    assert all(map(np.array_equal, frames_in(tmp_path), expected))
    assert_sentence(call("--network", network, *files, "--frames=1", "--trunc=0.5", "--outdir", tmp_path), "--trunc", "no effect")
    assert_sentence(call("--network", network, *files, "--trunc=0.5", "--seeds=5", "--outdir", tmp_path), "--trunc", "no effect")


def test_random_noise_stands_still_in_a_video(call, folder, tmp_path):
    generator = tiny_generator()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(1)
    noisy = save_snapshot(generator, folder / "noisy.pkl")
    assert call("--network", noisy, "--seeds=3,3", "--frames=2", "--noise-mode=random", "--outdir", tmp_path)[0] == 0
    frames = frames_in(tmp_path)
    assert all(np.array_equal(frames[0], frame) for frame in frames)
    call("--network", noisy, "--seeds=3", "--noise-mode=random", "--outdir", tmp_path)
    assert np.array_equal(frames[0], read_png(tmp_path / "seed0003.png"))


# --- The mp4. ---


@needs_encoder
def test_the_mp4_shows_the_frames(call, network, tmp_path):
    shared = ["--network", network, "--seeds=1,2", "--frames=5"]
    code, out, err = call(*shared, "--video", "--fps=10", "--outdir", tmp_path / "video")
    assert code == 0 and "6 frames, 0.6 s" in out and "256 px" in err
    assert [path.name for path in (tmp_path / "video").iterdir()] == ["video.mp4"]
    assert call(*shared, "--outdir", tmp_path / "frames")[0] == 0
    facts, shown = decoded(tmp_path / "video" / "video.mp4")
    assert facts["fps"] == 10 and facts["size"] == (256, 256) and len(shown) == 6
    for seen, frame in zip(shown, frames_in(tmp_path / "frames")):
        assert abs(seen[8::16, 8::16].astype(int) - frame).mean() < 4


@needs_encoder
@pytest.mark.parametrize("shape", [(17, 33, 3), (4, 4, 1)])
def test_a_video_of_odd_sides_loses_nothing(tmp_path, shape):
    frame = np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8)
    with video.open_mp4(str(tmp_path / "v.mp4"), 5) as mp4:
        for _ in range(3):
            mp4.add(frame)
    _, shown = decoded(tmp_path / "v.mp4")
    assert shown[0].shape == (shape[0] + shape[0] % 2, shape[1] + shape[1] % 2, 3) and len(shown) == 3


@needs_encoder
def test_nothing_is_left_of_a_video_that_fails(call, network, tmp_path, monkeypatch):
    stub = tmp_path / "ffmpeg"
    stub.write_text("#!/bin/sh\necho 'no such codec' >&2\nexit 3\n")
    stub.chmod(0o755)
    monkeypatch.setattr(video, "_encoder", lambda: str(stub))
    code, out, err = call("--network", network, "--seeds=1,2", "--video", "--outdir", tmp_path / "out")
    said = [line for line in err.splitlines(True) if not line.startswith("Note: ")]
    assert_sentence((code, out, "".join(said)), "video.mp4", "no such codec", "--frames")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(KeyboardInterrupt), video.open_mp4(str(tmp_path / "out" / "v.mp4"), 5) as mp4:
        mp4.add(np.zeros([16, 16, 3], np.uint8))
        raise KeyboardInterrupt
    assert list((tmp_path / "out").iterdir()) == []


def test_without_encoder_the_frames_are_written(call, network, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "missing_packages", lambda: [video.PACKAGE])
    code, _, err = call("--network", network, "--seeds=1,2", "--video", "--frames=2", "--outdir", tmp_path)
    assert code == 0 and "pip install imageio-ffmpeg" in err and len(frames_in(tmp_path)) == 3 and not (tmp_path / "video.mp4").exists()
    [told] = [line for line in err.splitlines() if "of the files: " in line]
    program, *words = shlex.split(told.split("of the files: ")[1])  # the remedy, followed
    assert program == "ffmpeg"
    if HAS_ENCODER:
        subprocess.run([video._encoder(), "-loglevel", "error", *words], cwd=tmp_path, check=True)
        assert len(decoded(tmp_path / "video.mp4")[1]) == 3


# --- What is refused. ---


def test_a_video_needs_two_pictures(call, network, tmp_path):
    shared = ["--network", network, "--outdir", tmp_path / "out"]
    assert_sentence(call(*shared, "--seeds=1", "--video"), "here is one", "--seeds=0-3")
    for wrong, part in ((["--frames=0"], "--frames"), (["--video", "--fps=0"], "--fps")):
        code, _, err = call(*shared, "--seeds=1,2", *wrong)
        assert code == 2 and part in err
    for flag in ("--loop", "--fps=10"):
        assert_sentence(call(*shared, "--seeds=1", flag), flag.split("=")[0], "no effect")
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_frames_of_a_longer_video_are_not_mixed_with(call, network, tmp_path):
    shared = ["--network", network, "--seeds=1,2", "--outdir", tmp_path]
    assert call(*shared, "--frames=4")[0] == 0
    before = frames_in(tmp_path)
    assert_sentence(call(*shared, "--frames=2"), "longer video", "frame00004.png", "another folder")
    assert all(map(np.array_equal, before, frames_in(tmp_path)))
    assert call(*shared, "--frames=4")[0] == 0


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
def test_a_truncation_that_is_no_number_is_refused(call, network, tmp_path, wrong):
    code, _, err = call("--network", network, "--seeds=1", f"--trunc={wrong}", "--outdir", tmp_path)
    assert code == 2 and "--trunc" in err and "finite" in err and list(tmp_path.iterdir()) == []


def test_pictures_that_are_no_numbers_are_refused(call, folder, tmp_path):
    generator = tiny_generator()
    next(iter(generator.synthesis.parameters())).data.fill_(float("nan"))
    broken = save_snapshot(generator, folder / "broken.pkl")
    assert_sentence(call("--network", broken, "--seeds=1", "--outdir", tmp_path), "not finite", "earlier snapshot")
    with pytest.raises(UserError, match="not finite"):
        pictures.to_pixels(torch.full([1, 3, 4, 4], float("inf")))


def test_seeds_are_checked_before_the_first_picture(call, network, tmp_path):
    assert_sentence(call("--network", network, "--seeds=1,4294967296", "--outdir", tmp_path), "4294967295")
    assert list(tmp_path.iterdir()) == []


def test_help_and_wrong_flags_need_no_torch(repo):
    code = """
import builtins, sys
real = builtins.__import__
def without_torch(name, *args, **kwargs):
    assert name.split(".")[0] != "torch", name
    return real(name, *args, **kwargs)
builtins.__import__ = without_torch
import generate, projector, style_mixing
from dnnlib import cli
for tool in (generate, projector, style_mixing):
    assert cli.call(tool.main, ["--help"]) == 0
assert cli.call(generate.main, ["--network=x", "--outdir=y"]) == 1
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_num_frames_of_way():
    assert latents.num_frames_of_way(3, 4, False) == 9 and latents.num_frames_of_way(3, 4, True) == 12
