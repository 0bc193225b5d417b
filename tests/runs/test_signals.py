"""What SIGTERM, SIGUSR1 and SIGINT do: raise at once, or wait for the run's next check."""

import signal
import threading

import pytest

from handgrad.runs.signals import STOPS, Interrupted, Stopping

EACH = pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)


@pytest.fixture
def stopping(monkeypatch) -> Stopping:
    """A handler of its own, installed; the tests' handlers come back at the end."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    before = {number: signal.getsignal(number) for number in STOPS}
    stopping = Stopping()
    stopping.install()
    yield stopping
    for number, handler in before.items():
        signal.signal(number, handler)


@EACH
def test_outside_a_run_the_program_stops_at_once(number, stopping):
    with pytest.raises(Interrupted) as caught:
        signal.raise_signal(number)
    stop = caught.value
    assert (stop.number, stop.folder, stop.done) == (number, None, "")
    assert stopping.signal == number


@EACH
def test_in_a_run_it_waits_and_says_so(number, stopping, capfd):
    stopping.put_off = True
    signal.raise_signal(number)
    assert stopping.signal == number
    assert capfd.readouterr() == ("", "\nStopping at the next check; once more: at once\n")


def test_the_second_signal_stops_a_run_at_once(stopping):
    stopping.put_off = True
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.value.number == stopping.signal == signal.SIGINT


def test_a_job_that_both_its_sweep_and_its_scheduler_tell_is_patient(stopping, capfd):
    stopping.patient = stopping.put_off = True
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr() == ("", "\nStopping at the next check\n")
    stopping.put_off = False
    signal.raise_signal(signal.SIGTERM)  # it is at its end already


def test_what_must_not_be_cut_is_not(stopping, capfd):
    done = []

    def submit() -> None:
        with stopping.noted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            done.append("all")

    with pytest.raises(Interrupted) as caught:
        submit()
    assert (caught.value.number, done) == (signal.SIGTERM, ["all"])
    stopping.install()
    with stopping.noted():
        pass
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr() == ("", "")


def test_another_process_of_the_run_waits_for_the_first_one(stopping, monkeypatch, capfd):
    monkeypatch.setenv("LOCAL_RANK", "1")
    stopping.put_off = True
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert stopping.signal == signal.SIGINT
    assert capfd.readouterr() == ("", "")
    stopping.put_off = False
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGINT)


def test_a_closed_terminal_does_no_harm(stopping, monkeypatch):
    def gone(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("handgrad.runs.signals.os.write", gone)
    stopping.put_off = True
    signal.raise_signal(signal.SIGTERM)
    assert stopping.signal == signal.SIGTERM


def test_sigterm_is_taken_back_once_it_was_taken_over(stopping):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Stopping().take_back()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, "a library's user keeps the signals"
    stopping.take_back()
    assert signal.getsignal(signal.SIGTERM) == stopping.handle
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "Lightning leaves that one alone"


def test_installing_anew_forgets_the_last_signal(stopping):
    stopping.put_off = True
    signal.raise_signal(signal.SIGTERM)
    stopping.install()
    assert (stopping.signal, stopping.put_off, stopping.installed) == (None, False, True)


def test_no_handler_of_errors_takes_it_for_one():
    assert issubclass(Interrupted, BaseException)
    assert not issubclass(Interrupted, Exception)


@EACH
def test_at_the_end_of_the_program_a_signal_does_nothing(number, stopping):
    stopping.ignore()
    signal.raise_signal(number)
    assert stopping.signal is None


def test_another_thread_interrupts_the_main_one_outside_a_run_alone(stopping):
    def interrupt() -> None:
        thread = threading.Thread(target=stopping.interrupt, args=(signal.SIGUSR1,))
        thread.start()
        thread.join()

    stopping.put_off = True
    interrupt()
    assert stopping.signal is None
    stopping.put_off = False
    with pytest.raises(Interrupted):
        interrupt()
