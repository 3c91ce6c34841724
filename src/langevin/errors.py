"""The one exception for mistakes a user can mend."""


class UserError(ValueError):
    """A mistake in a command, a config or a file that its user can mend.

    The commands print its message alone, without a traceback, and exit with status 1. The message names the option
    (or file), its value, and what is allowed.
    """
