"""What the drawing tools have in common beyond pictures.py: options, labels, latents, videos, projection."""
