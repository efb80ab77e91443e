"""Holds the mathematics: pure functions of tensors, each with its equation."""
