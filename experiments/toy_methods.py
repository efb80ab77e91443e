"""Names the methods that toy_2d.py compares, with their options. Without torch: `toy_2d.py --help` reads it."""

from training.gan import methods as rows


def table(own):
    """{method: options} of a study: every row of train.py by its name, and its own, which come first.

    Options: gan (name of a recipe), method (a tuple of texts as for --method), madr (knobs by name; absent: without), objective (dotted name of a
    class to take the place of the plugin's).
    """
    every = {**{name: dict(method=(name,)) for name in rows.METHODS}, **{name: dict(gan=name) for name in rows.RECIPES}}
    return {**own, **{name: options for name, options in every.items() if name not in own}}


_PAPER = dict(preset="paper", extractor="pca", update_interval=10, capacity=512)
OWN_METHODS = {
    "plain": {},
    "paper": dict(madr=_PAPER),
    "witness": dict(madr=dict(preset="witness", extractor="pca")),
    "default": dict(madr=dict(preset="default", extractor="pca")),
    "witness+replay": dict(madr=dict(preset="witness", extractor="pca", replay_weight=1.0)),
    # The same pull from a latent kept for each real; its twin: witness+replay, from the 2048 latents remembered.
    "witness+champions": dict(madr=dict(preset="witness", extractor="pca", replay_weight=1.0, replay_from="champions", replay_interval=4)),
    "witness+debt": dict(madr=dict(preset="witness", extractor="pca", debt="potentials")),
    # Its memory-free twin: an exact assignment of each batch.
    "witness+batch-debt": dict(madr=dict(preset="witness", extractor="pca", debt="batch")),
    # D sees the reals of cells that are owed images more often; beside "tilt".
    "debt+tilt": dict(madr=dict(preset="witness", extractor="pca", debt="potentials", tilt=1, tilt_sensor="debts", tilt_max=20.0, weight=2.0)),
    "witness+moments": dict(madr=dict(preset="moments", extractor="pca")),
    # The memory-free twin: the same term and strength, moments of the batch alone.
    "witness+batch-moments": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="0")),
    # Its two parts alone, each as strong as both together.
    "moments": dict(madr=dict(preset="moments", extractor="pca", term="moments")),
    "witness-as-strong": dict(madr=dict(preset="moments", extractor="pca", term="witness")),
    "witness-weight-2": dict(madr=dict(preset="witness", extractor="pca", weight=2.0)),
    "tilt": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_max=20.0, weight=2.0)),
    # Its other sensors; cells for modes of 1%.
    "tilt-fine": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_max=20.0, weight=2.0, tilt_sensor="fine", tilt_rarest=0.01)),
    "tilt-logits": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_max=20.0, weight=2.0, tilt_sensor="logits")),
    # A window in which a cell's weight can reach its bound at all, and a higher bound.
    "tilt-long": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_max=50.0, weight=2.0, deficit_window=4096, cells=102)),
    "witness+moments+tilt": dict(madr=dict(preset="moments", extractor="pca", tilt=1, tilt_max=20.0)),
    "witness+moments+tilt-fine": dict(madr=dict(preset="moments", extractor="pca", tilt=1, tilt_max=20.0, tilt_sensor="fine", tilt_rarest=0.01)),
    # What the default is (docs/studies/default.md).
    "moments+fine-tilt": dict(madr=dict(preset="moments", extractor="pca", tilt=1, tilt_sensor="fine")),
    # With a memory of three steps, as short as it may be.
    "moments+fine-tilt-0.2": dict(madr=dict(preset="moments", extractor="pca", tilt=1, tilt_sensor="fine", moments_horizon="0.2")),
    # The same cells and rule, the deficits counted in the present batch alone.
    "tilt-without-memory": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_max=20.0, weight=2.0, deficit_window=64, cells=102)),
    # Repulsion from the features remembered (mean age: 300 steps) instead of the present batch.
    "witness-of-old": dict(madr=dict(preset="witness", extractor="pca", shrink=0.0), objective="experiments.old_repulsion.OldRepulsion"),
    # The published MADR with one of the remedies proposed for it each, and with all of them but the ensemble, which needs images.
    "paper+progressive": dict(madr=dict(_PAPER, memory="progressive")),
    "paper+importance": dict(madr=dict(_PAPER, memory="importance")),
    "paper+adaptive": dict(madr=dict(_PAPER, controller="adaptive")),
    "enhanced": dict(madr=dict(_PAPER, preset="enhanced")),
    "r1": dict(method=("r1:gamma=1",)),
    "pacgan2": dict(method=("pacgan:m=2",)),
    "pacgan4": dict(method=("pacgan:m=4",)),
}
METHODS = table(OWN_METHODS)
FIRST_SEED = 0  # the one that the picture shows
USUAL_METHODS = {"imbalanced": "witness,witness-weight-2,tilt,tilt-without-memory"}  # other layouts: the first four
