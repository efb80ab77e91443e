"""A knob that nothing reads is refused where a person gives it, and only there."""

import pytest

from madr_plugin import config, idle_knobs, options
from madr_spaces.errors import MADRError

KNOBS_WITH_A_READER = [(name, reader) for names, reader, _ in idle_knobs.READERS for name in names]
# What makes each reader be there; one line per row of the table.
REMEDIES = {
    "--madr-tilt=1": dict(tilt=1, tilt_sensor="cells"),
    "--madr-tilt=1 --madr-tilt-sensor=fine": dict(tilt=1, tilt_sensor="fine"),
    "--madr-tilt=1 --madr-tilt-sensor=debts": dict(tilt=1, tilt_sensor="debts", debt="potentials"),
    "--madr-debt=potentials or batch": dict(debt="batch"),
    "--madr-debt=potentials": dict(debt="potentials"),
    "--madr-term=witness or witness+moments": dict(term="witness+moments"),
    "--madr-term=moments or witness+moments": dict(term="moments"),
    "--madr-moments-fresh=0": dict(term="moments"),
    "--madr-extractor=dino, timm:<model> or another network of photographs": dict(extractor="dino"),
    "--madr-replay-weight above 0": dict(replay_weight=0.5),
    "--madr-replay-weight above 0, --madr-moments-horizon=auto or --madr-term=paper": dict(term="moments", moments_horizon="auto"),
    "--madr-replay-weight above 0, --madr-attraction=deficit or --madr-tilt-sensor=cells": dict(tilt=1, tilt_sensor="cells"),
    "--madr-replay-from=champions": dict(replay_from="champions", replay_weight=1.0),
    "--madr-memory=forgetting": dict(memory="forgetting", replay_weight=0.5),
    "--madr-controller=integral": dict(controller="integral"),
    "--madr-controller=sigmoid or adaptive": dict(term="paper", controller="sigmoid", balance="fixed"),
    "--madr-term=paper or enhanced": dict(term="paper", balance="fixed"),
}
# Under these no row's reader is there but the one that a knob of another row needs.
WITHOUT = dict(tilt=0, debt="none", replay_weight=0.0, term="witness")
OTHER = dict(
    tilt_form="weight",
    tilt_sensor="logits",
    recall_target=0.5,
    tilt_guard=0.5,
    kernel="rational-quadratic",
    tilt_window="1024",
    moments_horizon="auto",
    bandwidth="warm",
    memory="reservoir",
)


def another_value(name):
    default = config.value_of("default", idle_knobs.ROWS[name])
    return OTHER.get(name) or type(default)(default * 2 if default else 1)


def without_reader_of(name, reader):
    """Options of a command line under which nothing reads the knob."""
    if reader == "--madr-moments-fresh=0":
        return dict(term="moments", moments_fresh=64)
    if reader == "--madr-memory=forgetting":
        return dict(replay_weight=0.5, memory="fifo")
    given = dict(WITHOUT, term="paper", balance="fixed") if name in ("kernel", "reals", "shrink") else dict(WITHOUT)
    return dict(given, tilt=1, tilt_sensor="cells") if name in ("tilt_rarest", "tilt_window") else given


@pytest.mark.parametrize("name, reader", KNOBS_WITH_A_READER)
def test_a_knob_that_nothing_reads_is_refused_with_what_would_read_it(name, reader):
    given = dict(without_reader_of(name, reader), **{name: another_value(name)})
    resolved = config.resolve({key: value for key, value in given.items() if key != name})
    with pytest.raises(MADRError) as error:
        idle_knobs.refuse(given, resolved)
    assert f"--madr-{name.replace('_', '-')}={given[name]} has no effect without {reader}" in str(error.value)


@pytest.mark.parametrize("name, reader", KNOBS_WITH_A_READER)
def test_with_its_reader_it_is_taken(name, reader):
    given = dict(REMEDIES[reader], **{name: another_value(name)})
    resolved = config.resolve(given)
    idle_knobs.refuse(given, resolved)
    assert getattr(resolved, name) == another_value(name)


@pytest.mark.parametrize("name, default, other", [("tilt_max", 5.0, 6.0), ("champion_mib", 64, 65)])
def test_the_default_may_be_spelled_out_and_another_value_not(name, default, other):
    resolved = config.resolve(dict(tilt=0))
    idle_knobs.refuse({name: default}, resolved)
    with pytest.raises(MADRError, match="has no effect"):
        idle_knobs.refuse({name: other}, resolved)


@pytest.mark.parametrize(
    "given, reader",
    [
        (dict(madr_tilt=0, madr_tilt_window="4000"), "--madr-tilt=1 --madr-tilt-sensor=fine"),
        (dict(madr_preset="moments", madr_tilt_sensor="fine"), "--madr-tilt=1"),
        (dict(madr_moments_fresh=64, madr_moments_horizon="2"), "--madr-moments-fresh=0"),
    ],
    ids=str,
)
def test_under_the_preset_that_is_given(given, reader):
    with pytest.raises(MADRError, match=f"has no effect without {reader}"):
        options.from_flags(dict(madr=1, **given))


def test_flags_are_refused_and_recorded_options_are_not():
    with pytest.raises(MADRError, match="--madr-champion-mib=9 has no effect without --madr-replay-from=champions"):
        options.from_flags(dict(madr=1, madr_champion_mib=9))
    assert config.resolve(dict(champion_mib=9)).champion_mib == 9


@pytest.mark.parametrize("preset", config.PRESET_NAMES)
def test_no_preset_sets_what_nothing_under_it_reads(preset):
    given = dict(config.PRESETS[preset], preset=preset)
    idle_knobs.refuse(given, config.resolve(given))
    assert set(config.PRESETS[preset]) <= set(idle_knobs.ROWS)
