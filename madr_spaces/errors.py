"""The exception for the person at the keyboard. Imports nothing: it must live inside any fork."""


class MADRError(Exception):
    """Something the user can mend. The message names what is wrong, where, and what to do."""

    # The host's command line knows user errors by this mark; it need not know this class.
    is_user_error = True


def words_of(error, most=200):
    """Quote what a library says, without the request to report it that PyTorch adds."""
    return str(error).split("(Could this error message")[0].strip()[:most]
