"""Keeps and tells what an engine has: the state that a resumed run takes up, the memory that it occupies, its numbers.

Must not know what happens in a step.
"""

import copy

import torch

from madr_plugin import objectives
from madr_plugin.tilt import tilted_reals
from madr_spaces.errors import MADRError

FORMAT = 1


def live_state(engine):
    """Collect everything a resumed run needs: the state's own tensors, numbers and words."""
    return dict(
        format=FORMAT,
        reference=engine.reference.fingerprint,
        step=engine.step,
        critic_steps=engine.critic_steps,
        nimg=engine.nimg,
        memory=engine.memory.live_state(),
        sensor=engine.sensor.live_state(),
        objective=engine.objective.live_state(),
        **({} if engine.champions is None else dict(champions=engine.champions.live_state())),
        **engine.strength.live_state(),
        **({} if engine.forgetting is None else dict(forgetting=engine.forgetting.live_state())),
        **({} if engine.tilt_sensor is engine.sensor else dict(tilt_sensor=dict(engine.tilt_sensor.live_state(), kind=engine.config.tilt_sensor))),
    )


def load(engine, state):
    """Take up what live_state() gave. Raises MADRError where it belongs to another run, and leaves the engine as it was then."""
    _check(engine, state)
    before = copy.deepcopy(live_state(engine))
    try:
        _take_up(engine, state)
    except MADRError:
        _take_up(engine, before)
        raise


def _take_up(engine, state):
    champions, of_tilt = state.get("champions", {}), state.get("tilt_sensor", {})
    own_sensor = engine.tilt_sensor is not engine.sensor
    same_sensor = own_sensor and of_tilt.get("kind") == engine.config.tilt_sensor
    begun, left = objectives.load(engine.objective, state.get("objective", {}), engine.device)  # may refuse, as do the next two
    if engine.champions is not None:
        engine.champions.load(champions)
    if own_sensor:
        engine.tilt_sensor.load(of_tilt if same_sensor else {}, engine.device)
    engine.begun_anew = begun + ["what the tilt's sensor counts"] * (own_sensor and not same_sensor)
    engine.begun_anew += ["the table of champions"] * (engine.champions is not None and not champions)
    engine.left_behind = left + ["what the tilt's sensor counted"] * (bool(of_tilt) and not same_sensor)
    engine.left_behind += ["the table of champions"] * (engine.champions is None and bool(champions))
    if engine.forgetting is not None:
        engine.forgetting.load(state.get("forgetting", {}), engine.device)
    engine.step, engine.nimg, engine.critic_steps = int(state["step"]), int(state["nimg"]), int(state.get("critic_steps", 0))
    engine.memory.load(state["memory"], engine.device)
    engine.sensor.load(state["sensor"], engine.device)
    engine.strength.load(state, engine.device)


def _check(engine, state):
    if state.get("format") != FORMAT:
        raise MADRError(
            f"the saved MADR state has format {state.get('format')!r}, this version reads {FORMAT}; resume with the version that wrote it"
        )
    if state["reference"] != engine.reference.fingerprint:
        raise MADRError(
            "the saved MADR state belongs to other reference features: the training set, --seed, --madr-extractor, --madr-weights, --madr-width, "
            "--madr-input-size, --madr-view, --madr-reference-cap, --madr-anchors, --madr-cells, --madr-cell-quantile or --madr-deficit-window changed "
            "since; resume with the former ones, or start anew"
        )
    capacity, saved = engine.config.capacity, state["memory"].get("tensors", {}).get("features")
    if saved is not None and len(saved) != capacity:
        raise MADRError(f"--madr-capacity={capacity} differs from the saved memory's {len(saved)}; resume with --madr-capacity={len(saved)}")
    window, saved_window = engine.config.deficit_window, len(state["sensor"]["cells"])
    if saved_window != window:
        raise MADRError(f"--madr-deficit-window={window} differs from the saved {saved_window}; resume with the former one")


def kept_tensors(engine):
    """List the tensors kept on the device, {what for: tensors}."""
    of_reals = {id(value): value for value in vars(engine.reference).values() if torch.is_tensor(value)}  # some bear two names
    further = [] if engine.forgetting is None else engine.forgetting.tensors()
    of_tilt = [] if engine.tilt_sensor is engine.sensor else engine.tilt_sensor.tensors()
    return {
        "features of the reals": list(of_reals.values()),
        "memory": [*engine.memory.tensors.values(), engine.sensor.ledger.cells_W, *of_tilt, *further],
        **({} if engine.champions is None else {"champions": [*engine.champions.tensors.values(), engine.champions.radii_NK]}),
        "extractor": engine.extractor.tensors(),
    }


def telemetry(engine):
    """Collect the numbers that are reported, {name: 0-d tensor or number}; the same on all processes."""
    config, strength, memory = engine.config, engine.strength, engine.memory
    values = dict(
        coverage=engine.sensor.coverage(), inside=engine.sensor.inside(), ess=engine.sensor.effective_share(), memory=memory.count / config.capacity
    )
    values["lambda"], values["gratio"] = strength.factor("term"), strength.ratio("term")
    values.update({"signal" if part == "witness" else f"signal_{part}": share for part, share in strength.shares().items()})
    if config.replay_weight > 0:
        values["lambda_replay"], values["gratio_replay"] = strength.factor("replay"), strength.ratio("replay")
    if config.tilt:
        v_N = engine.tilt()
        values["tilt"] = 0.0 if v_N is None else tilted_reals.replaced_share(v_N, engine.reference.image_labels_N)
        if engine.tilt_sensor is not engine.sensor:
            values.update(engine.tilt_sensor.telemetry())
    if engine.forgetting is not None and engine.forgetting.value is not None:
        values["forgetting"] = engine.forgetting.value
    if memory.count:
        values["age_kimg"] = (engine.nimg - memory.filled("born").to(torch.float64)).mean() / 1000
    values.update(engine.objective.telemetry())
    if engine.champions is not None:
        values.update(engine.champions.telemetry())
    return values


def notes(engine, latent_width=None, latents_per_image=2):
    """Say what was chosen, once at the start. latent_width: of z where it is known. Raises MADRError where it is too much."""
    yield from engine.objective.notes()
    if engine.champions is not None and latent_width:
        num_classes = int(engine.reference.labels_N.max()) + 1
        kept = latents_per_image * latent_width
        engine.champions.check_size(kept, num_classes)
        yield engine.champions.note(kept, num_classes)
    if engine.tilt_sensor is not engine.sensor:
        yield from engine.tilt_sensor.notes()
    if engine.config.forgetting and engine.discriminator is None:
        yield "forgetting is not measured: this host's loss has no argument D"


def sentences(engine):
    """Say what has changed since the last time, for the log."""
    yield from engine.objective.sentences()
    if engine.tilt_sensor is not engine.sensor:
        yield from engine.tilt_sensor.sentences(engine.step, engine.nimg)
    if engine.forgetting is not None:
        yield from engine.forgetting.sentences()
