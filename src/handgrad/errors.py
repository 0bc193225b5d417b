"""The one kind of error that is the user's to mend, and the line that tells how."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something given to the program is unusable; the message is one line: what, found, accepted."""


class GradientError(RuntimeError):
    """The derived gradient is not the gradient of the objective."""


def nearest(name: str, accepted: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the accepted name closest to ``name``, else an empty string."""
    matches = get_close_matches(str(name), list(accepted), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""
