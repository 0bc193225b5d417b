"""The exercise: the key is right, each mistake is told with its term, and no student sees a traceback."""

import sys
from pathlib import Path

import pytest

from exercise.__main__ import BLANK, NOT_ALL_RIGHT, USAGE, WORDS, main
from exercise.check import NOT_YET, PARTS, RIGHT, WRONG, Verdict, load, verdicts
from handgrad.cli.words import command
from tests.exercise.key import KEY

TERMS = [(part, term) for part, (_, terms) in PARTS.items() for term in terms]


def filled(path: Path, answers: dict[str, dict[str, str]]) -> Path:
    """Writes the blank with answers in it, by part and term."""
    text = BLANK.read_text()
    for part, terms in answers.items():
        head, of_gradient, body = text.partition(f"def {part}_gradient")
        for term, answer in terms.items():
            assert f" {term} = ..." in body
            body = body.replace(f" {term} = ...", f" {term} = {answer}", 1)
        text = head + of_gradient + body
    path.write_text(text)
    return path


def judged(path: Path, **changes: dict[str, str]) -> dict[tuple[str, str], Verdict]:
    """Returns what is said of each term of the key, with changes by part and term."""
    filled(path, {part: terms | changes.get(part, {}) for part, terms in KEY.items()})
    found = {(verdict.part, verdict.term): verdict for verdict in verdicts(load(path), path)}
    assert list(found) == TERMS
    return found


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "gradients.py"


def test_the_key_is_right_and_the_blank_is_to_do(file):
    assert {verdict.word for verdict in judged(file).values()} == {RIGHT}
    found = list(verdicts(load(BLANK), BLANK))
    assert [(verdict.part, verdict.term) for verdict in found] == TERMS
    assert {(verdict.word, verdict.said) for verdict in found} == {(NOT_YET, "")}


def test_the_key_has_every_term_and_is_not_what_a_student_is_given():
    assert [(part, term) for part, terms in KEY.items() for term in terms] == TERMS
    given = "".join(path.read_text() for path in BLANK.parent.glob("*.py"))
    assert not [answer for terms in KEY.values() for answer in terms.values() if f"= {answer}\n" in given]


@pytest.mark.parametrize(("part", "term"), TERMS)
def test_each_term_is_judged_by_itself(part, term, file):
    """One answer alone is right at once; of the key with one term left out, the others are."""
    needs = {"dz": KEY[part]["dz"]} if part != "l2" else {}
    filled(file, {part: needs | {term: KEY[part][term]}})
    found = {(verdict.part, verdict.term): verdict.word for verdict in verdicts(load(file), file)}
    assert {key for key, word in found.items() if word == RIGHT} == {(part, term), *((part, name) for name in needs)}
    assert WRONG not in found.values()


MISTAKES = [
    ("logistic", "dz", "p - target", "N times what it should be: the 1/N is missing"),
    ("logistic", "dz", "(p - target) / len(target) ** 2", "an N-th of what it should be: there is one 1/N too many"),
    ("logistic", "dz", "(target - p) / len(target)", "the sign is wrong"),
    ("logistic", "dbias", "2 * dz.sum()", "twice what it should be"),
    ("logistic", "dbias", "0.0", "zero"),
    ("logistic", "dbias", "dz", "shape (7,); accepted is ()"),
    ("logistic", "dbias", "[1.0]", "a list; accepted is a tensor"),
    ("logistic", "dinput", "dz[:, None] * weight / 3", "0.3333 times what it should be"),
    ("logistic", "dz", "p / len(target)", "differs from finite differences by "),
    ("logistic", "dz", "p * float('nan')", "differs from finite differences by nan"),
    ("softmax", "dz", "p * (1 - p) * (p - y) / len(target)", "differs from finite differences by "),
    ("softmax", "dz", "(p - y.roll(1, 1)) / len(target)", "differs from finite differences by "),
    ("softmax", "dweight", "(dz.T @ input)[[1, 0, 2]]", "differs from finite differences by "),
    ("softmax", "dweight", "input.T @ dz", "shape (4, 3); accepted is (3, 4)"),
    ("softmax", "dbias", "dz.mean(0)", "an N-th of what it should be"),
    ("softmax", "dinput", "-(dz @ weight)", "the sign is wrong"),
    ("l2", "dweight", "2 * l2 * weight", "twice what it should be"),
    ("l2", "dweight", "weight", "times what it should be"),
    ("l2", "dl2", "(weight**2).sum()", "twice what it should be"),
]


@pytest.mark.parametrize(("part", "term", "answer", "said"), MISTAKES)
def test_a_mistake_is_told_with_its_term(part, term, answer, said, file):
    found = judged(file, **{part: {term: answer}})
    assert found[part, term].word == WRONG
    assert said in found[part, term].said
    others = {key: verdict for key, verdict in found.items() if key != (part, term)}
    if term == "dz":  # what follows from it is wrong too, and no fault of its own
        assert {others.pop((part, name)).said for name in ("dweight", "dbias", "dinput")} <= {
            "as follows from this dz: right once dz is",
            "differs from finite differences by nan of their size",
        }
    assert {verdict.word for verdict in others.values()} == {RIGHT}


def test_a_wrong_chain_behind_a_wrong_dz_is_told_as_it_is(file):
    found = judged(file, softmax={"dz": "p - y", "dbias": "2 * dz.sum(0)"})
    assert found["softmax", "dbias"].said == "14 times what it should be"
    assert found["softmax", "dweight"].said == "as follows from this dz: right once dz is"


def test_a_gradient_may_work_in_place(file):
    found = judged(
        file, softmax={"dz": "p.sub_(y).div_(len(target))", "dinput": "dz @ weight + 0 * weight.zero_().sum()"}
    )
    assert {verdict.word for verdict in found.values()} == {RIGHT}


def test_single_precision_and_plain_numbers_are_accepted(file):
    dz = {"dz": "((p - target) / len(target)).float().double()", "dbias": "float(dz.sum())"}
    assert {verdict.word for verdict in judged(file, logistic=dz).values()} == {RIGHT}


STOPS = [
    ("undefined", "NameError: name 'undefined' is not defined"),
    ("input @ weight.T.T.T @ dz @ dz", "RuntimeError: "),
    ("... + dz", "TypeError: unsupported operand"),
    ("torch.autograd.grad(softmax_loss(z.requires_grad_(), target), z)[0]", "RuntimeError: "),  # it would do the work
]


@pytest.mark.parametrize(("answer", "said"), STOPS)
def test_a_gradient_that_stops_is_told_with_its_line_and_the_others_are_judged(answer, said, file):
    found = judged(file, softmax={"dweight": answer})
    (line,) = {verdict.said for verdict in found.values() if verdict.part == "softmax"}
    number = 1 + file.read_text().split("\n").index(f"    dweight = {answer}  # (K, D)")
    assert line.startswith(f"{file}, line {number}: {said}")
    assert "\n" not in line
    assert {verdict.word for verdict in found.values() if verdict.part != "softmax"} == {RIGHT}


def test_a_forward_that_was_changed_is_told(file):
    text = filled(file, KEY).read_text()
    file.write_text(text.replace("torch.softmax(z, 1)\n    return", "torch.sigmoid(z)\n    return"))
    found = [verdict for verdict in verdicts(load(file), file) if verdict.word != RIGHT]
    assert {(verdict.part, verdict.said) for verdict in found} == {
        ("softmax", f"{file}: the forward of softmax differs from its formula; accepted is that of exercise/blank.py")
    }


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("def l2_gradient", "def gradient", "no function l2_gradient; accepted is the one of exercise/blank.py"),
        ('"dl2": dl2}', '"l2": dl2}', "l2_gradient returns something else than dweight, dl2 by their names"),
    ],
)
def test_a_function_that_is_missing_or_returns_something_else_is_told(before, after, said, file):
    file.write_text(filled(file, KEY).read_text().replace(before, after))
    found = [verdict for verdict in verdicts(load(file), file) if verdict.word != RIGHT]
    assert [verdict.part for verdict in found] == ["l2", "l2"]
    assert said in found[0].said


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def exercise(tmp_path, monkeypatch, capsys):
    """Types ``python -m exercise`` with the given words in an empty folder; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def exercise(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["exercise", *words])
        with pytest.raises(SystemExit) as end, command(USAGE, WORDS) as given:
            sys.exit(main(given))
        return end.value.code, *capsys.readouterr()

    return exercise


def test_it_begins_a_file_once_and_says_what_is_right_so_far(exercise, file):
    code, out, _ = exercise()
    assert code == NOT_ALL_RIGHT
    assert out.startswith("Begun: gradients.py. ")
    assert "0 of 10 right, 0 wrong, 10 to do.\n" in out
    assert file.read_text() == BLANK.read_text()
    filled(file, {"l2": {"dweight": "weight", "dl2": KEY["l2"]["dl2"]}})
    before = file.read_text()
    code, out, _ = exercise()
    assert (code, file.read_text()) == (NOT_ALL_RIGHT, before)
    assert out.splitlines()[-5:] == [
        "l2",
        f"  dweight  wrong    {out.split('wrong    ')[1].splitlines()[0]}",
        "  dl2      right",
        "",
        "1 of 10 right, 1 wrong, 8 to do.",
    ]


def test_a_teacher_checks_a_file_by_its_name(exercise, tmp_path):
    filled(tmp_path / "anna.py", KEY)
    code, out, _ = exercise("file=anna.py")
    assert (code, out.splitlines()[-1]) == (0, "10 of 10 right: all of them.")
    assert not (tmp_path / "gradients.py").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "anna.py: no such file; accepted is one begun by `make exercise`"),
        ("x = (1\n", "anna.py, line 1: SyntaxError: '(' was never closed"),
        ("import torch\n\ntorch.zeros(3) @ torch.zeros(2)\n", "anna.py, line 3: RuntimeError: "),
        ("x = '\0'", "anna.py"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(content, line, exercise, tmp_path):
    if content is not None:
        (tmp_path / "anna.py").write_text(content)
    code, out, err = exercise("file=anna.py")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {line}")
