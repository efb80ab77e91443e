"""`pip install .` gives the plugin and the feature spaces under it, and nothing else: what a foreign fork gets."""

import subprocess
import sys


def test_pip_install_gives_the_plugin_alone(repo, tmp_path):
    # Built from the files as they lie here, with the tools that are here: no network.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        (source / name).write_bytes((repo / name).read_bytes())
    for folder in ("madr_plugin", "madr_spaces", "training", "metrics"):
        for path in (repo / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = source / path.relative_to(repo)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(source)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    packages = ["madr_plugin", "madr_spaces"]
    assert sorted(path.name for path in site.iterdir() if not path.name.endswith(".dist-info") and path.name != "bin") == packages
    for package in packages:
        shipped = {path.relative_to(site) for path in (site / package).rglob("*.py")}
        assert shipped == {path.relative_to(repo) for path in (repo / package).rglob("*.py")}
    run = subprocess.run(
        [sys.executable, "-c", "import madr_plugin, madr_spaces.registry, madr_plugin.metrics; print(madr_plugin.__version__)"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and run.stdout.strip()
