"""The one kind of error that is the user's to mend, and the line that tells how."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 1000  # characters of a line
MISTAKES = {errno.EBADF, errno.EFAULT}  # what the system says of a program that is wrong, and not of files


def one_line_of(text: str) -> str:
    """Returns ``text`` in one line that a terminal shows as it is, the middle of a long one left out."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    half = LONGEST // 2
    return shown if len(shown) <= LONGEST else f"{shown[:half]}…{shown[-half:]}"


class InputError(ValueError):
    """Something given to the program is unusable; the message is one line: what, found, accepted."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line_of(message))


class GradientError(RuntimeError):
    """The derived gradient is not the gradient of the objective."""


def line_of(error: BaseException) -> str | None:
    """Returns the line that tells of an error of ours, or of one that the system has told; None for any other."""
    if isinstance(error, InputError | GradientError):
        return one_line_of(str(error))
    if isinstance(error, OSError) and error.errno not in {None, *MISTAKES}:
        return one_line_of(f"{error.filename or 'a file of the run'}: cannot be read or written ({error.strerror})")
    return None


def nearest(name: str, accepted: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the accepted name closest to ``name``, else an empty string."""
    matches = get_close_matches(str(name), list(accepted), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""
