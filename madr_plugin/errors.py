"""Keeps the import path by which forks know the plugin's exception."""

from madr_spaces.errors import MADRError

__all__ = ["MADRError"]
