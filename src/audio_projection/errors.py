"""The one exception that users are meant to see."""


class AudioProjectionError(ValueError):
    """Something the user can mend. The message is one line: what is wrong, where, and what to do about it."""
