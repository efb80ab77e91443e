"""Cache files of the plugin: see madr_spaces/files.py, which the metrics share."""

from madr_spaces.files import cache_folder, load_tensors, save_tensors

__all__ = ["cache_folder", "load_tensors", "save_tensors"]
