"""The one exception that users are meant to see, and what other libraries' exceptions become in its messages."""


class AudioProjectionError(ValueError):
    """Something the user can mend. The message is one line: what is wrong, where, and what to do about it."""


def first_line(error: BaseException) -> str:
    """The first line of what a library says of its failure, for a message of one line; its type where it says none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
