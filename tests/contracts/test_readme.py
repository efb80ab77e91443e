"""What the READMEs tell people to type exists."""

import importlib.util
import re
import shlex

import pytest

COMMAND = re.compile(r"^python (-m (?P<module>\w+(\.\w+)+)|(?P<script>[a-z_0-9/]+\.py))(?P<arguments>.*)$")


def commands(repo):
    """(file, script, [flags]) of every `python x.py ...` or `python -m a.b ...` line in the READMEs' blocks of shell commands."""
    found = []
    for readme in ["README.md", "madr_plugin/README.md", *sorted(str(path.relative_to(repo)) for path in (repo / "docs").rglob("*.md"))]:
        text = (repo / readme).read_text()
        for block in [*re.findall(r"```bash\n(.*?)```", text, re.DOTALL), *re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)]:
            for line in block.replace("\\\n", " ").splitlines():
                match = COMMAND.match(line.strip())
                if match:
                    words = shlex.split(match["arguments"], comments=True)
                    script = match["script"] or match["module"].replace(".", "/") + ".py"
                    found.append((readme, script, [word.split("=")[0] for word in words if word.startswith("--")]))
    return found


def options_of(path):
    spec = importlib.util.spec_from_file_location("readme_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {flag for parameter in module.main.params for flag in getattr(parameter, "opts", [])}


def test_commands_and_their_flags_exist(repo):
    told = commands(repo)
    assert {script for _, script, _ in told} >= {"train.py", "calc_metrics.py", "dataset_tool.py", "generate.py", "doctor.py", "export.py"}
    known = {}
    for readme, script, flags in told:
        assert (repo / script).is_file(), f"{readme} names {script}"
        if flags:
            known.setdefault(script, options_of(repo / script))
            assert set(flags) <= known[script] | {"--help", "--version"}, f"{readme}: python {script} has no {sorted(set(flags) - known[script])}"


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_at_the_top(repo, target):
    assert f"make {target} " in (repo / "README.md").read_text()[:3000] and re.search(
        rf"^{target}: setup$", (repo / "Makefile").read_text(), re.MULTILINE
    )


def test_links_and_the_map_lead_somewhere(repo):
    text = (repo / "README.md").read_text()
    for name in re.findall(r"\]\(([^)#:]+)\)", text) + [
        n for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for n in re.findall(r"`([\w./]+)`", row)
    ]:
        assert (repo / name).exists(), name
