"""Writes the table of many runs: methods over seeds, with paired differences."""
