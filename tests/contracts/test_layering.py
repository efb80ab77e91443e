"""Who may import whom, read from the source; and that importing does no work."""

import ast
import os
import subprocess
import sys

import pytest

PACKAGES = ["dnnlib", "torch_utils", "training", "metrics", "reporting", "madr_spaces", "madr_plugin", "experiments"]
# What each package may import of this project, as first parts of dotted names.
ALLOWED = {
    "dnnlib": {"dnnlib"},
    "torch_utils": {"dnnlib", "torch_utils"},
    # Under metrics and plugin, in forks as here: it knows no host.
    "madr_spaces": {"madr_spaces"},
    "metrics": {"dnnlib", "torch_utils", "madr_spaces", "metrics", "legacy", "training"},
    "training": {"dnnlib", "torch_utils", "training", "legacy", "metrics"},
    "reporting": {"dnnlib", "torch_utils", "training", "madr_spaces", "metrics", "legacy", "reporting"},
    # Inside functions it meets whatever host it runs in; see test_plugin_imports_nothing_of_a_host_when_imported.
    "madr_plugin": {"madr_plugin", "madr_spaces", "dnnlib", "torch_utils", "training", "metrics", "legacy"},
    "legacy": {"dnnlib", "torch_utils", "training"},
    "experiments": {"dnnlib", "torch_utils", "training", "metrics", "madr_spaces", "madr_plugin", "legacy", "reporting", "experiments"},
}
# Only these modules of training/ may know of metrics, and only these of metrics/ of training (data sets, by name or subclass).
TRAINING_KNOWS_METRICS = {"training.teller", "training.evaluation"}
# torch and everything above it stays out of dnnlib; a data set needs no GPU library beyond torch's base class.
FORBIDDEN_OUTSIDE = {"dnnlib": {"torch", "torchvision"}}


def modules(repo):
    """{dotted name: path} of the packages and of the root scripts."""
    found = {}
    for path in [*repo.glob("*.py"), *(path for package in PACKAGES for path in (repo / package).rglob("*.py"))]:
        parts = path.relative_to(repo).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name, path, everywhere=True):
    """Dotted names that a module imports; with everywhere=False only those at import time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        inside_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if everywhere or not inside_function:
            pending.extend(ast.iter_child_nodes(node))
    return found


def own(names):
    return {name.split(".")[0] for name in names} & ({*PACKAGES, "legacy"})


@pytest.mark.parametrize("package", PACKAGES)
def test_layers(repo, package):
    checked = 0
    for name, path in modules(repo).items():
        if name.split(".")[0] != package:
            continue
        checked += 1
        used = imports(name, path)
        assert own(used) <= ALLOWED[package], f"{name} imports {own(used) - ALLOWED[package]}"
        outside = {module.split(".")[0] for module in used} & FORBIDDEN_OUTSIDE.get(package, set())
        assert not outside, f"{name} imports {outside}"
        if package == "training" and name not in TRAINING_KNOWS_METRICS:
            assert "metrics" not in own(used), f"{name} imports metrics"
    assert checked > 0


def test_only_root_scripts_name_the_plugin(repo):
    for name, path in modules(repo).items():
        if name.split(".")[0] in ("dnnlib", "torch_utils", "training", "metrics", "reporting", "legacy", "export"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            dotted = [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("madr_plugin.")
            ]
            assert not dotted and not any(used.startswith("madr_plugin") for used in imports(name, path)), f"{name} names madr_plugin: {dotted}"


def test_plugin_imports_nothing_of_a_host_when_imported(repo):
    for name, path in modules(repo).items():
        if name.startswith("madr_plugin"):
            assert own(imports(name, path, everywhere=False)) <= {"madr_plugin", "madr_spaces"}, name


def test_spaces_import_torch_and_numpy_alone_when_imported(repo):
    for name, path in modules(repo).items():
        if name.startswith("madr_spaces"):
            outside = {used.split(".")[0] for used in imports(name, path, everywhere=False)} - set(sys.stdlib_module_names)
            assert outside <= {"madr_spaces", "torch", "numpy"}, f"{name} imports {outside}"


def test_scripts_are_no_libraries(repo):
    """Nothing imports a root script (legacy, whose functions are interface, apart): what two of them share lies in a package."""
    scripts = {path.stem for path in repo.glob("*.py")} - {"legacy"}
    files = modules(repo)
    files.update({f"{path.parent.name}.{path.stem}": path for folder in ("benchmarks", "docs") for path in (repo / folder).rglob("*.py")})
    reference_of_flags = {"docs.make_reference": {"train"}}  # its subject is that script's options
    assert scripts >= {"train", "calc_metrics", "report", "doctor"} and "benchmarks.reach" in files
    for name, path in files.items():
        used = {module.split(".")[0] for module in imports(name, path)} & scripts
        assert used <= reference_of_flags.get(name, set()), f"{name} imports {used}"


def test_no_cycles(repo):
    files = modules(repo)
    graph = {name: {used for used in imports(name, path, everywhere=False) if used in files and used != name} for name, path in files.items()}
    # A package is imported with each of its modules; that alone is no cycle.
    graph = {name: {used for used in edges if not name.startswith(used + ".")} for name, edges in graph.items()}
    done, open_now = set(), []

    def visit(name):
        assert name not in open_now, " -> ".join([*open_now[open_now.index(name) :], name])
        if name in done:
            return
        open_now.append(name)
        for used in sorted(graph[name]):
            visit(used)
        open_now.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


def test_importing_does_no_work(repo, tmp_path):
    """All modules in one process: no output, no file, no thread, no process group, no seed, torch's defaults untouched."""
    names = sorted(name for name in modules(repo) if not name.endswith("__main__"))
    code = f"""
import threading, random
import torch, numpy, scipy.signal, matplotlib  # their own work is not ours
before = (threading.active_count(), torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist(), torch.backends.cudnn.benchmark)
import importlib
for name in {names!r}:
    importlib.import_module(name)
after = (threading.active_count(), torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist(), torch.backends.cudnn.benchmark)
assert before[0] == after[0] and torch.equal(before[1], after[1]) and before[2:] == after[2:]
assert not torch.cuda.is_initialized() and not torch.distributed.is_initialized()
"""
    environment = dict(
        os.environ,
        PYTHONPATH=str(repo),
        HOME=str(tmp_path / "home"),
        MPLCONFIGDIR=str(tmp_path.parent / "mpl"),
        PYTHONDONTWRITEBYTECODE="1",
        DNNLIB_CACHE_DIR=str(tmp_path / "cache"),
        TORCH_EXTENSIONS_DIR=str(tmp_path / "extensions"),
    )
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
