"""Which error is whose, and the name that was meant."""

import errno

import pytest

from handgrad.errors import LONGEST, GradientError, InputError, line_of, nearest, one_line_of


def test_what_catches_them():
    """Unusable input is a ValueError, as in scikit-learn; a wrong gradient is none: no other input would mend it."""
    assert issubclass(InputError, ValueError)
    assert issubclass(GradientError, RuntimeError)
    assert not issubclass(GradientError, ValueError)
    assert str(InputError("lr=0: accepted is a number > 0")) == "lr=0: accepted is a number > 0"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("lr=0: accepted is a number > 0"), "lr=0: accepted is a number > 0"),
        (GradientError("wrong"), "wrong"),
        (OSError(errno.ENOSPC, "full", "x.csv"), "x.csv: cannot be read or written (full)"),
        (OSError(errno.EACCES, "denied"), "a file of the run: cannot be read or written (denied)"),
        (OSError(errno.ENAMETOOLONG, "too long", "x"), "x: cannot be read or written (too long)"),
        (OSError(errno.EBADF, "bad"), None),
        (GradientError("wrong\nerror: forged"), "wrong\\nerror: forged"),
        (OSError(errno.ENOENT, "gone", "a\nb"), "a\\nb: cannot be read or written (gone)"),
        (ValueError("ours"), None),
    ],
)
def test_the_line_of_an_error_that_the_user_can_mend(error, line):
    assert line_of(error) == line


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sofmax", "; did you mean 'softmax'?"),
        ("softmax", "; did you mean 'softmax'?"),
        ("logist", "; did you mean 'logistic'?"),
        ("adam", ""),
        ("", ""),
        (3, ""),
        (None, ""),
    ],
)
def test_the_nearest_name(name, hint):
    assert nearest(name, ["logistic", "softmax"]) == hint


NAMES = [
    "l2",
    "lr",
    "softmax",
    "balanced",
    "accuracy",
    "auroc",
    "penalize_bias",
    "a.npz",
    "course_l2",
    "course_softmax",
]
MEANT = "SOFTMAX softmax, sofmtax softmax, balance balanced, l2_ l2, rl lr, acc accuracy, penalise-bias penalize_bias"
MEANT += ", a.np a.npz, course_softmx course_softmax"
OTHERS = "l1 l2, l1 lr, layer6.npz layer7.npz, layer1 layer12, b.npz a.npz, cat bat, gpus precision, optimiser betas"
OTHERS += ", val train, f1 f2, course_l3 course_l2"


@pytest.mark.parametrize("pair", MEANT.split(", "))
def test_a_slip_is_mended(pair):
    typed, meant = pair.split()
    assert nearest(typed, NAMES) == f"; did you mean '{meant}'?"


@pytest.mark.parametrize("pair", OTHERS.split(", "))
def test_what_means_something_else_is_not_offered(pair):
    typed, other = pair.split()
    assert nearest(typed, [other]) == ""


def test_of_two_that_are_as_near_none_is_offered():
    assert nearest("course", ["course_l2", "course_softmax"]) == ""
    assert nearest("l", ["l2", "lr"]) == ""


def test_nothing_is_near_where_nothing_is_accepted():
    assert nearest("lr", []) == ""


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x0c", "\x1b[2K", "\x85", "\u2028", "\u2029", "\ud800"])
def test_nothing_that_is_told_begins_a_line_of_its_own(end):
    told = str(InputError(f"x={end}error: forged"))
    assert told == one_line_of(told)
    assert len(told.splitlines()) == 1
    assert told.isprintable()


def test_a_long_line_keeps_its_ends():
    told = str(InputError(f"x={'9' * 5000}: accepted is less"))
    assert len(told) == LONGEST + 1
    assert told.startswith("x=99")
    assert told.endswith("9: accepted is less")
    assert one_line_of("‖w‖ = 1 é") == "‖w‖ = 1 é"
