"""Stands for SLURM: ``sbatch``, ``srun``, ``sacct``, ``scancel`` and ``scontrol`` on one machine, by these very names.

As far as a sweep by submitit sees it: job arrays, steps of several tasks, signals to their processes, and jobs that are
cancelled or queued again, whose processes get SIGTERM and after a while SIGKILL. There are no queue, no limits and no
other hosts. What it knows is in the folder that SLURM_STAND_IN names.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

FOLDER = Path(os.environ.get("SLURM_STAND_IN", "."))
NAMES = ("sbatch", "srun", "sacct", "scancel", "scontrol")
KILL_WAIT = 10.0  # seconds between SIGTERM and SIGKILL


def install(folder: Path) -> dict[str, str]:
    """Puts the commands into a folder; returns the environment in which they are found."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name in NAMES:
        (commands / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {__file__} {name} "$@"\n')
        (commands / name).chmod(0o755)
    return {"SLURM_STAND_IN": str(folder), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}


def jobs(folder: Path) -> list[Path]:
    """Returns the folders of all jobs, each task of an array one, in the order in which they were submitted."""
    found = [path for path in folder.glob("[0-9]*") if path.is_dir()]
    return sorted(found, key=lambda path: [int(part) for part in path.name.split("_")])


def state(job: Path) -> str:
    return (job / "state").read_text()


def set_state(job: Path, value: str) -> None:
    temporary = job / f".state.{os.getpid()}"
    temporary.write_text(value)
    temporary.replace(job / "state")


def options(script: Path) -> dict[str, str]:
    """Returns what a script asks for in its ``#SBATCH`` lines."""
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.MULTILINE)
    return {key: shlex.split(value)[0] if value else "" for key, value in lines}


def sbatch(script: str) -> None:
    """Submits a script, an array of which is a job for each index."""
    asked = options(Path(script))
    number = len([*FOLDER.glob("*.json")]) + 100
    (FOLDER / f"{number}.json").write_text(json.dumps(asked))
    last = re.fullmatch(r"0-(\d+)(%\d+)?", asked.get("array", ""))
    for name in [f"{number}_{index}" for index in range(int(last[1]) + 1)] if last else [str(number)]:
        (FOLDER / name).mkdir()
        set_state(FOLDER / name, "PENDING")
        with open(FOLDER / name / "slurmd.txt", "w") as told:
            command = [sys.executable, __file__, "slurmd", name, script]
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True)
    print(f"Submitted batch job {number}")


def slurmd(name: str, script: str) -> None:
    """Runs a job, once more whenever it was queued again."""
    job, asked = FOLDER / name, options(Path(script))
    array, _, index = name.partition("_")
    tasks = int(asked.get("ntasks") or int(asked.get("nodes", "1")) * int(asked.get("ntasks-per-node", "1")))
    own = str(100 * int(array) + int(index or 0))  # each task of an array has a number of its own, too
    given = {
        "SLURM_JOB_ID": own if index else array,
        "SLURM_NTASKS": str(tasks),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NAME": "x",
    }
    given |= {"SLURM_CPUS_PER_TASK": asked.get("cpus-per-task", "1")}
    given |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index} if index else {}
    (job / "slurmd").write_text(str(os.getpid()))
    for attempt in range(10):
        given["SLURM_RESTART_COUNT"] = str(attempt)
        if state(job).startswith("CANCELLED"):
            return
        set_state(job, "RUNNING")
        process = subprocess.Popen(["bash", script], env={**os.environ, **given}, start_new_session=True)
        (job / "group").write_text(str(process.pid))
        while process.poll() is None and state(job) == "RUNNING":
            time.sleep(0.05)
        if state(job) != "RUNNING":
            kill_later(process)
        if state(job) == "RUNNING":
            set_state(job, "FAILED" if process.returncode else "COMPLETED")
        if state(job) != "REQUEUED":
            return


def kill_later(process: subprocess.Popen) -> None:
    """Tells the tasks of a job's script to end, and kills what has not in a while."""
    signal_tasks(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILL_WAIT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def signal_tasks(group: int, number: int, folder: Path = FOLDER) -> None:
    """Sends a signal to the tasks that a job's script, the first of its process group, has started by ``srun``."""
    for path in folder.glob(f"task.{group}.*"):
        with suppress(ProcessLookupError):
            os.kill(int(path.suffix[1:]), number)


def srun(*words: str) -> None:
    """Runs a command in each task of the job, with its output where it is to be."""
    places, command = {"--output": "slurm-%j.out"}, list(words)
    while command[0].startswith("-"):
        option, _, value = command.pop(0).partition("=")
        if option in ("--output", "--error"):
            places[option] = value or command.pop(0)
    places.setdefault("--error", places["--output"])
    count = int(os.environ["SLURM_NTASKS"])
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0"}
    step |= {"SLURM_STEP_TASKS_PER_NODE": str(count), "SLURM_STEP_NODELIST": "localhost"}
    tasks = []
    for rank in range(count):
        own = {**os.environ, **step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        with ExitStack() as opened:
            output, error = (
                opened.enter_context(open(resolved(place, rank), "a"))
                for place in (places["--output"], places["--error"])
            )
            tasks.append(subprocess.Popen(command, env=own, stdout=output, stderr=error))
        (FOLDER / f"task.{os.getpgid(0)}.{tasks[-1].pid}").touch()
    codes = [task.wait() for task in tasks]
    sys.exit(next((code if code > 0 else 128 - code for code in codes if code), 0))


def resolved(name: str, rank: int) -> str:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    marks = {"%j": os.environ["SLURM_JOB_ID"], "%t": str(rank), "%A": array, "%a": index}
    return re.sub("%[jtAa]", lambda mark: marks[mark[0]], name)


def sacct(*words: str) -> None:
    asked = {words[place + 1] for place, word in enumerate(words) if word == "-j"}
    print("JobID|State|NodeList")
    for job in jobs(FOLDER):
        if job.name.partition("_")[0] in asked:
            print(f"{job.name}|{state(job)}|localhost")


def scancel(*names: str) -> None:
    for job in jobs(FOLDER):
        if {job.name, job.name.partition("_")[0]} & {*names} and state(job) in ("RUNNING", "PENDING"):
            set_state(job, "CANCELLED by 0")


def scontrol(verb: str, name: str) -> None:
    assert verb == "requeue"
    set_state(FOLDER / name, "REQUEUED")


if __name__ == "__main__":
    {do.__name__: do for do in (sbatch, slurmd, srun, sacct, scancel, scontrol)}[sys.argv[1]](*sys.argv[2:])
