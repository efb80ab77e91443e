"""MADR's numbers on their way to people: the host's statistics file and its tick line.

The host's training_stats is imported when first used, and done without where the host has none.
"""


def as_floats(values):
    """{name: float}, for the tick line."""
    return {name: float(value) for name, value in values.items()}


def report(values):
    """Hand every value to the host's torch_utils.training_stats as 'MADR/<name>'."""
    try:
        from torch_utils import training_stats
    except ImportError:
        return  # a host without statistics still has the tick line
    for name, value in values.items():
        training_stats.report(f"MADR/{name}", value)

