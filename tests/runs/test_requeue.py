"""A job of SLURM's is asked to be started again, by a stand-in for scontrol."""

import os
import signal

import pytest

from handgrad.runs.requeue import job, requeued
from handgrad.runs.signals import STOPS

FIXED = ["l2=1", "hydra.run.dir=outputs/x"]


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Puts a command into PATH that writes down what it is called with; the tests' signal handlers come back."""

    def scontrol(code: int = 0, told: str = "") -> None:
        path = tmp_path / "bin" / "scontrol"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "{told}" >&2\nexit {code}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    before = {number: signal.getsignal(number) for number in STOPS}
    yield scontrol
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_job_is_started_again(scontrol, tmp_path):
    scontrol()
    assert requeued(signal.SIGUSR1, FIXED) == "The job is requeued: scontrol requeue 77"
    assert requeued(signal.SIGUSR1, ["resume=outputs/x"]) == "The job is requeued: scontrol requeue 77"
    assert (tmp_path / "asked").read_text() == "requeue 77\nrequeue 77\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, "SLURM ends what is left of the job"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_other_signals_are_no_announcement(number, scontrol, tmp_path):
    scontrol()
    assert requeued(number, FIXED) == ""
    assert not (tmp_path / "asked").exists()


def test_outside_of_slurm_nobody_is_asked(scontrol, tmp_path, monkeypatch):
    scontrol()
    monkeypatch.delenv("SLURM_JOB_ID")
    assert requeued(signal.SIGUSR1, FIXED) == ""
    assert not (tmp_path / "asked").exists()


def test_a_job_that_would_begin_anew_for_ever_is_not_requeued(scontrol, tmp_path):
    scontrol()
    for words in (["l2=1"], ["resume=latest"]):  # the latest may be another one by then
        assert "without hydra.run.dir= in the command it would begin anew" in requeued(signal.SIGUSR1, words)
    assert not (tmp_path / "asked").exists()


def test_a_refusal_is_told(scontrol, monkeypatch, tmp_path):
    scontrol(1, "Requested operation is presently disabled")
    told = "The job is not requeued: scontrol requeue 77: Requested operation is presently disabled"
    assert requeued(signal.SIGUSR1, FIXED) == told
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeued(signal.SIGUSR1, FIXED).startswith("The job is not requeued: scontrol requeue 77: ")


def test_of_an_array_this_task_alone_is_meant(scontrol, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert job() == "70_7"
