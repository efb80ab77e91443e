"""Hands MADR's numbers to the host's statistics file and its tick line.

The host's training_stats is imported when first used, and done without where the host has none.
"""

TICK_LINE = ("coverage", "lambda", "gratio", "memory", "tilt")


def for_tick_line(values):
    """Pick the few that fit on a line: {name: float}."""
    return {name: float(values[name]) for name in TICK_LINE if name in values}


def report(values):
    """Hand every value to the host's torch_utils.training_stats as 'MADR/<name>'."""
    _hand_over({f"MADR/{name}": value for name, value in values.items()})


def report_cost(milliseconds, share, mebibytes):
    """Hand over what MADR costs, measured once: among the host's times and resources, which no two runs have alike."""
    _hand_over({"Timing/MADR": milliseconds, "Timing/MADR_share": share, "Resources/MADR_mib": mebibytes})


def _hand_over(values):
    try:
        from torch_utils import training_stats
    except ImportError:
        return  # a host without statistics still has the tick line
    for name, value in values.items():
        training_stats.report(name, value)
