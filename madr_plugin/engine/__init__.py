"""Runs MADR's step: step.py what happens in it, replay.py the replay, state.py what is kept and told of it."""

from madr_plugin.engine.step import Engine

__all__ = ["Engine"]
