"""dnnlib.files: a file is the old one or the new one, whatever happens to the writer."""

import os
import resource
import signal
import subprocess
import sys

import pytest
import torch

from dnnlib import files
from dnnlib.errors import UserError


def names_in(folder):
    return sorted(os.listdir(folder))


def test_writes_bytes_and_text(tmp_path):
    files.atomic_write_bytes(tmp_path / "a", b"\x00\r\n")
    files.atomic_write_text(tmp_path / "b", "\u00e9\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n" and (tmp_path / "b").read_bytes() == b"\xc3\xa9\n"
    with pytest.raises(ValueError):
        with files.atomic_open(tmp_path / "a", "ab"):
            pass
    assert names_in(tmp_path) == ["a", "b"]


def test_the_old_file_shows_until_the_end(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with files.atomic_open(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, UserError])
def test_an_error_leaves_the_old_file_and_no_rest(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error):
        with files.atomic_open(path) as file:
            file.write(b"half")
            raise error
    assert path.read_text() == "old" and names_in(tmp_path) == ["a"]


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.atomic_write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


@pytest.fixture
def small_disk():
    """No file of this process can grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_said_in_a_sentence(tmp_path, small_disk):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(UserError, match="Cannot write .*a: .*free some space"):
        files.atomic_write_bytes(path, b"x" * 3_000_000)
    with pytest.raises(UserError, match="Cannot write .*a: .*free some space"):
        with files.atomic_open(path) as file:
            torch.save(torch.zeros(1_000_000), file)  # which raises a RuntimeError of its own
    assert path.read_text() == "old" and names_in(tmp_path) == ["a"]


def test_other_errors_of_the_block_are_not_mistaken_for_ours(tmp_path):
    with pytest.raises(FileNotFoundError):
        with files.atomic_open(tmp_path / "a"):
            open(tmp_path / "something else")


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="create the folder"):
        files.atomic_write_text(tmp_path / "missing" / "a", "")
    with pytest.raises(UserError, match="another kind"):
        files.atomic_write_text(tmp_path / "file" / "a", "")
    with pytest.raises(UserError, match="is a folder"):
        files.atomic_write_text(tmp_path, "")


def test_stale_temporaries_of_dead_processes_go_and_others_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    tag = files._host_tag()
    stale = tmp_path / f".a.tmp-{tag}-{dead.pid}-0123abcd"
    keep = [tmp_path / f".a.tmp-{tag}-{os.getpid()}-0123abcd", tmp_path / f".a.tmp-00000000-{dead.pid}-0123abcd", tmp_path / ".a.tmp"]
    for path in (stale, *keep):
        path.write_text("")
    assert files.clean_stale_temporaries(tmp_path) == [str(stale)]
    assert names_in(tmp_path) == sorted(path.name for path in keep)


KILLER = """
import os, random, signal, sys, time
from dnnlib import files
folder, kills = sys.argv[1], int(sys.argv[2])
path = os.path.join(folder, 'state')
rng = random.Random(0)
files.atomic_write_bytes(path, bytes([0]) * 50_000)
generation, caught_in_the_act = 0, 0
for _ in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            generation += 1
            with files.atomic_open(path) as file:
                for _ in range(10):
                    file.write(bytes([generation % 256]) * (5_000 + generation))
                    file.flush()
    time.sleep(rng.uniform(0.0005, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    data = open(path, 'rb').read()
    assert len(set(data)) == 1, 'a mixture of two generations'
    found, rest = divmod(len(data) - 50_000, 10)
    assert rest == 0 and found >= generation and data[0] == found % 256, 'not a whole generation'
    generation = found
    caught_in_the_act += len(files.clean_stale_temporaries(folder))
    assert os.listdir(folder) == ['state']
print(generation, caught_in_the_act)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_sixty_kills_at_random_moments_leave_a_whole_file(tmp_path, repo):
    done = subprocess.run([sys.executable, "-c", KILLER, str(tmp_path), "60"], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    generations, caught_in_the_act = map(int, done.stdout.split())
    assert generations > 5 and caught_in_the_act > 5  # the writers really wrote, and really were interrupted


def test_two_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a"
    with files.atomic_open(path) as one, files.atomic_open(path) as two:
        one.write(b"1" * 1000)
        two.write(b"2" * 1000)
    assert path.read_bytes() in (b"1" * 1000, b"2" * 1000) and names_in(tmp_path) == ["a"]
