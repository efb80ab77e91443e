"""Where the plugin's randomness comes from: see madr_spaces/seeds.py, which the metrics share."""

from madr_spaces.seeds import derived_seed, generator_for, global_rng_replaced

__all__ = ["derived_seed", "generator_for", "global_rng_replaced"]
