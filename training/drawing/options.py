"""Options that generate.py, style_mixing.py and projector.py share, and how their values are written.

Must not import torch: --help needs none.
"""

import math
import os
import re

import click
from click.core import ParameterSource

from dnnlib import cli
from dnnlib.errors import UserError

NOISE_MODES = ["const", "random", "none"]
LARGEST = 1e6  # of a number that networks multiply by: far beyond any picture, and a float32 still


def check_num_steps(num_steps):
    """Refuse a projection without a step."""
    if num_steps < 1:
        raise UserError(f"--num-steps must be at least 1 (got {num_steps}); the default is 1000")


def check_noise_seed(seed):
    """Refuse what torch takes for no seed."""
    if not -(2**63) <= seed < 2**64:
        raise UserError(f"--seed must lie between {-(2**63)} and {2**64 - 1} (got {seed}); choose a smaller one")


class FiniteNumber(type(click.FLOAT)):
    """A number, but no nan and nothing near inf, which would draw black."""

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        if abs(number) > LARGEST:
            self.fail(f"{value} is too large: no picture is left beyond {LARGEST:g}.", param, ctx)
        return number


class ClassText(click.ParamType):
    """A class by number or name; what the network has is known only when it is open."""

    name = "integer"  # as people's scripts know it

    def convert(self, value, param, ctx):
        text = str(value).strip()
        if not text:
            self.fail("the class is empty; give its number or its name.", param, ctx)
        return text


class LabelVector(click.ParamType):
    """'5,90' -> (5.0, 90.0)."""

    name = "numbers"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers; write it like 5,90.", param, ctx)
        if not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} holds a number that is not finite; write it like 5,90.", param, ctx)
        return numbers


class SeedsOrLatents(cli.NumRange):
    """'1,3-4,proj/projected_w.npz' -> [1, 3, 4, 'proj/projected_w.npz']: seeds as ever, and files of projected latents."""

    def convert(self, value, param, ctx):
        if isinstance(value, (list, tuple)):
            return list(value)
        parts = [value] if os.path.isfile(value) else str(value).split(",")
        found = []
        for part in parts:
            path = os.path.expanduser(part.strip())
            if re.search(r"\.npz$", path, re.IGNORECASE) or os.path.isfile(path):
                found.append(path)
            else:
                found.extend(super().convert(part if len(parts) > 1 and part.strip() else value, param, ctx))
        return found


def label_options(several):
    """--class and --label; several: each may be given more than once."""
    more = "; several times for --video and --sheet" if several else ""
    return cli.option_group(
        click.option(
            "--class",
            "class_texts" if several else "class_text",
            type=ClassText(),
            multiple=several,
            metavar="N|NAME",
            help=f"Class to draw, by its number (counted from 0) or its name; needed if the network has classes{more}",
        ),
        click.option(
            "--label",
            "label_vectors" if several else "label_vector",
            type=LabelVector(),
            multiple=several,
            metavar="A,B,...",
            help=f"Label to draw as its numbers, such as 5,90; for a network whose labels are no classes{more}",
        ),
    )


def drs_options(details=None, **look):
    """--drs and what it takes. look: further keywords of every option; details: of those that only say how."""
    details = {**look, **(details or {})}
    return cli.option_group(
        click.option("--drs", is_flag=True, help="Discriminator rejection sampling: keep of G's images those that D finds as likely real", **look),
        click.option(
            "--drs-percentile",
            type=cli.FloatRange(0, 100),
            default=95,
            show_default=True,
            metavar="P",
            help="What is accepted with a chance of one half: that percentile of the first images; higher is stricter",
            **details,
        ),
        click.option("--drs-gamma", type=FiniteNumber(), metavar="X", help="gamma itself, in place of --drs-percentile", **details),
        click.option(
            "--drs-burn-in",
            type=cli.IntRange(min=100),
            default=10_000,
            show_default=True,
            metavar="N",
            help="Images from which the largest logit is taken before any is kept",
            **details,
        ),
    )


def check_drs(ctx, flags):
    """Refuse options of --drs without it, and two rules for gamma."""
    typed = [name for name in ("drs_percentile", "drs_gamma", "drs_burn_in") if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if typed and not flags["drs"]:
        raise UserError(
            f"--{typed[0].replace('_', '-')}={flags[typed[0]]} has no effect without --drs; add it, or leave --{typed[0].replace('_', '-')} out"
        )
    if "drs_percentile" in typed and "drs_gamma" in typed:
        raise UserError(
            f"--drs-gamma={flags['drs_gamma']:g} and --drs-percentile={flags['drs_percentile']:g} both choose gamma; leave one of them out"
        )


network_option = click.option(
    "--network", help="Network: a .pkl, a .safetensors of export.py, or a run folder (its newest snapshot); path or URL", required=True
)
trunc_option = click.option("--trunc", type=FiniteNumber(), default=1, show_default=True, help="Truncation psi: below 1 less varied and more typical")
noise_option = click.option(
    "--noise-mode",
    type=click.Choice(NOISE_MODES),
    default="const",
    show_default=True,
    help="Noise inside the network; random: drawn anew for each picture, from its seed",
)
