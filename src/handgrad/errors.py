"""The one kind of error that is the user's to mend, and the line that tells how."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class InputError(ValueError):
    """Something given to the program is unusable; the message is one line: what, found, accepted."""


class GradientError(RuntimeError):
    """The derived gradient is not the gradient of the objective."""


def line_of(error: BaseException) -> str | None:
    """Returns the line that tells of an error of ours, or of a disk's; None for any other."""
    if isinstance(error, InputError | GradientError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK:
        return f"{error.filename or 'a file of the run'}: cannot be read or written ({error.strerror})"
    return None


def nearest(name: str, accepted: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the accepted name closest to ``name``, else an empty string."""
    matches = get_close_matches(str(name), list(accepted), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""
