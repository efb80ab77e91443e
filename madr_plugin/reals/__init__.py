"""Holds what is known of the real images: features, cells, anchors, and how the host's images are read."""
