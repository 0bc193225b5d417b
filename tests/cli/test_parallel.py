"""A parallel sweep whose processes die: the dead job is named, the others end, and what is left can be done."""

import os
import signal
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import Pipe

import pytest
from joblib import delayed

from handgrad.cli import parallel
from handgrad.cli.parallel import Workers, death, stop_at_the_end_of, work
from handgrad.errors import InputError
from handgrad.runs.results import read_results
from handgrad.runs.signals import Interrupted, stopping

SWEEP = ("-m", "experiment=report_logistic", "seed=1,2,3", "epochs=1", "logger=none", "threads=1")
SWEEP += ("callbacks.figures=null", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
TOLD = "its process died (SIGKILL), as it does when memory is short"
DIED = BrokenProcessPool("A worker process was terminated.\n\nThe exit codes of the workers are {SIGKILL(-9)}\n")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name, value in (("installed", False), ("put_off", False), ("signal", None)):
        monkeypatch.setattr(stopping, name, value)


# --- processes -------------------------------------------------------------------------------------------------------


def square(number: int) -> int:
    return number * number


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(code: int) -> None:
    os._exit(code)


@pytest.mark.slow
def test_who_dies_takes_nobody_along(monkeypatch):
    """In place of `joblib.Parallel`, which raises and kills all."""
    monkeypatch.setattr(parallel, "record", lambda call, told: told)
    calls = [delayed(square)(2), delayed(die)(signal.SIGKILL), delayed(square)(number=3), delayed(leave)(3)]
    calls += [delayed(die)(signal.SIGTERM), delayed(square)(4)]
    assert Workers(2, backend="loky")(calls) == [
        4,
        TOLD,
        9,
        "its process died (exit 3)",
        "its process died (exit 143)",
        16,
    ]


@pytest.mark.slow
def test_an_error_is_raised_when_the_others_have_ended(tmp_path, capfd):
    with pytest.raises(ZeroDivisionError):
        Workers(2)([delayed(divmod)(1, 0)])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("n_jobs", [0, True, 1.5, "two", None])
def test_a_number_of_processes_is_a_number(n_jobs):
    with pytest.raises(InputError, match=rf"^hydra\.launcher\.n_jobs={n_jobs}: accepted is a whole number of"):
        Workers(n_jobs)


def test_each_process_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(parallel.joblib, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = Workers(2).environment
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("5", "4")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (str(DIED), TOLD),
        ("codes of the workers are {EXIT(1)}", "its process died (exit 1)"),
        ("codes of the workers are {SIGSEGV(-11)}", "its process died (SIGSEGV)"),
        ("a task has failed to un-serialize", "its process died"),
    ],
)
def test_how_a_process_died_is_told(said, told):
    assert death(BrokenProcessPool(said)) == told


# --- one that is stopped, or left alone ------------------------------------------------------------------------------


def test_a_run_stops_at_its_next_check_when_its_parent_has_died():
    there, here = Pipe(duplex=False)
    here.close()  # as the system does for one that was killed
    stopping.put_off = True
    stop_at_the_end_of(there)
    assert stopping.signal == signal.SIGTERM


def test_what_looks_at_no_signal_is_interrupted_when_the_parent_has_died(monkeypatch):
    there, here = Pipe(duplex=False)
    here.close()
    sent = []
    monkeypatch.setattr(parallel.os, "kill", lambda *sent_to: sent.append(sent_to))
    stop_at_the_end_of(there)
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_a_process_that_was_stopped_ends(monkeypatch):
    """Else it would wait for work that nobody has."""

    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    def interrupted() -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(parallel.os, "_exit", end)
    with pytest.raises(Ended, match="143"):
        work(interrupted, (), {})
    assert work(square, (3,), {}) == 9
    stopping.signal = signal.SIGTERM  # after the last check of a run
    with pytest.raises(Ended, match="143"):
        work(square, (3,), {})


# --- a whole sweep ---------------------------------------------------------------------------------------------------


class Here:
    """Stands for a pool of one process, in this one; it dies of the calls whose numbers are in ``deadly``."""

    deadly: set[int] = set()  # noqa: RUF012
    called = 0

    def __init__(self, *_, **__) -> None:
        self.broken = False

    def submit(self, function, *arguments) -> Future:
        assert not self.broken
        future: Future = Future()
        self.broken = Here.called in self.deadly
        Here.called += 1
        future.set_exception(DIED) if self.broken else future.set_result(function(*arguments))
        return future

    def shutdown(self, kill_workers: bool = False) -> None:
        pass


def test_a_sweep_names_its_dead_job_sums_up_and_goes_on(command, monkeypatch, tmp_path):
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(Here, "called", 0)
    monkeypatch.setattr(Here, "deadly", {1})
    ended = command(*SWEEP, "hydra.sweep.dir=outputs/sweep")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    (failed,) = [line for line in ended.err.splitlines() if line.startswith("failed: ")]
    assert "seed=2" in failed
    assert failed.endswith(TOLD)
    assert ended.err.splitlines()[-2:] == [
        "Go on with:",
        f"  python train.py {' '.join(SWEEP)} resume=true",
    ]
    assert ended.out.count("val loss") == 4, "two runs, their table, and that over the seeds"
    rows = read_results(tmp_path / "outputs" / "sweep" / "results.csv")
    assert [(row["seed"], row["status"]) for row in rows] == [(1, "ok"), (2, "failed"), (3, "ok")]
    monkeypatch.setattr(Here, "deadly", set())
    ended = command(*SWEEP, "resume=true")
    assert (ended.code, ended.err.count("Training from update 1 of")) == (0, 1), ended.err

    monkeypatch.setattr(Here, "called", 0)
    monkeypatch.setattr(Here, "deadly", {0, 1, 2})  # after their results were saved
    assert command(*SWEEP, "resume=true").code == 0
