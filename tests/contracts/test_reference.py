"""A flag is a row, a metric is a row, and each has its place in the help and in the documents."""

import importlib.util
import inspect
import re
import subprocess
import sys

import click
import pytest

import calc_metrics
import train
from dnnlib import grouped_help
from madr_plugin import options as madr
from metrics import listing, metric, metric_main
from training import flag_table, training_loop

ROWS_OF_TWO_SCREENS, COLUMNS = 65, 140


@pytest.fixture(scope="module")
def make(repo):
    """docs/make_reference.py"""
    spec = importlib.util.spec_from_file_location("make_reference", repo / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@madr.madr_options
@click.command()
def plugin_command(**_flags):
    pass


def help_of(command, all_options=False):
    context = click.Context(command, info_name="tool.py", terminal_width=COLUMNS, max_content_width=COLUMNS)
    if all_options:
        context.meta[grouped_help._SHOWS_ALL] = True
    return command.get_help(context)


def test_every_flag_is_a_row_and_every_row_a_flag():
    names = [row.name for row in flag_table.FLAGS]
    assert len(names) == len(set(names))
    plugin = [option.name for option in plugin_command.params]
    assert sorted(names + plugin) == sorted(option.name for option in train.main.params if not option.is_eager)
    by_name = {option.name: option for option in train.main.params}
    assert all(row.text in by_name[row.name].opts for row in flag_table.FLAGS)


def test_what_is_passed_on_is_a_keyword_of_the_loop():
    """Otherwise the dry run shows the option and the run itself dies of it."""
    taken = set(inspect.signature(training_loop.training_loop).parameters)
    assert set(flag_table.passed_on().values()) - {"threads"} <= taken  # threads: set before the loop begins


def test_every_file_with_rows_of_metrics_is_registered(repo):
    with_rows = {path.stem for path in (repo / "metrics").glob("*.py") if re.search(r"^METRICS = ", path.read_text(), re.MULTILINE)}
    assert with_rows and with_rows == {module.__name__.split(".")[-1] for module in metric_main._FILES}


def test_rows_agree_with_themselves():
    for row in flag_table.FLAGS:
        assert row.how is not flag_table.How.PASSED_ON or len(row.options) == 1, row.name
        assert (row.how is flag_table.How.OVERRIDES) == (row.name_part is not None), row.name
        assert row.options or row.on_resume is flag_table.OnResume.NOT_COMPARED, f"--resume cannot compare {row.name}"
        # resume_options.py replaces options of the top level as a whole.
        assert row.on_resume is not flag_table.OnResume.MAY_CHANGE or not any("." in place for place in row.options), row.name
        assert not row.housekeeping or not any("." in place for place in row.options), row.name


def test_help_fits_two_screens():
    rows = help_of(train.main).splitlines()
    assert len(rows) <= ROWS_OF_TWO_SCREENS, len(rows)
    assert max(map(len, rows)) <= COLUMNS


@pytest.mark.parametrize("command", [train.main, calc_metrics.main])
def test_every_option_stands_in_the_whole_help_once_and_under_a_heading(command):
    words = [line.split()[0].rstrip(",") for line in help_of(command, all_options=True).splitlines() if line.startswith("  -")]
    for option in command.params:
        assert option.hidden or words.count(option.opts[0]) == 1, option.opts
        assert option.is_eager or getattr(option, "help_group", None) or option.name.startswith("madr"), option.opts


def test_short_help_leaves_out_what_is_advanced():
    short, whole = help_of(train.main), help_of(train.main, all_options=True)
    assert "--outdir" in short and "--help-all" in short and "--glr" not in short and "--glr" in whole


def test_short_help_gives_each_option_one_row():
    @click.command(cls=grouped_help.GroupedCommand)
    @click.option(
        "--mode", cls=grouped_help.Option, help_group="First", type=click.Choice(["one-long-word", "another-long-word"]), help="word " * 50 + "end"
    )
    @click.option("--count", cls=grouped_help.Option, help_group="First", type=click.IntRange(1), help="How many")
    @click.option("--rare", cls=grouped_help.Option, help_group="Second", advanced=True, help="Seldom needed")
    @click.option("--silent")
    def command(**_flags):
        pass

    short, whole = help_of(command).splitlines(), help_of(command, all_options=True)
    assert [line.split()[0] for line in short if line.startswith("  ")] == ["--mode", "--count", "--help-all", "--help"]
    assert short[3].startswith("  --mode NAME ") and short[3].endswith(" ...") and "--count INT" in short[4]
    assert "another-long-word]" in whole and "Second:" in whole and whole.index("Second:") < whole.index("--silent")


def test_help_all_is_a_flag(capsys):
    assert train.main.main(["--help-all"], standalone_mode=False) == 0
    assert "--glr" in capsys.readouterr().out


def test_help_comes_without_torch(repo):
    code = "import sys; sys.argv = ['train.py', '--help']\nimport train\ntrain.main.main(['--help'], standalone_mode=False)\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0 and "--outdir" in done.stdout, done.stderr


def test_methods_page_is_made_from_the_rows(make):
    assert make.METHODS_PAGE.read_text(encoding="utf-8") == make.methods_page(), "run: python docs/make_reference.py"


def test_flags_page_is_made_from_the_rows(make):
    assert make.FLAGS_PAGE.read_text(encoding="utf-8") == make.flags_page(), "run: python docs/make_reference.py"


def test_every_flag_has_its_place_in_the_documents(make):
    text = make.FLAGS_PAGE.read_text(encoding="utf-8")
    for option in train.main.params:
        assert option.hidden or option.is_eager or any(f"{option.opts[0]}{end}" in text for end in (" ", "`", ",")), option.opts


def test_metrics_table_is_made_from_the_rows(make):
    assert make.METRICS_PAGE.read_text(encoding="utf-8") == make.metrics_page(), "run: python docs/make_reference.py"
    for name in metric_main.list_valid_metrics():
        assert f"| `{name}` |" in make.metrics_table(), name


def test_the_names_in_the_help_are_made_from_the_rows(make):
    assert make.LISTING.read_text(encoding="utf-8") == make.listing(), "run: python docs/make_reference.py"
    assert [name for names in listing.NAMES.values() for name in names] == sorted(
        metric_main.list_valid_metrics(), key=lambda name: list(metric.Group).index(metric_main.row_of(name).group)
    )


def test_every_metric_is_a_row_with_a_meaning_and_counts():
    for name in metric_main.list_valid_metrics():
        row = metric_main.function_of(name)
        assert isinstance(row, metric.Metric) and row.name == row.__name__ == name
        assert row.meaning and row.num_gen > 0 and row.detector is not None


def test_rows_and_families_of_names_agree():
    """A metric line of a run is judged by its name where the metric is not registered; both must say the same of ours."""
    for name in metric_main.list_valid_metrics():
        row = metric_main.row_of(name)
        assert metric.family_detector(name) in (None, row.detector), name
        if not name.startswith("madr_"):
            assert metric.less_is_better(name) != row.higher_is_better, name


def test_help_of_calc_metrics_names_every_metric():
    text = help_of(calc_metrics.main)
    words = text.replace(",", " ").replace(".", " ").split()
    assert set(metric_main.list_valid_metrics()) <= set(words)


def test_a_foreign_function_becomes_a_row(monkeypatch):
    monkeypatch.setattr(metric_main, "_metrics", dict(metric_main._metrics))

    @metric_main.register_metric
    def fid7k(opts):
        """A fork's own."""
        return dict(fid7k=1.0)

    row = metric_main.row_of("fid7k")
    assert (row.detector, row.higher_is_better, row.meaning, row.group) == ("inception", False, "A fork's own.", metric.Group.OWN)
    assert not metric_main.takes_given_features("fid7k") and metric_main.row_of("fid8k") is None
