"""Defines the exception for what a user can mend. Imports nothing, so that it works inside any fork."""


class MADRError(Exception):
    """Says what the user can mend. The message names what is wrong, where, and what to do."""

    # The host's command line knows user errors by this mark; it need not know this class.
    is_user_error = True
