"""``python -m exercise``: begins a student's file, checks it and says what is right so far."""

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import src  # noqa: F401
from handgrad.cli.words import Word, command, one
from handgrad.errors import InputError

BLANK, FILE = Path(__file__).with_name("blank.py"), Path("gradients.py")
NOT_ALL_RIGHT = 3  # the exit code
WORDS = {"file": Word(f"the file to check; unset: {FILE}, which is begun where it is missing", one, "a Python file")}
USAGE = f"""
Checks gradients that are derived by hand: of logistic regression, softmax regression and the L2 penalty.

  python -m exercise                  # begins {FILE} where it is missing, checks it and says what is right so far
  python -m exercise file=anna.py     # checks another file

The exit code is 0 when all is right, {NOT_ALL_RIGHT} while it is not, and 1 where a file cannot be read.
"""


def main(given: dict[str, Any]) -> int:
    """Checks the file that the words name, and prints what is right; returns the exit code."""
    from exercise.check import NOT_YET, RIGHT, load, verdicts  # torch is imported from here on

    path = Path(given["file"] or FILE)
    if not path.exists():
        if given["file"]:
            raise InputError(f"{path}: no such file; accepted is one begun by `make exercise`")
        path.write_text(BLANK.read_text(encoding="utf-8"), encoding="utf-8")
        print(f"Begun: {path}. Open it, write formulas in place of ..., and type `make exercise` again.\n")
    found = list(verdicts(load(path), path))
    for part, of_part in groupby(found, lambda verdict: verdict.part):
        print(part)
        for verdict in of_part:
            print(f"  {verdict.term:9}{verdict.word:9}{verdict.said}".rstrip())
    right, to_do = (sum(verdict.word == word for verdict in found) for word in (RIGHT, NOT_YET))
    rest = ": all of them" if right == len(found) else f", {len(found) - right - to_do} wrong, {to_do} to do"
    print(f"\n{right} of {len(found)} right{rest}.")
    return 0 if right == len(found) else NOT_ALL_RIGHT


if __name__ == "__main__":
    with command(USAGE, WORDS) as given:
        sys.exit(main(given))
