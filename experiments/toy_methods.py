"""Names the methods that toy_2d.py compares, with their options. Without torch: `toy_2d.py --help` reads it."""

METHODS = {
    "plain": {},
    "paper": dict(madr=dict(preset="paper", extractor="pca", update_interval=10, capacity=512)),
    "witness": dict(madr=dict(preset="witness", extractor="pca")),
    "default": dict(madr=dict(preset="default", extractor="pca")),
    "witness+replay": dict(madr=dict(preset="witness", extractor="pca", replay_weight=1.0)),
    "witness+moments": dict(madr=dict(preset="moments", extractor="pca")),
    # The memory-free twin: the same term and strength, moments of the batch alone.
    "witness+batch-moments": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="0")),
    # Its two parts alone, each as strong as both together.
    "moments": dict(madr=dict(preset="moments", extractor="pca", term="moments")),
    "witness-as-strong": dict(madr=dict(preset="moments", extractor="pca", term="witness")),
    "witness-weight-2": dict(madr=dict(preset="witness", extractor="pca", weight=2.0)),
    "tilt": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_max=20.0, weight=2.0)),
    # The same cells and rule, the deficits counted in the present batch alone.
    "tilt-without-memory": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_max=20.0, weight=2.0, deficit_window=64, cells=102)),
    # Repulsion from the features remembered (mean age: 300 steps) instead of the present batch.
    "witness-of-old": dict(madr=dict(preset="witness", extractor="pca", shrink=0.0), objective="experiments.old_repulsion.OldRepulsion"),
    "r1": dict(r1_gamma=1.0),
    "pacgan2": dict(pack=2),
}
FIRST_SEED = 0  # the one that the picture shows
USUAL_METHODS = {"imbalanced": "witness,witness-weight-2,tilt,tilt-without-memory"}  # other layouts: the first four
