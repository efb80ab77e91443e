"""Refuses knobs that a user gave and that nothing would read: a run that ignores what was asked of it looks like one that does it.

For what a person types. Stored options are not refused: they hold every knob, idle ones too.
"""

from madr_plugin.base.knobs import flag_of
from madr_plugin.config import KNOBS, value_of
from madr_spaces import names
from madr_spaces.errors import MADRError


def _published(config):
    return config.term in ("paper", "enhanced")


def _follows_drift(config):
    return "moments" in config.parts and config.horizon_kimg is None


def _sees_photographs(config):
    """A network of photographs, a file (which says itself whether it can be given a size), or an ensemble with one of them."""
    parts = config.extractor.removeprefix("ensemble:").split("+")
    return any(part in names.MODELS or part.startswith(("timm:", "file:")) for part in parts)


# (knobs, what reads them, tells whether it is there)
READERS = (
    (("tilt_max", "tilt_guard", "tilt_form", "tilt_sensor"), "--madr-tilt=1", lambda config: config.tilt == 1),
    (("tilt_rarest", "tilt_window"), "--madr-tilt=1 --madr-tilt-sensor=fine", lambda config: config.tilt == 1 and config.tilt_sensor == "fine"),
    (("tilt_temperature",), "--madr-tilt=1 --madr-tilt-sensor=debts", lambda config: config.tilt == 1 and config.tilt_sensor == "debts"),
    (("debt_weight",), "--madr-debt=potentials or batch", lambda config: config.debt != "none"),
    (("debt_rate",), "--madr-debt=potentials", lambda config: config.debt == "potentials"),
    (("kernel", "reals", "shrink"), "--madr-term=witness or witness+moments", lambda config: "witness" in config.parts),
    (("moments_horizon",), "--madr-moments-fresh=0", lambda config: not config.moments_fresh or config.horizon_kimg == 0),
    (("moments_horizon", "moments_shrink"), "--madr-term=moments or witness+moments", lambda config: "moments" in config.parts),
    (("input_size",), "--madr-extractor=dino, timm:<model> or another network of photographs", _sees_photographs),
    (("replay_interval", "replay_share", "dead_zone"), "--madr-replay-weight above 0", lambda config: config.replay_weight > 0),
    (("champion_kimg", "champion_mib"), "--madr-replay-from=champions", lambda config: config.replay_from == "champions"),
    (
        ("capacity", "memory", "half_life_kimg", "update_interval", "refresh"),
        "--madr-replay-weight above 0, --madr-moments-horizon=auto or --madr-term=paper",
        lambda config: config.replay_weight > 0 or _follows_drift(config) or _published(config),
    ),
    (
        ("deficit_max",),
        "--madr-replay-weight above 0, --madr-attraction=deficit or --madr-tilt-sensor=cells",
        lambda config: config.replay_weight > 0 or config.attraction == "deficit" or (config.tilt == 1 and config.tilt_sensor == "cells"),
    ),
    (("half_life_kimg",), "--madr-memory=forgetting", lambda config: config.memory == "forgetting"),
    (("control_kimg",), "--madr-controller=integral", lambda config: config.controller == "integral"),
    (("recall_target", "recall_slope"), "--madr-controller=sigmoid or adaptive", lambda config: config.controller in ("sigmoid", "adaptive")),
    (("beta", "start_fill", "start_step", "top_k", "bandwidth", "bandwidth_interval"), "--madr-term=paper or enhanced", _published),
)
ROWS = {row.name: row for row in KNOBS}


def refuse(given, config):
    """Refuse the first of `given` (knob -> value) that has no effect under `config`, the options made of it. The preset's value may stand there."""
    for unread, reader, is_there in READERS:
        for name in unread:
            usual = value_of(config.preset, ROWS[name])
            if given.get(name, usual) != usual and not is_there(config):
                flag = flag_of(name)
                raise MADRError(f"{flag}={given[name]} has no effect without {reader}; add it, or leave {flag} out")
