"""The one exception that speaks to the person at the keyboard.

Raised anywhere, caught once at the command line (dnnlib/cli.py), printed without a traceback.
Must not import anything.
"""


class UserError(Exception):
    """Something the user can mend. The message names what is wrong, where, and what to do."""

    # The command line recognises the kind by this mark rather than by class, so that code which cannot import
    # this module (the plugin inside a foreign fork) can raise its own class of the same kind.
    is_user_error = True
