"""Asks SLURM to start a job again that it has told to stop: what Lightning does, without a file of its own."""

import os
import signal
import subprocess
from collections.abc import Sequence

from handgrad.runs.signals import stopping

SECONDS = 30  # for an answer


def requeued(number: int, words: Sequence[str]) -> str:
    """Asks for another start of this job where a signal announced its end; returns what there is to tell.

    SIGUSR1 does so, by ``#SBATCH --signal=USR1@60``: SIGTERM comes of ``scancel``, and SLURM starts a job that makes
    room for others again by itself. The same words have to find the same folder.

    Args:
        words: of the command line, as SLURM will repeat them.
    """
    if "SLURM_JOB_ID" not in os.environ or number != getattr(signal, "SIGUSR1", None):
        return ""
    fixed = (word for word in words if word != "resume=latest")  # which may be another run by then
    if not any(word.startswith(("hydra.run.dir=", "resume=")) for word in fixed):
        return "The job is not requeued: without hydra.run.dir= in the command it would begin anew"
    stopping.ignore()  # SLURM ends the job's processes before it starts it again
    command = ["scontrol", "requeue", job()]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        failure = "" if ended.returncode == 0 else (ended.stderr.strip() or f"exit code {ended.returncode}")
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    name = " ".join(command)
    return f"The job is not requeued: {name}: {failure}" if failure else f"The job is requeued: {name}"


def job() -> str:
    """Returns the job's number; of an array that of this task, for the last one has the number of them all."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
