"""One process per run folder."""

import os
import subprocess
import sys

import pytest

from dnnlib.errors import UserError
from training import run_lock


def test_a_second_process_is_refused_and_one_that_died_holds_nothing(tmp_path, repo):
    program = "import sys, time; from training import run_lock\nwith run_lock.held(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=repo)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="is being trained by another process"), run_lock.held(tmp_path):
            pass
    finally:
        other.kill()
        other.wait()
    with run_lock.held(tmp_path):
        assert os.listdir(tmp_path) == []  # no file of its own
    with run_lock.held(tmp_path):
        pass  # given back


def test_systems_without_locks_refuse_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "fcntl", None)
    entered = []
    with run_lock.held(tmp_path), run_lock.held(tmp_path):
        entered.append(tmp_path)
    assert entered == [tmp_path]
