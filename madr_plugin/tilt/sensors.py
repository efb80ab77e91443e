"""Chooses what tells the tilt which reals are left out. Must not know losses or images.

A sensor has `cells` (cell_of_real_N, image_cells_N, shares_C, class_C), deficits(largest) -> v >= 1 of each cell [C], note() and look() at the
end of a step, and notes(), sentences(), telemetry(), tensors(), live_state(), load() for what is said and kept of it.
"""

from madr_plugin.reals import fine_cells
from madr_plugin.tilt.fine_sensor import FineSensor
from madr_plugin.tilt.logit_sensor import LogitSensor
from madr_spaces.errors import MADRError


def build(config, reference, tilted_reals, discriminator, seed, announce=print):
    """Build the sensor of a run; None for the cells that the replay follows. All processes together."""
    if not config.tilt or config.tilt_sensor in ("cells", "debts"):  # debts are the objective's
        return None
    if config.tilt_sensor == "fine":
        return FineSensor(fine_cells.build(reference, config, seed, announce), config, reference.features_ND.device)
    if discriminator is None:
        raise MADRError(
            "--madr-tilt-sensor=logits asks the argument D of the host's loss, and this fork's loss has none; use --madr-tilt-sensor=cells or fine"
        )
    return LogitSensor(reference, tilted_reals.dataset, tilted_reals.rows_N, discriminator, seed)
