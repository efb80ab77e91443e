"""The options that people's scripts pass to the six tools: names, types, defaults. More may be added, none changed."""

import importlib

import click
import pytest

from madr_plugin import options as madr

TOOLS = ["train", "calc_metrics", "dataset_tool", "generate", "projector", "style_mixing"]
ADDED_TO_TRAIN = {
    "--device",
    "--resume-kimg",
    "--nkimg",
    "--resume-partial",
    "--keep",
    "--aug-max",
    "--initstrength",
    "--img-snap",
    "--snap-res",
    "--batch-gpu",
    "--cbase",
    "--cmax",
    "--glr",
    "--dlr",
    "--map-depth",
    "--mbstd-group",
    "--desc",
    "--tick",
    "--ema-kimg",
    "--pl-weight",
    "--trust-pickle",
    "--nan-streak",
    "--eval-at-start",
    "--detector",
    "--wandb",
    "--threads",
    "--kernels",
    "--profile",
    "--diversity-monitor",
    "--madr",
    "--madr-preset",
}


def options_of(tool):
    """{flag: click option} of a tool."""
    main = importlib.import_module(tool).main
    return {flag: option for option in main.params for flag in option.opts}


def default_of(option):
    # click marks 'not stated' by an object of its own; for a flag that is the same as False.
    default = option.default
    if default is False and option.is_flag or not isinstance(default, (str, int, float, bool, list, tuple, type(None))):
        return None
    return default


@pytest.mark.parametrize("tool", TOOLS)
def test_every_frozen_option_is_there(tool, golden):
    options = options_of(tool)
    for frozen in golden("cli.json")[tool]:
        option = options[frozen["flags"][0]]
        assert all(options[flag] is option for flag in frozen["flags"]), frozen
        assert (option.required, option.is_flag) == (frozen["required"], frozen["is_flag"]), frozen
        assert default_of(option) == frozen["default"], frozen
        if isinstance(frozen["type"], list):
            assert isinstance(option.type, click.Choice) and set(frozen["type"]) <= set(option.type.choices), frozen
        else:
            # 'integer range' is an integer with a check.
            assert option.type.name.removesuffix(" range") == frozen["type"], frozen


def test_train_has_the_flags_that_other_forks_have():
    assert ADDED_TO_TRAIN <= set(options_of("train"))


def test_every_flag_of_the_plugin_is_on_the_command_line():
    @madr.madr_options
    @click.command()
    def nothing(**_flags):
        pass

    plugin = {flag for option in nothing.params for flag in option.opts}
    assert plugin <= set(options_of("train"))


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "dataset_tool"])
def test_every_tool_that_computes_takes_a_device(tool):
    assert "--device" in options_of(tool)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_option_has_a_line_of_help(tool):
    for flag, option in options_of(tool).items():
        assert option.help, f"{tool}.py {flag}"
