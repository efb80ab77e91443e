"""The table of knobs: every knob has a row, every row a flag and a place in the docs; parts refuse their own nonsense; --madr-set."""

import dataclasses
import json
import pkgutil
import re

import click
import pytest
from click.testing import CliRunner

from madr_plugin import __main__, config, knobs_page, options
from madr_plugin.base import knobs
from madr_plugin.maths.knobs import PublishedKnobs
from madr_plugin.memory.knobs import DeficitKnobs, MemoryKnobs, ReplayKnobs
from madr_plugin.reals.knobs import ReferenceKnobs
from madr_plugin.strength.knobs import StrengthKnobs
from madr_plugin.tilt.knobs import TiltKnobs
from madr_spaces.errors import MADRError


@click.command()
@click.pass_context
@options.madr_options
def command(ctx, **flags):
    typed = [name for name in flags if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT]
    print(json.dumps(dict(typed=sorted(typed), given={name: value for name, value in flags.items() if value is not None})))


def given(*args):
    """(what the command receives, names that count as typed)."""
    result = CliRunner().invoke(command, list(args))
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    return found["given"], found["typed"]


def refusal(*args):
    result = CliRunner().invoke(command, list(args))
    assert result.exit_code == 2 and "Traceback" not in result.output
    return result.output


# --- the table ----------------------------------------------------------------------------------------------------------


def test_every_knob_has_one_row_and_the_groups_are_the_parts():
    names = [row.name for row in config.KNOBS]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(config.MADRConfig)) and len(set(names)) == len(names)
    assert names[0] == "preset" and {row.name for row in config.KNOBS if row.group == "tilt"} == {
        field.name for field in dataclasses.fields(TiltKnobs)
    }
    assert all(row.group and row.complaint(row.default) is None for row in config.KNOBS)


def test_every_row_has_a_place_in_the_docs(repo):
    """docs/madr_knobs.md is what python -m madr_plugin.knobs_page prints today."""
    page = knobs_page.page()
    assert all(f"| `{row.name}`" in page and row.meaning.replace("|", "/") in page for row in config.KNOBS)
    assert (repo / "docs" / "madr_knobs.md").read_text(encoding="utf-8") == page


def test_about_fifteen_flags_are_first_class_and_all_others_are_advanced():
    found = {option.opts[0]: option for option in command.params}
    assert sum(row.first for row in config.KNOBS) <= 16
    assert {row.flag: not row.first for row in config.KNOBS} == {flag: found[flag].advanced for flag in found if flag not in ("--madr", "--madr-set")}
    assert {option.help_group for option in command.params} == {"MADR"} and not found["--madr"].advanced and not found["--madr-set"].advanced


def test_help_of_the_launcher_is_short_and_help_all_is_complete():
    short, long = (CliRunner().invoke(__main__.main, [flag]).output for flag in ("--madr-help", "--madr-help-all"))
    for row in config.KNOBS:
        assert row.flag in long and (f"  {row.flag} " in short) == row.first


def test_equations_of_the_readme_name_functions_and_tests_that_exist(repo):
    rows = re.findall(
        r"^\|.*\|.*\|(.*)\|(.*)\|$", (repo / "madr_plugin" / "README.md").read_text(encoding="utf-8").split("## Presets")[0], re.MULTILINE
    )[2:]
    assert len(rows) > 20
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (repo / "tests").rglob("test_*.py"))
    for functions, names in rows:
        for dotted in re.findall(r"`([\w.]+)`", functions):
            pkgutil.resolve_name(f"madr_plugin.{dotted}")
        for name in re.findall(r"`(test_\w+?)(?:_?\.\.\.)?`", names):
            assert f"def {name}" in tests, name


# --- parts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part, values, words",
    [
        (TiltKnobs, dict(tilt_guard=2), "--madr-tilt-guard must lie between"),
        (PublishedKnobs, dict(estimator="faiss"), "--madr-estimator=faiss .*--madr-top-k=20"),
        (PublishedKnobs, dict(estimator="ratio", top_k=3), "--madr-estimator=ratio .*--madr-top-k"),
        (ReferenceKnobs, dict(anchors=3), "--madr-anchors must be at least 16"),
        (MemoryKnobs, dict(memory="lifo"), "--madr-memory must be one of"),
        (ReplayKnobs, dict(replay_share=0.0), "--madr-replay-share must lie between"),
        (StrengthKnobs, dict(weight=True), "--madr-weight must be a float"),
        (config.SpaceKnobs, dict(extractor="vgg"), "--madr-extractor must be"),
        (config.SpaceKnobs, dict(view="spin"), "--madr-view knows"),
        (config.SpaceKnobs, dict(weights_sha256="ab"), "64 hexadecimal digits"),
    ],
)
def test_each_part_refuses_its_own_nonsense_alone_and_in_the_whole(part, values, words):
    part()
    for maker in (part, config.MADRConfig):
        with pytest.raises(MADRError, match=words):
            maker(**values)


def test_the_whole_is_its_parts_under_flat_names():
    whole = config.resolve(dict(deficit_window=64, tilt=1))
    assert isinstance(whole, TiltKnobs) and isinstance(whole, DeficitKnobs) and whole.num_cells == 6 and whole.tilt == 1
    assert set(whole.as_dict()) == {row.name for row in config.KNOBS}


def test_options_recorded_by_older_runs_resolve_in_any_order():
    recorded = dict(reversed(config.resolve(dict(preset="paper", capacity=99)).as_dict().items()))
    assert config.resolve(recorded) == config.resolve(dict(preset="paper", capacity=99))


def test_a_record_is_taken_as_it_is_where_its_version_knew_fewer_knobs():
    """A run of the former default, from before the tilt had sensors: today's preset of that name must not give it one, nor the tilt itself."""
    recorded = dict(config.resolve(dict(preset="replay")).as_dict(), preset="default", tilt=1)
    for later in ("tilt_sensor", "tilt_window", "moments_horizon"):
        del recorded[later]
    assert config.resolve(recorded).tilt_sensor == "cells"
    del recorded["tilt"]
    found = config.resolve(recorded)
    assert (found.term, found.tilt, found.replay_weight, found.width) == ("witness", 0, 1.0, 0)


def test_unknown_options_name_the_nearest():
    with pytest.raises(MADRError, match="--madr-capasity, perhaps --madr-capacity is meant; known: .*--madr-anchors"):
        config.resolve(dict(capasity=3))
    assert knobs.nearest_name("colour-of-money", config.MADRConfig.__dataclass_fields__) is None


# --- --madr-set ---------------------------------------------------------------------------------------------------------


def test_a_setting_is_the_long_flag():
    for args in (["--madr-set", "dead_zone=2"], ["--madr-set=dead-zone=2.0"], ["--madr-dead-zone=2"], ["--madr-set=--madr-dead-zone=2"]):
        assert given("--madr=1", *args) == (dict(madr=1, madr_dead_zone=2.0), ["madr", "madr_dead_zone"])
    assert given("--madr-set", "capacity=64", "--madr-set", "kernel=rational-quadratic", "--madr-capacity=64")[0] == dict(
        madr_capacity=64, madr_kernel="rational-quadratic"
    )
    assert given("--madr-set", "weights=a=b,c")[0] == dict(madr_weights="a=b,c")


def test_settings_take_effect_and_need_madr_as_flags_do():
    flags, _ = given("--madr=1", "--madr-preset=replay", "--madr-set", "dead_zone=0", "--madr-capacity=999")
    resolved = options.from_flags(flags)
    assert (resolved.dead_zone, resolved.capacity) == (0.0, 999)
    flags, _ = given("--madr-set", "dead_zone=0")
    with pytest.raises(MADRError, match="--madr-dead-zone has no effect without --madr=1"):
        options.from_flags(flags)


@pytest.mark.parametrize(
    "args, words",
    [
        (["--madr-set", "dead_zone"], ["'dead_zone' has no value", "KEY=VALUE"]),
        (["--madr-set", "ded_zone=3"], ["'ded_zone'", "perhaps dead_zone is meant", "anchors, attraction", "width"]),
        (["--madr-set", "qqq=3"], ["no knob 'qqq'; the knobs are anchors"]),
        (["--madr-set", "capacity=1"], ["--madr-set", "capacity=1", "between 2 and 10000000", "2048"]),
        (["--madr-set", "capacity=1.5"], ["must be a int", "1.5"]),
        (["--madr-set", "weight=nan"], ["between 0 and 1000"]),
        (["--madr-set", "kernel=box"], ["one of mixture, rational-quadratic"]),
        (["--madr-set", "cells=3", "--madr-set", "cells=4"], ["cells is given as 3 and as 4"]),
        (["--madr-set", "cells=3", "--madr-cells=4"], ["cells=3 contradicts --madr-cells=4", "leave one of them out"]),
        (["--madr-cells=4", "--madr-set", "cells=3"], ["cells=3 contradicts --madr-cells=4"]),
        (["--madr-set", "cells=3", "--madr-cells=x"], ["--madr-cells", "'x'"]),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(args, words):
    output = " ".join(refusal("--madr=1", *args).split())
    assert all(word in output for word in words), output
