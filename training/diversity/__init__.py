"""Watches the diversity of generated images during training, with or without MADR."""
