"""Writes the page of one run: report.html."""
