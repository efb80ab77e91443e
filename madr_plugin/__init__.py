"""MADR: memory-augmented diversity replay for StyleGAN2-ADA and its forks.

Importing the package does no work and imports nothing of the host; see madr_plugin/README.md.
"""
__version__ = "0.1.0"
