"""MADR: memory-augmented diversity replay for StyleGAN2-ADA and its forks.

Importing the package does no work and imports nothing of the host; see madr_plugin/README.md.
"""

__version__ = "0.1.0"
__all__ = ["attach", "install", "uninstall"]


def install(**options):
    """Put MADR into the fork that calls this, at the top of its train.py. See forks.install."""
    from madr_plugin import forks

    forks.install(**options)


def uninstall():
    """Undo install()."""
    from madr_plugin import forks

    forks.uninstall()


def attach(generator, reference, **options):
    """Build MADR's term for any generator that draws in one step. See attached.attach."""
    from madr_plugin import attached

    return attached.attach(generator, reference, **options)
