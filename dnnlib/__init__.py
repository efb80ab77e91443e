"""Small helpers without any deep-learning library behind them. Must not import torch."""

from .util import EasyDict, make_cache_dir_path

__all__ = ["EasyDict", "make_cache_dir_path"]
