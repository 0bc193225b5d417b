"""The one kind of error that is the user's to mend, and the line that tells how."""

import errno
import re
from collections.abc import Iterable
from typing import Any

BEGINNING = 3  # the size of a slip that leaves out the rest of a name: more than any other
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
    """Returns ``"; did you mean 'x'?"`` for the one accepted name that ``name`` is a slip of, else an empty string.

    A slip is another case, a letter or two too many, too few or wrong, two that have changed places, or a beginning.
    Names with other digits are other things, and so are short ones with another letter: ``l1`` is not ``l2``.
    """
    found = [(slip(name, other), other) for other in map(str, accepted)]
    least = min((size for size, _ in found if size is not None), default=None)
    near = [other for size, other in found if size == least is not None]
    return f"; did you mean '{near[0]}'?" if len(near) == 1 else ""


def spelled(name: Any) -> str:
    """Returns a name without its case, and as a key of the command line has it."""
    return str(name).lower().replace("-", "_").replace(" ", "_")


def slip(typed: str, name: str) -> int | None:
    """Returns the size of the slip that makes ``typed`` of ``name``; None where it is none."""
    typed, name = spelled(typed), spelled(name)
    ending = "".join(name.rpartition(".")[1:])
    if "." in name and typed.endswith(ending):  # as those of two files are
        typed, name = typed.removesuffix(ending), name.removesuffix(ending)
    of_typed, of_name = re.findall(r"\d+", typed), re.findall(r"\d+", name)
    short, length = min(len(typed), len(name)), max(len(typed), len(name))
    if of_typed in (of_name, []) and ((short and length - short == 1) or short >= 5 or sorted(typed) == sorted(name)):
        size = edits(typed, name)
        if size <= (2 if short >= 9 else 1):
            return size
    begins = short >= 3 and name.startswith(typed) and of_name[: len(of_typed)] == of_typed
    return BEGINNING if begins else None


def edits(a: str, b: str) -> int:
    """Returns how many letters must be added, left out, replaced, or change places with the next one (Damerau 1964)."""
    rows = [list(range(len(b) + 1))]
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            row.append(min(row[-1] + 1, rows[-1][j] + 1, rows[-1][j - 1] + (letter != other)))
            if i > 1 and j > 1 and (letter, a[i - 2]) == (b[j - 2], other):
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
