"""The helpers of dnnlib.util: no torch, names and values that people rely on, and a log that breaks nothing."""

import contextlib
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import dnnlib
from dnnlib import util


def test_dnnlib_does_not_import_torch(repo):
    code = "import sys, dnnlib, dnnlib.files, dnnlib.download; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=repo, check=True)


def test_easy_dict_is_a_dict_with_attributes():
    d = dnnlib.EasyDict(a=1)
    d.b = 2
    assert d == {"a": 1, "b": 2} and d.a == 1
    del d.a
    with pytest.raises(AttributeError):
        d.a
    with pytest.raises(AttributeError):
        del d.a
    copied = pickle.loads(pickle.dumps(d))
    assert type(copied) is util.EasyDict and copied.b == 2


@pytest.mark.parametrize(
    "seconds, text", [(0, "0s"), (41.4, "41s"), (59.6, "1m 00s"), (309, "5m 09s"), (67000, "18h 36m 40s"), (634020, "7d 08h 07m")]
)
def test_format_time(seconds, text):
    assert util.format_time(seconds) == text


def test_objects_by_name():
    assert util.get_obj_by_name("os.path.join") is os.path.join
    assert util.get_obj_by_name("dnnlib.util.EasyDict") is dnnlib.EasyDict
    assert util.construct_class_by_name(class_name="dnnlib.EasyDict", a=1) == {"a": 1}
    assert util.call_func_by_name(3, 4, func_name="np.add") == 7
    assert util.get_module_from_obj_name("dnnlib.util.Logger.close") == (util, "Logger.close")
    assert os.path.samefile(util.get_module_dir_by_obj_name("dnnlib.util.Logger"), os.path.dirname(util.__file__))
    with pytest.raises(AttributeError, match="NoSuch"):
        util.get_obj_by_name("dnnlib.util.NoSuch")
    with pytest.raises(ImportError, match="no module 'nosuchmodule'"):
        util.get_obj_by_name("nosuchmodule.thing")


def test_a_missing_dependency_is_not_taken_for_a_wrong_name(tmp_path, monkeypatch):
    (tmp_path / "needs_dependency.py").write_text("import a_dependency_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_dependency_that_is_missing"):
        util.get_obj_by_name("needs_dependency.Thing")


def test_top_level_functions():
    assert util.is_top_level_function(util.format_time)
    assert not util.is_top_level_function(lambda: 0)
    assert util.get_top_level_function_name(util.format_time) == "dnnlib.util.format_time"


def test_small_conversions():
    import ctypes

    assert util.tuple_product((2, 3, 4)) == 24 and util.tuple_product(()) == 1
    assert util.get_dtype_and_ctype("float32") == (np.dtype(np.float32), ctypes.c_float)
    assert util.get_dtype_and_ctype(np.uint8) == (np.dtype(np.uint8), ctypes.c_uint8)
    assert util.is_pickleable([1]) and not util.is_pickleable(lambda: 0)


def test_ask_yes_no(monkeypatch):
    answers = iter(["maybe", "", "YES"])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert util.ask_yes_no("Go on?") is True
    assert list(answers) == []


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    assert dnnlib.make_cache_dir_path("downloads", "x") == str(tmp_path / "downloads" / "x")
    monkeypatch.delenv("DNNLIB_CACHE_DIR")
    assert dnnlib.make_cache_dir_path() == os.path.join(os.path.expanduser("~"), ".cache", "dnnlib")
    monkeypatch.setattr(util, "_dnnlib_cache_dir", None)
    util.set_cache_dir(str(tmp_path / "set"))
    assert dnnlib.make_cache_dir_path("a") == str(tmp_path / "set" / "a")


def test_is_url():
    assert util.is_url("https://host.org/a.pkl") and util.is_url("http://localhost:80/a")
    assert not util.is_url("a/b.pkl") and not util.is_url("C:\\a.pkl") and not util.is_url(3)
    assert not util.is_url("file:///a") and util.is_url("file:///a", allow_file_urls=True)


def test_folders(tmp_path):
    source = tmp_path / "code"
    for name in ("a.py", "b.pyc", "sub/c.py", "__pycache__/d.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    found = util.list_dir_recursively_with_ignore(str(source), ignores=["*.pyc", "__pycache__"], add_base_to_relative=True)
    assert [relative for _, relative in found] == [os.path.join("code", "a.py"), os.path.join("code", "sub", "c.py")]
    util.copy_files_and_create_dirs([(path, str(tmp_path / "copy" / relative)) for path, relative in found])
    assert (tmp_path / "copy" / "code" / "sub" / "c.py").read_text() == "sub/c.py"


# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_streams():
    """Runs a function with standard streams of our own, given to it; a fixture cannot set them, for pytest sets its own later."""

    def run(function):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            function(out, err)
            assert (sys.stdout, sys.stderr) == (out, err)

    return run


def test_logger_copies_both_streams_and_restores_them(tmp_path, with_streams):
    with_streams(lambda out, err: _check_copies(tmp_path, out, err))


def _check_copies(tmp_path, out, err):
    path = tmp_path / "log.txt"
    with util.Logger(str(path)) as logger:
        print("to stdout")
        print("to stderr", file=sys.stderr)
        sys.stdout.write(b"bytes\n")
        logger.write("direct\n")
    assert (sys.stdout, sys.stderr) == (out, err)
    assert path.read_text() == "to stdout\nto stderr\nbytes\ndirect\n"
    assert out.getvalue() == "to stdout\nbytes\ndirect\n" and err.getvalue() == "to stderr\n"
    logger.close()  # twice is harmless

    with util.Logger(str(path), file_mode="a"):
        print("resumed")
    assert path.read_text().endswith("direct\nresumed\n")


def test_logger_restores_after_an_error_and_keeps_what_was_written(tmp_path, with_streams):
    def fail(_out, _err):
        with pytest.raises(RuntimeError):
            with util.Logger(str(tmp_path / "log.txt")):
                print("before")
                raise RuntimeError

    with_streams(fail)
    assert (tmp_path / "log.txt").read_text() == "before\n"


def test_logger_answers_what_libraries_ask(tmp_path):
    code = (
        "import sys, faulthandler; from dnnlib.util import Logger\n"
        "with Logger(sys.argv[1]) as logger:\n"
        "    assert sys.stdout.isatty() is False and sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2\n"
        "    assert sys.stdout.encoding and sys.stdout.writable() and not sys.stdout.closed and logger.isatty() is False\n"
        "    sys.stdout.writelines(['a', 'b\\n']); faulthandler.enable(); print('\\u00e9')\n"
    )
    environment = dict(os.environ, PYTHONIOENCODING="utf-8", PYTHONPATH=os.getcwd())
    path = tmp_path / "log.txt"
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == path.read_text(encoding="utf-8").splitlines() == ["ab", "\u00e9"]


class FullDisk:
    name = "log.txt"

    def write(self, _text):
        raise OSError(28, "No space left on device")


def test_a_full_disk_ends_the_log_not_the_run(tmp_path, with_streams):
    def fill(out, err):
        logger = util.Logger(str(tmp_path / "log.txt"))
        logger.file.close()
        logger.file = FullDisk()
        print("one")
        print("two")
        logger.close()
        assert out.getvalue() == "one\ntwo\n"
        assert err.getvalue().count("cannot be written") == 1

    with_streams(fill)


def test_flat_items():
    assert util.flat_items(dict(a=1, b=dict(c=[2], d=dict(e=None)), f={})) == {("a",): 1, ("b", "c"): [2], ("b", "d", "e"): None, ("f",): {}}
