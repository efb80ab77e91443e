"""Holds what every part of the plugin uses: processes, random views, the rows of the knobs."""
