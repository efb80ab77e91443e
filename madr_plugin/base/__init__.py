"""Holds what every part of the plugin uses: errors, seeds, processes, files, random views."""
