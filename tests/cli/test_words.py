"""The words of predict.py and of the export: what is read in each, and how the program ends."""

import os
import signal
import subprocess
import sys

import pytest

from handgrad import __version__
from handgrad.cli.words import EXPORT, PREDICT, command, help_of, read_words
from handgrad.errors import InputError
from handgrad.files import replacing
from handgrad.runs.overrides import parse_overrides

NEEDED = ["run=outputs/a", "features=x.npz", "out=p.csv"]
UNSET = dict.fromkeys(("labels", "x", "y", "l2", "overwrite"))


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("features=[a.npy, b.npy]", ["a.npy", "b.npy"]),
        ("features=feats/*.npy", ["feats/*.npy"]),
        ("features=a=b.npy", ["a=b.npy"]),
        ("l2=1e-05", 1e-5),
        ("l2=0", 0.0),
        ("x=[a,b]", ["a", "b"]),
        ("y=null", ["null"]),
        ("overwrite=true", True),
        ("overwrite=false", False),
    ],
)
def test_what_is_read(word, value):
    key = word.partition("=")[0]
    words = [*(needed for needed in NEEDED if not needed.startswith(key)), word]
    expected = UNSET | {"run": "outputs/a", "features": ["x.npz"], "out": "p.csv"} | {key: value}
    assert read_words(words, PREDICT) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[a,b]",
        "[ a , b ]",
        "['a, b',c]",
        '["x y",z]',
        r"[a\,b,c]",
        r"['it\'s',b]",
        "[a b,c]",
        "[/x/y.npy,z]",
        "['[a]',b]",
    ],
)
def test_a_list_is_read_as_hydra_reads_it_for_training(text):
    assert read_words([*NEEDED[::2], f"features={text}"], PREDICT)["features"] == parse_overrides([f"y={text}"])["y"]


@pytest.mark.parametrize("text", ["[a,]", "[]", "['a]", "[,a]", "[a'b]", "[a,,b]"])
def test_a_list_that_hydra_would_not_read_is_refused(text):
    with pytest.raises(InputError, match=r"accepted is a file, a list like \[a.npy,b.npy\]"):
        read_words([*NEEDED[::2], f"features={text}"], PREDICT)


def test_a_file_may_be_called_like_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[a,b]").touch()
    assert read_words([*NEEDED[::2], "features=[a,b]"], PREDICT)["features"] == ["[a,b]"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["feature=x"], "feature: no such key; accepted are run, features, out, labels, x, y, l2, overwrite; did you"),
        (["x.npz"], "x.npz: no such key; accepted are run, features"),
        (["run"], "run: accepted is run=<a folder like outputs/<run>>"),
        (["run="], "run=: accepted is run=<a folder like outputs/<run>>"),
        (["l2=-1"], "l2=-1: accepted is a number >= 0"),
        (["l2=nan"], "l2=nan: accepted is a number >= 0"),
        (["l2=small"], "l2=small: accepted is a number >= 0"),
        (["x=[a,]"], "x=[a,]: accepted is a name, or a list like [a,b]"),
        (["overwrite=yes"], "overwrite=yes: accepted is true or false"),
        (["out=a.csv", "out=b.csv"], "out=b.csv: out is given twice; accepted is one value"),
        (NEEDED[:2], "out: missing; accepted is out=<a file like predictions.csv>; --help tells"),
    ],
)
def test_words_that_are_refused(words, line):
    with pytest.raises(InputError) as error:
        read_words(words, PREDICT)
    assert str(error.value).startswith(line)


def test_the_nearest_format_is_told():
    with pytest.raises(InputError) as error:
        read_words(["run=a", "format=onx"], EXPORT)
    assert str(error.value) == "format=onx: accepted is one of onnx, sklearn, npz, torch; did you mean 'onnx'?"


def test_help_tells_of_each_word(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predict.py", "--help", "nonsense"])
    with pytest.raises(SystemExit) as end, command("\nPredicts.\n", PREDICT):
        pytest.fail("it goes on")
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert told == help_of("Predicts.", PREDICT) + "\n"
    assert told.startswith("Predicts.\n")
    for key, word in PREDICT.items():
        assert f"  {key:9}  {word.help}" in told


def test_the_version_is_ours(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predict.py", "--version"])
    with pytest.raises(SystemExit) as end, command("", PREDICT):
        pytest.fail("it goes on")
    assert (end.value.code, capsys.readouterr().out) == (0, f"handgrad {__version__}\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("x: bad"), 1, "error: x: bad\n"),
        (PermissionError(13, "Permission denied", "p.csv"), 1, "error: p.csv: cannot be read or written (Permission"),
        (KeyboardInterrupt(), 130, "\nStopped; nothing was written\n"),
    ],
)
def test_errors_are_a_line_and_an_exit_code(error, code, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predict.py", *NEEDED])
    with pytest.raises(SystemExit) as end, command("", PREDICT):
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err.startswith(line)


def test_an_error_of_ours_is_shown_whole(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict.py", *NEEDED])
    with pytest.raises(ZeroDivisionError), command("", PREDICT):
        _ = 1 / 0


def test_sigterm_leaves_nothing_half_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict.py", *NEEDED])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, command("", PREDICT), replacing(tmp_path / "p.csv") as temporary:
        os.kill(os.getpid(), temporary.write_bytes(b"half") and signal.SIGTERM)
    assert end.value.code == 143
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_neither_torch_nor_hydra_is_imported():
    code = "import sys, handgrad.cli.words; print(*sorted({'torch', 'hydra', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
