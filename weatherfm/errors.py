"""The one error a user is meant to read."""


class InputError(ValueError):
    """Something the user can mend: the message says what was wrong, what was given and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
