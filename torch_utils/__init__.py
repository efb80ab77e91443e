"""PyTorch helpers shared by training, metrics and the root scripts. Must not import training, metrics or madr_plugin."""
