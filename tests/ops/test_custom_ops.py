"""The plugin builder: builds once, never hangs, says cause and cure in one line."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from torch_utils import custom_ops
from torch_utils.process_lock import LockTimeout, ProcessLock

# Python's own interface alone: PyTorch's headers would make every build take half a minute.
SOURCE = """
#include <Python.h>
static PyObject* answer(PyObject*, PyObject*) { return PyLong_FromLong(ANSWER); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {nullptr, nullptr, 0, nullptr}};
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define TEXT2(a) #a
#define TEXT(a) TEXT2(a)
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, TEXT(TORCH_EXTENSION_NAME), "", -1, methods};
PyMODINIT_FUNC JOIN(PyInit_, TORCH_EXTENSION_NAME)(void) { return PyModule_Create(&definition); }
"""
PROGRAM = """
import sys
from torch_utils import custom_ops
print(custom_ops.get_plugin("tiny_plugin", [sys.argv[1]]).answer())
"""

needs_compiler = pytest.mark.skipif(custom_ops.missing_tools(needs_cuda=False) is not None, reason="no compiler or ninja on this machine")


@pytest.fixture(autouse=True)
def fresh_builder(monkeypatch, tmp_path):
    """A build folder of its own and a process that has built nothing yet."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.setattr(custom_ops, "_outcomes", {})
    monkeypatch.setattr(custom_ops, "_explained", False)
    monkeypatch.setattr(custom_ops, "verbosity", "brief")
    return tmp_path / "extensions"


def source_file(folder, answer=42, name="tiny.cpp"):
    path = folder / name
    path.write_text(SOURCE.replace("ANSWER", str(answer)))
    return path


def counting_compiler(folder, monkeypatch, before=""):
    """A CXX that notes every call in a file, and does something before it."""
    script = folder / "counting-c++"
    script.write_text(f'#!/bin/sh\necho call >> {folder}/calls\n{before}\nexec {shutil.which("c++")} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return lambda: len((folder / "calls").read_text().split()) if (folder / "calls").exists() else 0


def start(repo, source, **popen):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(source)], cwd=repo, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen
    )


@needs_compiler
def test_builds_once_and_again_when_the_source_changes(tmp_path, monkeypatch, capsys, fresh_builder):
    calls = counting_compiler(tmp_path, monkeypatch)
    source = source_file(tmp_path)
    assert custom_ops.get_plugin("tiny_plugin", [str(source)]).answer() == 42
    assert capsys.readouterr().out == 'Setting up PyTorch plugin "tiny_plugin"... Done.\n'
    built = calls()
    assert built >= 1
    assert custom_ops.get_plugin("tiny_plugin", [str(source)]).answer() == 42
    custom_ops._outcomes.clear()  # as in another process
    assert custom_ops.get_plugin("tiny_plugin", [str(source)]).answer() == 42
    assert calls() == built
    source_file(tmp_path, answer=43)
    assert custom_ops.get_plugin("tiny_plugin", [str(source)]).answer() == 43
    assert calls() > built
    assert len([path for path in fresh_builder.iterdir() if path.is_dir()]) == 2
    assert not list(fresh_builder.glob("*.building-*"))


@needs_compiler
def test_a_build_that_cannot_be_loaded_is_made_anew(tmp_path, repo, fresh_builder):
    """It counts as not built, for those who never build as well; each program here is a process of its own."""
    source = source_file(tmp_path)
    for _ in range(2):
        assert custom_ops.get_finished_or_none("tiny_plugin", [source]) is None
        out, err = start(repo, source).communicate(timeout=120)
        assert out.splitlines()[-1:] == ["42"], err
        [library] = fresh_builder.glob("tiny_plugin-*/*.so")
        content = library.read_bytes()
        library.write_bytes(b"of another machine")
    library.write_bytes(content)
    assert custom_ops.get_finished_or_none("tiny_plugin", [source]).answer() == 42


def test_what_is_there_is_taken_without_a_word(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert custom_ops.get_finished_or_none("tiny_plugin", [source_file(tmp_path)]) is None
    assert custom_ops.get_finished_or_none("tiny_plugin", [tmp_path / "no-such.cpp"]) is None
    assert capsys.readouterr() == ("", "")


def test_builds_for_this_processor_are_its_own(tmp_path, monkeypatch):
    """A home folder that serves two machines must not hand one the instructions of the other."""
    source, native = source_file(tmp_path), {"extra_cflags": ["-march=native"]}
    here, anywhere = custom_ops._digest([source], native), custom_ops._digest([source], {})
    assert custom_ops._processor_features() or sys.platform != "linux"
    monkeypatch.setattr(custom_ops, "_processor_features", lambda: "fpu of-another-machine")
    assert custom_ops._digest([source], native) != here and custom_ops._digest([source], {}) == anywhere


@needs_compiler
def test_two_processes_build_once(tmp_path, monkeypatch, repo):
    calls = counting_compiler(tmp_path, monkeypatch, before="sleep 2")
    source = source_file(tmp_path)
    processes = [start(repo, source) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    for process, (out, err) in zip(processes, results):
        assert process.returncode == 0, err
        assert out.splitlines()[-2:] == ['Setting up PyTorch plugin "tiny_plugin"... Done.', "42"]
    # One build calls the compiler three times: PyTorch asks its version, then it compiles and links.
    single = calls()
    alone = tmp_path / "alone"
    alone.mkdir()
    counts_alone = counting_compiler(alone, monkeypatch)
    custom_ops.get_plugin("tiny_plugin", [str(source)])
    assert single == counts_alone()


@needs_compiler
def test_a_killed_builder_is_no_obstacle(tmp_path, monkeypatch, repo, capsys, fresh_builder):
    calls = counting_compiler(tmp_path, monkeypatch, before=f"[ -e {tmp_path}/go ] || sleep 60")
    source = source_file(tmp_path)
    victim = start(repo, source, start_new_session=True)
    deadline = time.monotonic() + 60
    while not calls() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert calls() and list(fresh_builder.glob("*.building-*")) and list(fresh_builder.glob("*.lock"))
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate()
    (tmp_path / "go").touch()
    begin = time.monotonic()
    assert custom_ops.get_plugin("tiny_plugin", [str(source)]).answer() == 42
    assert f"Removed the stale lock of process {victim.pid}" in capsys.readouterr().out
    assert time.monotonic() - begin < 60 and not list(fresh_builder.glob("*.building-*"))


def test_a_dead_owner_costs_no_time(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "lock").write_text(f"{dead.pid}\n")
    said = []
    begin = time.monotonic()
    with ProcessLock(tmp_path / "lock", limit_sec=60, say=said.append):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert time.monotonic() - begin < 10
    assert len(said) == 1 and str(dead.pid) in said[0] and "stale" in said[0]
    with ProcessLock(tmp_path / "lock", limit_sec=60, say=said.append):
        pass
    assert len(said) == 1


def test_a_lock_file_that_holds_nonsense(tmp_path):
    (tmp_path / "lock").write_bytes(b"\xff\x00 not a number")
    said = []
    with ProcessLock(tmp_path / "lock", limit_sec=1, say=said.append):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert not said


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "lock").write_text("12345\n")

    def refuse(code):
        def flock(*_arguments):
            raise OSError(code, "planted")

        monkeypatch.setattr(fcntl, "flock", flock)

    refuse(errno.ENOLCK)
    with ProcessLock(tmp_path / "lock", limit_sec=1, say=lambda text: pytest.fail(text)):
        pass
    refuse(errno.EIO)
    with pytest.raises(OSError, match="planted"):
        with ProcessLock(tmp_path / "lock", limit_sec=1, say=print):
            pytest.fail("entered")


def test_a_living_owner_is_waited_for_up_to_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import fcntl, os, sys, time
file = open({str(path)!r}, "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(str(os.getpid())); file.flush()
print("held", flush=True)
sys.stdin.read()
""",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        said = []
        monkeypatch.setattr("torch_utils.process_lock._SILENT_SEC", 0.2)
        with pytest.raises(LockTimeout) as caught:
            with ProcessLock(path, limit_sec=0.6, say=said.append):
                pytest.fail("two owners at once")
        assert caught.value.owner == holder.pid
        assert said == [f"Waiting for process {holder.pid}, which is at the same work (at most 0.6 s)."]
    finally:
        holder.communicate("")
    with ProcessLock(path, limit_sec=1, say=lambda text: None):
        pass


@needs_compiler
def test_the_limit_is_reported_with_the_owner(tmp_path, monkeypatch, capsys):
    source = source_file(tmp_path)

    def held_for_ever(self):
        raise LockTimeout(self.path, 4321)

    monkeypatch.setattr(ProcessLock, "__enter__", held_for_ever)
    with pytest.raises(custom_ops.PluginError, match="process 4321 has been building it for more than 600 s; wait for it or end it"):
        custom_ops.get_plugin("tiny_plugin", [source])
    assert capsys.readouterr().out.startswith('Setting up PyTorch plugin "tiny_plugin"... Failed! Process 4321')


def test_without_a_compiler_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    source = source_file(tmp_path)
    for name in ("tiny_plugin", "other_plugin", "tiny_plugin"):
        assert custom_ops.get_plugin_or_none(name, [source]) is None
    output = capsys.readouterr()
    assert output.err == "" and output.out.count("\n") == 1
    assert output.out.startswith('Setting up PyTorch plugin "tiny_plugin"... Failed! No C++ compiler (') and "install one" in output.out
    with pytest.raises(custom_ops.PluginError, match="no C.. compiler"):
        custom_ops.get_plugin("tiny_plugin", [source])


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", sys.executable)  # any program that exists
    monkeypatch.setattr(custom_ops, "_ninja_folder", lambda: None)
    assert custom_ops.missing_tools(False) == ("no ninja ('ninja' is not on PATH)", "pip install ninja")
    monkeypatch.setattr(custom_ops, "_ninja_folder", lambda: "/")
    assert custom_ops.missing_tools(False) is None
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(custom_ops, "cuda_home", lambda: None)
    assert custom_ops.missing_tools(True)[0] == "no CUDA toolkit (no nvcc)"
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert custom_ops.missing_tools(True)[0] == "this PyTorch was built without CUDA"


def test_ninja_is_found_beside_python_though_not_on_path(monkeypatch, tmp_path):
    pytest.importorskip("ninja")
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = custom_ops._ninja_folder()
    assert shutil.which("ninja", path=folder)
    with custom_ops._folder_on_path(folder):
        assert shutil.which("ninja")
    assert os.environ["PATH"] == str(tmp_path)


@needs_compiler
def test_a_compile_error_is_quoted_and_the_log_kept(tmp_path, capsys, fresh_builder):
    source = tmp_path / "broken.cpp"
    source.write_text("int f() { return no_such_name; }\n")
    with pytest.raises(custom_ops.PluginError) as caught:
        custom_ops.get_plugin("broken_plugin", [source])
    assert "no_such_name" in caught.value.cause and str(fresh_builder) in caught.value.cure
    assert "no_such_name" in (fresh_builder / "broken_plugin.log").read_text()
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and "no_such_name" in output
    assert not list(fresh_builder.glob("*.building-*"))


@needs_compiler
@pytest.mark.parametrize("name", ["strange", "g++"])  # of the second PyTorch asks a version, and would log a traceback
def test_a_compiler_that_fails_costs_one_line(name, tmp_path, monkeypatch, capfd):
    compiler = tmp_path / name
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert custom_ops.get_plugin_or_none("tiny_plugin", [source_file(tmp_path)]) is None
    output = capfd.readouterr()
    assert output.err == "" and output.out.count("\n") == 1 and "Failed! Compiling failed: " in output.out


@needs_compiler
def test_a_compiler_that_runs_out_of_space_says_where(tmp_path, monkeypatch, capsys):
    counting_compiler(tmp_path, monkeypatch, before='case "$*" in *tiny.cpp*) echo "fatal error: write: No space left on device" >&2; exit 1;; esac')
    assert custom_ops.get_plugin_or_none("tiny_plugin", [source_file(tmp_path)]) is None
    said = capsys.readouterr().out
    assert "no space left in" in said and "TORCH_EXTENSIONS_DIR and TMPDIR" in said and said.count("\n") == 1


def test_verbosity(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    source = source_file(tmp_path)
    monkeypatch.setattr(custom_ops, "verbosity", "none")
    assert custom_ops.get_plugin_or_none("tiny_plugin", [source]) is None
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(custom_ops, "verbosity", "loud")
    with pytest.raises(ValueError, match="verbosity must be none, brief or full"):
        custom_ops.get_plugin("tiny_plugin", [source])


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such permissions here")
def test_a_folder_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    with pytest.raises(custom_ops.PluginError, match="point TORCH_EXTENSIONS_DIR to a folder"):
        custom_ops.get_plugin("tiny_plugin", [source_file(tmp_path)])


def test_the_folder_follows_content_headers_and_options(tmp_path):
    source = source_file(tmp_path)
    first = custom_ops._digest([source], {})
    assert first == custom_ops._digest([source], {})
    (tmp_path / "helper.h").write_text("// a header beside it")
    second = custom_ops._digest([source], {})
    assert len({first, second, custom_ops._digest([source], {"extra_cflags": ["-O3"]})}) == 3


def test_last_error_line():
    assert (
        custom_ops.last_error_line("a.cpp:1:2: error: first\na.cpp:9:9: error: second\nsome note\nninja: build stopped: x")
        == "a.cpp:9:9: error: second"
    )
    assert custom_ops.last_error_line("just this\n\n") == "just this"
    assert custom_ops.last_error_line("") == "no output"
