"""dataset_tool.py from the command line: every source to a training set, refusals in sentences, nothing half-written."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import PIL.Image
import pytest

import dataset_tool
from dnnlib import cli
from tests.training.data_fixtures import encoded, numbered, pixels, png, write_cifar10, write_folder, write_mnist, write_zip
from training.dataset import ImageFolderDataset


@pytest.fixture(autouse=True)
def keep_signal_handler():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def tool(capsys):
    """tool('--source=...', ...) -> (exit code, stdout, stderr)"""

    def run(*args):
        code = cli.call(dataset_tool.main, [str(arg) for arg in args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def opened(path, **options):
    return ImageFolderDataset(str(path), use_labels=True, **options)


def test_options_are_those_of_the_frozen_list(golden):
    ours = {option.opts[0]: option for option in dataset_tool.main.params}
    for wanted in golden("cli.json")["dataset_tool"]:
        option = ours[wanted["flags"][0]]
        assert option.required == wanted["required"] and option.is_flag == wanted["is_flag"]
        assert (None if option.required else option.default) == wanted["default"]
        if isinstance(wanted["type"], list):
            assert set(wanted["type"]) <= set(option.type.choices)
        else:
            assert option.type.name == wanted["type"]


@pytest.mark.parametrize("dest", ["out.zip", "out"])
@pytest.mark.parametrize("pack", [write_folder, write_zip])
def test_image_files(tmp_path, tool, pack, dest):
    source = pack(tmp_path / ("in.zip" if pack is write_zip else "in"), numbered(4, labels=[1, 0, 2, 2], class_names=["a", "b", "c"]))
    code, out, _ = tool(f"--source={source}", f"--dest={tmp_path / dest}")
    assert code == 0 and "Wrote 4 of 4 images (16x16, RGB)" in out and "2 images  c" in out
    before, after = opened(source), opened(tmp_path / dest)
    assert all(np.array_equal(before[i][0], after[i][0]) and np.array_equal(before[i][1], after[i][1]) for i in range(4))
    assert after.class_names == ["a", "b", "c"]
    assert tool(f"--source={source}", f"--dest={tmp_path / 'none.zip'}", "--labels=none")[0] == 0
    assert opened(tmp_path / "none.zip").label_dim == 0


def test_cifar10_and_mnist(tmp_path, tool):
    images, labels = write_cifar10(tmp_path / "cifar-10-python.tar.gz")
    assert tool(f"--source={tmp_path / 'cifar-10-python.tar.gz'}", f"--dest={tmp_path / 'c.zip'}")[0] == 0
    cifar = opened(tmp_path / "c.zip")
    assert np.array_equal(np.stack([cifar[i][0] for i in range(12)]), images)
    assert [cifar.get_details(i).raw_label for i in range(12)] == labels and cifar.class_names[0] == "airplane"
    digits, numbers, path = write_mnist(tmp_path)
    assert tool(f"--source={path}", f"--dest={tmp_path / 'm.zip'}", "--max-images=7")[0] == 0
    mnist = opened(tmp_path / "m.zip")
    assert len(mnist) == 7 and mnist.image_shape == [1, 32, 32]
    assert np.array_equal(mnist[6][0][0], np.pad(digits[6], 2)) and mnist.get_details(6).raw_label == numbers[6]


def test_lsun(tmp_path, tool):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "car_lmdb"), map_size=1 << 20) as database, database.begin(write=True) as transaction:
        for i in range(3):
            transaction.put(f"{i}".encode(), encoded(pixels(i, 80, height=64), "JPEG"))
        transaction.put(b"small", encoded(pixels(9, 40, height=40), "JPEG"))
    code, out, _ = tool(
        f"--source={tmp_path / 'car_lmdb'}", f"--dest={tmp_path / 'o.zip'}", "--transform=center-crop-wide", "--width=64", "--height=48"
    )
    assert code == 0 and "small: too small" in out and "Wrote 3 of 4 images (64x64" in out
    assert not opened(tmp_path / "o.zip")[0][0][:, :8].any()


def test_labels_from_folders(tmp_path, tool):
    source = write_folder(tmp_path / "in", {"dog/1.png": png(1), "dog/2.png": png(2), "cat/3.png": png(3)})
    code, out, _ = tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}", "--labels=folders")
    assert code == 0 and "class    0         1 images  cat" in out and "class    1         2 images  dog" in out
    dataset = opened(tmp_path / "o.zip")
    assert dataset.class_names == ["cat", "dog"] and [dataset.get_details(i).raw_label for i in range(3)] == [0, 1, 1]


def test_bad_files_are_all_listed_and_nothing_is_written(tmp_path, tool):
    files = {f"good{i}.png": png(i) for i in range(5)}
    files.update({"cut.png": png(9)[:99], "empty.png": b"", "grey.png": png(8, channels=1), ".hidden.png": b"x"})
    source = write_folder(tmp_path / "in", files)
    dest = tmp_path / "o.zip"
    dest.write_bytes(b"old")
    code, out, err = tool(f"--source={source}", f"--dest={dest}")
    assert code == 1 and dest.read_bytes() == b"old" and sorted(os.listdir(tmp_path)) == ["in", "o.zip"]
    for line in ("cut.png: truncated file", "empty.png: empty file", "grey.png: grey in a colour set", ".hidden.png: hidden file"):
        assert line in out
    assert "3 of 8 images have faults" in err and "--fix helps" in err and "Nothing was written" in err
    code, out, err = tool(f"--source={source}", "--check")
    assert code == 1 and "cut.png: truncated" in out and "3 of 8" in err
    code, out, _ = tool(f"--source={source}", f"--dest={dest}", "--fix")
    assert code == 0 and "cut.png: truncated file" in out and "-> dropped" in out and "-> converted to RGB" in out
    assert "Wrote 6 of 8" in out and len(opened(dest)) == 6
    assert tool(f"--source={dest}", "--check")[0] == 0


def test_what_fix_cannot_mend_names_the_remedy(tmp_path, tool):
    source = write_folder(tmp_path / "in", {"a.png": png(1, 24, height=16), "b.png": png(2, 32), "c.png": png(3, 32)})
    code, out, err = tool(f"--source={source}", f"--dest={tmp_path / 'o'}", "--fix")
    assert code == 1 and "a.png: not square (24x16)" in out and "--transform" in err and not (tmp_path / "o").exists()
    assert tool(f"--source={source}", f"--dest={tmp_path / 'o'}", "--transform=pad", "--width=32", "--height=32")[0] == 0
    assert len(opened(tmp_path / "o")) == 3
    labelled = dict(numbered(3), **{"dataset.json": {"labels": [["00000/img00000000.png", 0]]}})
    code, out, err = tool(f"--source={write_zip(tmp_path / 'l.zip', labelled)}", f"--dest={tmp_path / 'p'}", "--fix")
    assert code == 1 and out.count("has no label, while others do") == 2 and "--labels=none" in err


def deep_set(path, **more):
    files = {f"{i}.png": encoded(PIL.Image.fromarray((np.arange(256).reshape(16, 16) * (16 + i)).clip(0, 4095).astype(np.uint16))) for i in range(2)}
    return write_folder(path, dict(files, **more))


def test_more_than_8_bits_are_scaled_by_one_range_that_is_said(tmp_path, tool):
    source = deep_set(tmp_path / "in")
    code, out, err = tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}")
    assert code == 1 and "--fix would have them scaled from 0 ... 4095" in out and "--fix helps" in err
    code, out, _ = tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}", "--fix")
    assert code == 0 and "2 images with more than 8 bits per channel: values 0 to 4095, scaled from 0 ... 4095 to 0 ... 255" in out
    assert np.array_equal(opened(tmp_path / "o.zip")[0][0][0].ravel(), np.rint(np.arange(256) * 16 / 4095 * 255))
    code, out, _ = tool(f"--source={source}", f"--dest={tmp_path / 'r.zip'}", "--range=0,2040")
    assert code == 0 and "from --range=0,2040" in out and "2 of them hold values outside" in out and "1.png" not in out
    assert np.array_equal(opened(tmp_path / "r.zip")[0][0][0].ravel(), (np.arange(256) * 2).clip(0, 255))
    code, _, err = tool(f"--source={tmp_path / 'o.zip'}", f"--dest={tmp_path / 'n.zip'}", "--range=0,9")
    assert code == 0 and "--range had no effect" in err
    assert "values 0 to 4095" in tool(f"--source={source}", "--check")[1]


def test_notes_on_labels(tmp_path, tool):
    source = write_folder(tmp_path / "in", numbered(3, labels=[1, 9, 1]))
    assert "only 2 of these 10 classes" in tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}")[2]
    code, out, err = tool(f"--source={source}", f"--dest={tmp_path / 'p.zip'}", "--labels=renumber")
    assert code == 0 and err == "" and "2 images  1\n" in out and opened(tmp_path / "p.zip").class_names == ["1", "9"]
    source = write_folder(tmp_path / "slip", dict(numbered(3), **{"dataset.json": {"label": []}}))
    assert 'states no "labels"' in tool(f"--source={source}", "--check")[2]


def test_quiet_check_still_lists_faults(tmp_path, tool):
    source = write_folder(tmp_path / "in", {"a.png": png(1), "cut.png": png(2)[:90]})
    code, out, err = tool(f"--source={source}", "--check", "--quiet")
    assert code == 1 and out.startswith("cut.png: truncated file") and out.count("\n") == 1 and "1 of 2" in err


def test_mixed_sizes_are_one_line_whose_remedy_works(tmp_path, tool):
    sizes = [(20, 30), (40, 30), (50, 70), (30, 30), (30, 30), (64, 41)]
    source = write_folder(tmp_path / "in", {f"{i}.png": png(i, width, height=height) for i, (width, height) in enumerate(sizes)})
    code, out, err = tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}")
    assert code == 1 and out == "(all images): sizes are mixed (5 sizes in 6 images, 20x30 to 50x70)\n" and "6 of 6 images have faults" in err
    remedy = "--transform=center-crop --width=16 --height=16"
    assert remedy in err and "   all  sizes are mixed" in err
    assert tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}", *remedy.split())[0] == 0


def test_faults_of_the_set_do_not_count_as_a_file(tmp_path, tool):
    source = write_folder(tmp_path / "in", dict({f"{i}.png": png(i, 30) for i in range(4)}, **{"z.png": png(9, 16)}))
    code, _, err = tool(f"--source={source}", "--check")
    assert code == 1 and "5 of 5 images have faults" in err


def test_the_same_fault_of_many_files_is_one_line(tmp_path, tool):
    transparent = {f"{i:02d}.png": encoded(PIL.Image.fromarray(pixels(i)).convert("RGBA")) for i in range(12)}
    source = write_folder(tmp_path / "in", transparent)
    code, out, _ = tool(f"--source={source}", "--check")
    assert code == 1 and out.startswith("12 images (00.png, 01.png, 02.png, ...): has transparency") and out.count("\n") == 1
    code, out, _ = tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}", "--fix")
    assert code == 0 and out.count("-> laid over white") == 1
    torn = write_folder(tmp_path / "torn", {f"{i:02d}.png": png(i)[:90] for i in range(12)})
    assert tool(f"--source={torn}", "--check")[1].count("truncated file") == 12  # each of them wants looking at


def test_class_folders_without_labels_are_pointed_out(tmp_path, tool):
    source = write_folder(tmp_path / "in", {f"{name}/{i}.png": png(10 * j + i) for j, name in enumerate("abc") for i in range(2)})
    remark = "3 sub-folders; --labels=folders makes classes of them"
    assert remark in tool(f"--source={source}", "--check")[2]
    assert remark not in tool(f"--source={source}", "--check", "--quiet")[2]
    code, out, err = tool(f"--source={source}", "--check", "--labels=folders")
    assert code == 0 and remark not in err and "class    2" in out
    stored = write_folder(tmp_path / "stored", {f"0000{i}/img0000000{i}.png": png(i) for i in range(2)})  # as data sets are written
    assert tool(f"--source={stored}", "--check")[2] == ""


@pytest.mark.parametrize("given, missing", [("--width", "--height"), ("--height", "--width")])
def test_half_a_size_is_refused_before_anything_is_read(tmp_path, tool, given, missing):
    code, _, err = tool("--source=nothing-here", f"--dest={tmp_path / 'o.zip'}", f"{given}=32")
    assert code == 1 and err == f"Error: {missing} is missing: give {missing}=32.\n"


def test_it_works_in_a_thread_and_leaves_signals_alone(tmp_path):
    before, codes = signal.getsignal(signal.SIGTERM), []
    arguments = ["--build=stacked-digits", "--num-images=3"]
    thread = threading.Thread(target=lambda: codes.append(cli.call(dataset_tool.main, [*arguments, f"--dest={tmp_path / 'o.zip'}"])))
    thread.start()
    thread.join()
    codes.append(cli.call(dataset_tool.main, [*arguments, f"--dest={tmp_path / 'p.zip'}"]))
    assert codes == [0, 0] and len(opened(tmp_path / "o.zip")) == 3 and signal.getsignal(signal.SIGTERM) is before


def test_long_lists_of_notes_are_shortened_unless_checking(tmp_path, tool):
    source = write_folder(tmp_path / "in", dict(numbered(2), **{f"note{i:02d}.txt": b"x" for i in range(30)}))
    _, out, _ = tool(f"--source={source}", f"--dest={tmp_path / 'o.zip'}")
    assert out.count("not an image") == 21 and "and 10 more" in out
    assert tool(f"--source={source}", "--check")[1].count("not an image") == 30


@pytest.mark.parametrize(
    "args, code, match",
    [
        (["--dest=o.zip"], 2, "--source"),
        (["--source=in"], 2, "--dest"),
        (["--source=gone", "--dest=o.zip"], 1, "nothing at --source"),
        (["--source=in", "--dest=in"], 1, "--dest is the --source"),
        (["--source=in", "--dest=full"], 1, "not empty"),
        (["--source=in", "--dest=o.zip", "--transform=pad"], 1, "needs both --width and --height"),
        (["--source=in", "--dest=o.zip", "--width=20", "--height=20"], 1, "power of two"),
        (["--source=in", "--dest=o.zip", "--range=5"], 2, "not two numbers; write it like 0,4095"),
        (["--source=in", "--dest=o.zip", "--range=9,9"], 2, "second white"),
        (["--source=in", "--dest=o.zip", "--range=0,inf"], 2, "0,4095"),
        (["--source=in", "--dest="], 1, "--dest is empty"),
        (["--source=in/00000/img00000000.png", "--dest=o.zip"], 1, "give the folder that it lies in"),
        (["--build=stacked-digits", "--dest=o.zip", "--range=0,9"], 1, "--range has no effect"),
        (["--source=in", "--dest=o.zip", "--seed=1"], 1, "--seed has no effect"),
        (["--build=stacked-digits", "--dest=o.zip", "--width=32"], 1, "--width has no effect"),
        (["--build=stacked-digits", "--dest=o.zip", "--source=in"], 1, "--source has no effect"),
        (["--build=stacked-digits", "--check"], 1, "--check has no effect"),
        (["--build=stacked-digits"], 2, "--dest"),
        (["--build=stacked-mnist", "--dest=o.zip", "--source=in"], 1, "holds no train-images"),
        (["--source=in", "--dest=o.zip", "--transform=zoom"], 2, "center-crop"),
    ],
)
def test_refusals_are_sentences(tmp_path, monkeypatch, tool, args, code, match):
    monkeypatch.chdir(tmp_path)
    write_folder("in", numbered(2))
    write_folder("full", {"x": b"x"})
    found, _, err = tool(*args)
    assert found == code and match in err and "Traceback" not in err and not os.path.exists("o.zip")


def test_builders(tmp_path, tool):
    code, out, _ = tool("--build=stacked-digits", f"--dest={tmp_path / 'd.zip'}", "--num-images=40", "--seed=2", "--split=eval")
    assert code == 0 and "Wrote 40 images (32x32, RGB; eval digits, seed 2)" in out and len(opened(tmp_path / "d.zip")) == 40
    write_mnist(tmp_path / "mnist", prefix="t10k")
    code, out, _ = tool(
        "--build=stacked-mnist", f"--source={tmp_path / 'mnist'}", f"--dest={tmp_path / 'm'}", "--num-images=20", "--split=test", "--modes=100"
    )
    assert code == 0 and "of 100 modes" in out and max(opened(tmp_path / "m").get_details(i).raw_label for i in range(20)) < 100


@pytest.mark.parametrize(
    "dest, which, leftovers", [("o.zip", signal.SIGTERM, 0), ("o", signal.SIGTERM, 0), ("o", signal.SIGINT, 0), ("o.zip", signal.SIGKILL, 1)]
)
def test_killed_while_writing(tmp_path, repo, dest, which, leftovers):
    old = write_zip(tmp_path / "o.zip", numbered(2))
    before = open(old, "rb").read()
    process = subprocess.Popen(
        [sys.executable, "dataset_tool.py", "--build=stacked-digits", f"--dest={tmp_path / dest}", "--num-images=2000000"],
        cwd=repo,
        stderr=subprocess.PIPE,
        text=True,
        # As from a terminal: what runs in the background of a shell ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.time() + 120
        while not any(name.startswith(".o") for name in os.listdir(tmp_path)):
            assert process.poll() is None and time.time() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(which)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (-which if which == signal.SIGKILL else 128 + which)
    assert "Traceback" not in err and (which != signal.SIGINT or "\n" not in err.strip() and "no file is half-written" in err)
    assert open(old, "rb").read() == before and not (tmp_path / "o").exists()
    assert len(os.listdir(tmp_path)) == 1 + leftovers
    if leftovers:  # what a killed process could not remove, the next run does
        assert cli.call(dataset_tool.main, ["--build=stacked-digits", f"--dest={old}", "--num-images=5"]) == 0
        assert os.listdir(tmp_path) == ["o.zip"] and len(opened(old)) == 5
