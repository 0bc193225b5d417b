"""Printing is not the work: what becomes of standard output and standard error makes no failure of what is done."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from handgrad.cli.configuration import CONF
from handgrad.cli.endings import failures, one_run
from handgrad.cli.streams import standard_streams, terminal_width
from handgrad.cli.words import EXPORT, command
from handgrad.errors import InputError
from handgrad.runs.folder import RESULTS, RunFolder


def full() -> io.TextIOWrapper:
    return open("/dev/full", "w")


def left() -> io.TextIOWrapper:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed() -> io.TextIOWrapper:
    stream = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    stream.close()
    return stream


ROOT = CONF.parent
LOST = {
    full: "No space left on device",
    left: "Broken pipe",
    closed: "I/O operation on closed file",
    lambda: None: None,  # what Python makes of a stream that is closed when it starts
}
IDS = ["full", "left", "closed", "none"]


@pytest.fixture
def replaced(capfd, monkeypatch) -> Iterator[Callable]:
    """Puts a stream in the place of ``stdout`` or ``stderr``, and closes it in the end."""
    streams = []

    def replaced(name: str, stream: Callable) -> None:
        streams.append(stream())
        monkeypatch.setattr(sys, name, streams[-1])

    yield replaced
    for stream in filter(None, streams):
        with suppress(OSError):
            stream.close()


@pytest.fixture(params=LOST.items(), ids=IDS)
def lose(request, replaced) -> Callable[[], str | None]:
    """Loses standard output; returns the reason. Not before the test is called: pytest sets both streams then."""
    stream, reason = request.param

    def lose() -> str | None:
        replaced("stdout", stream)
        return reason

    return lose


@pytest.mark.parametrize("text", ["a line", "many lines\n" * 10_000], ids=["short", "long"])
def test_what_standard_output_cannot_take_is_told_once(text, lose, capfd):
    lost = lose()
    before = sys.stdout
    with standard_streams():
        for _ in range(3):
            print(text, flush=True)
        if lost and "closed" not in lost:
            os.write(sys.stdout.fileno(), b"a library's line, or a child's")
    assert capfd.readouterr().err.count("warning: standard output: cannot be written") == bool(lost)
    assert before in (None, sys.stdout), "it is given back"


def test_the_reason_is_named(lose, capfd):
    lost = lose()
    with standard_streams():
        print("a line")  # stays in a buffer until the end
    err = capfd.readouterr().err
    assert err == "" if lost is None else err.startswith(f"warning: standard output: cannot be written ({lost}")
    assert lost is None or err.endswith("); nothing else is lost\n")


@pytest.mark.parametrize("stream", LOST, ids=IDS)
def test_standard_error_is_lost_in_silence(stream, replaced, capfd):
    replaced("stderr", stream)
    with standard_streams():
        print("a line", file=sys.stderr, flush=True)
        print("another")
    assert capfd.readouterr().out == "another\n"


def test_both_are_lost(lose, replaced):
    lose()
    replaced("stderr", full)
    with standard_streams():
        print("a line", flush=True)


def test_where_printing_is_the_work_a_failure_is_an_error(lose):
    """But for a reader that has read enough."""
    lost = lose()
    with standard_streams(printing=True):
        if lost in (None, "Broken pipe"):
            print("a line")
            return
        with pytest.raises(InputError, match=r"^standard output: cannot be written \("):
            print("a line")


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", b"|w| 1 +- 2 \\xe9 \\u4e2d \xff"),
        ("latin-1", b"|w| 1 \xb1 2 \xe9 \\u4e2d \xff"),
        ("utf-8", "‖w‖ 1 ± 2 é 中 ".encode() + b"\xff"),
    ],
)
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_letters_that_an_encoding_lacks_are_written_otherwise(encoding, written, errors, monkeypatch):
    """The last one is a byte of a file's name that is no UTF-8."""
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding, errors))
    with standard_streams():
        print("‖w‖ 1 ± 2 é 中 \udcff", end="")
    assert content.getvalue() == written


def test_who_chose_how_to_write_them_is_obeyed(monkeypatch):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, "ascii", "ignore"))
    with standard_streams():
        print("‖w‖", end="")
    assert content.getvalue() == b"w"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_no_file_gets_the_number_of_a_closed_stream(closed, tmp_path):
    """Else what is said, by whatever library or child, would stand in it."""
    text = (
        "import os, subprocess, sys; from handgrad.cli.streams import standard_streams\n"
        "with standard_streams():\n"
        "    file = open('results', 'wb'); assert file.fileno() > 2\n"
        "    print('a line'); print('another', file=sys.stderr); os.write(1, b'x'); os.write(2, b'x')\n"
        "    subprocess.run(['sh', '-c', 'echo a child; echo a child >&2'], check=True)\n"
        "    file.write(b'whole'); file.close()\n"
    )
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "results").read_bytes()) == (0, b"whole"), done.stderr


def test_the_interpreter_has_nothing_left_to_say():
    """At its end it would try to write what is still in a buffer, and end with exit code 120."""
    text = "from handgrad.cli.streams import standard_streams\nwith standard_streams(): print('a line')"
    with full() as nowhere:
        done = subprocess.run([sys.executable, "-c", text], stdout=nowhere, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr


def test_a_table_is_fitted_to_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert terminal_width() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert terminal_width() == 60


# --- programs ---------------------------------------------------------------------------------------------------------


def test_a_run_in_another_process_is_no_failure_either(lose, tmp_path):
    """As in a worker of a parallel sweep, where nothing but the run is ours."""
    lose()
    (tmp_path / "run").mkdir()
    failures.clear()
    with one_run(RunFolder(tmp_path / "run")):
        print("a table", flush=True)
    assert failures == []


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("run=a", "format=npz")])
def test_a_program_without_hydra_ends_by_what_it_has_done(words, lose, monkeypatch, capfd):
    lost = lose()
    monkeypatch.setattr(sys, "argv", ["export.py", *words])
    code = 0
    try:
        with command("Usage.", EXPORT):
            print("what was written")
    except SystemExit as end:
        code = end.code
    printing = words[0].startswith("-")
    is_lost = lost is not None and not (printing and lost == "Broken pipe")
    assert code == (printing and is_lost)
    assert ("standard output: cannot be written" in capfd.readouterr().err) == is_lost


def test_every_program_that_prints_keeps_it_apart():
    programs = [
        path for folder in ("", "src/handgrad", "report", "benchmarks") for path in (ROOT / folder).glob("*.py")
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in programs}
    printing = {
        path: re.search(r"with (standard_streams|command_line|command)\(", text)
        for path, text in texts.items()
        if '__name__ == "__main__"' in text and re.search(r"\bprint\((?!.*file=)", text)
    }
    assert len(printing) == 6
    assert all(printing.values())


RUN = ("experiment=report_logistic", "epochs=1", "logger=none", "callbacks.figures=null", "threads=1")


def of_ascii() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "ascii")


@pytest.mark.parametrize(
    ("name", "stream"), [("stdout", full), ("stdout", left), ("stdout", of_ascii), ("stderr", lambda: None)]
)
def test_a_run_that_cannot_be_told_of_has_succeeded(name, stream, command, tmp_path, replaced):
    replaced(name, stream)
    ended = command(*RUN, "hydra.run.dir=outputs/run")
    assert (ended.code, ended.err.count("warning: standard output")) == (0, stream in (full, left)), ended.err
    assert (tmp_path / "outputs" / "run" / RESULTS).exists()


def test_a_sweep_that_cannot_be_told_of_has_succeeded(command, tmp_path, replaced):
    replaced("stdout", full)
    ended = command("-m", *RUN, "seed=0,1", "hydra.sweep.dir=outputs/sweep")
    assert (ended.code, ended.err.count("warning: standard output")) == (0, 1), ended.err
    assert len(list(tmp_path.glob(f"outputs/sweep/**/{RESULTS}"))) == 3


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("words", "width"), [((*RUN, "l2=[0,2]"), 80), (("-m", *RUN, "seed=0,1"), 60)])
def test_what_is_printed_fits_the_terminal(words, width, command, replaced, monkeypatch):
    content = io.BytesIO()
    replaced("stdout", lambda: Terminal(content, "utf-8"))
    monkeypatch.setenv("COLUMNS", str(width))
    assert command(*words).code == 0
    lines = [line for line in content.getvalue().decode().splitlines() if not line.startswith(("[", "Files: "))]
    assert max(map(len, lines)) <= width
    assert all(any(name in line for line in lines) for name in ("train loss", "val accuracy", "‖w‖", "gap"))


def test_a_configuration_that_cannot_be_printed_is_an_error(command, replaced):
    replaced("stdout", full)
    assert command("--cfg", "job")[::2] == (
        1,
        "error: standard output: cannot be written (No space left on device)\n",
    )
