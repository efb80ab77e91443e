"""Meets the host: its classes, its generator, its gradient, its statistics."""
