"""Remembers generated images, and counts which cells they leave out."""
