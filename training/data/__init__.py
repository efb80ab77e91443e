"""Reads, checks and writes data sets of images, and builds the synthetic ones."""
