"""The plugin's exception for the person at the keyboard: that of the feature spaces, which ship with it."""

from madr_spaces.errors import MADRError

__all__ = ["MADRError"]
