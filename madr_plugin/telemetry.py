"""MADR's numbers on their way to people: the host's statistics file and its tick line.

The host's training_stats is imported when first used, and done without where the host has none.
"""


TICK_LINE = ("coverage", "lambda", "gratio", "memory", "tilt")


def for_tick_line(values):
    """The few that fit on a line: {name: float}."""
    return {name: float(values[name]) for name in TICK_LINE if name in values}


def report(values):
    """Hand every value to the host's torch_utils.training_stats as 'MADR/<name>'."""
    try:
        from torch_utils import training_stats
    except ImportError:
        return  # a host without statistics still has the tick line
    for name, value in values.items():
        training_stats.report(f"MADR/{name}", value)

