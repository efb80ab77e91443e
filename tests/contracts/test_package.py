"""`pip install .` gives madr_plugin alone: what a foreign fork gets."""

import subprocess
import sys


def test_pip_install_gives_the_plugin_alone(repo, tmp_path):
    # Built from the files as they lie here, with the tools that are here: no network.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        (source / name).write_bytes((repo / name).read_bytes())
    for folder in ("madr_plugin", "training", "metrics"):
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
    assert sorted(path.name for path in site.iterdir() if not path.name.endswith(".dist-info") and path.name != "bin") == ["madr_plugin"]
    shipped = {path.relative_to(site / "madr_plugin") for path in (site / "madr_plugin").rglob("*.py")}
    assert shipped == {path.relative_to(repo / "madr_plugin") for path in (repo / "madr_plugin").rglob("*.py")}
    run = subprocess.run(
        [sys.executable, "-c", "import madr_plugin; print(madr_plugin.__version__)"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and run.stdout.strip()
