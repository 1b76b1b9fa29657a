"""The one exception that users see for bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message is one line that says what, where and what is allowed.

    The command line prints it and exits with code 2; nothing has been written by then.
    """
