"""How the processes of a launched run begin and end as one: the first decides its folder, and tells the others.

Nothing of torch is imported where a process runs alone, and then nothing is told.
"""

import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from handgrad.cli.configuration import CONF, processes_of
from handgrad.errors import InputError
from handgrad.runs.folder import RunFolder
from handgrad.runs.launch import launched
from handgrad.runs.signals import stopping

if TYPE_CHECKING:
    from handgrad.runs.meeting import Meeting

NEW, SAVED, FINISHED = "no run", "a run that can go on", "a finished run"  # what a folder holds
LAST_WORDS = 10.0  # seconds in which a process that is refused before it has met the others tries to meet them


def met(timeout: float | None = None) -> "Meeting | None":
    """Returns this process's meeting with the others that were launched; None: it was launched alone.

    Args:
        timeout: ``trainer.peer_timeout``; None: its default.

    Raises:
        InputError: they cannot meet.
    """
    found = launched()
    if found is None or found.processes == 1:
        return None
    from handgrad.runs.meeting import meet

    meeting = meet(found, timeout or OmegaConf.load(CONF / "trainer" / "default.yaml").peer_timeout)
    meeting.timeout = timeout or meeting.timeout
    return meeting


def folder_of_first(timeout: float | None = None) -> str | None:
    """Waits until the first process has told the run's folder; None: this is the first one.

    Raises:
        InputError: the run was refused, by the first process or by another one.
    """
    meeting = met(timeout)
    if meeting is None or meeting.launch.rank == 0:
        return None
    meeting.tell(f"here/{meeting.launch.rank}", "")
    return str(json.loads(meeting.hear("run"))[0])


def begin(run: RunFolder, cfg: DictConfig) -> bool:
    """Lets all processes begin a run of which the first one owns the folder, and has checked all.

    Returns:
        Whether there is something left to do for this one.

    Raises:
        InputError: other processes are missing or have failed, see another folder, or the run was begun by another
            number of them.
    """
    meeting = met(cfg.trainer.peer_timeout)
    held = FINISHED if run.has_results else SAVED if run.has_checkpoint else NEW
    if meeting and meeting.launch.rank > 0:
        of_first = json.loads(meeting.hear("run"))[1]
        meeting.watch()
        if held != of_first:
            raise InputError(
                f"{run}: {held} here, and {of_first} where the first process is; accepted is a folder that all hosts "
                f"share"
            )
        return held != FINISHED
    if held == SAVED:
        check_same_processes(run, cfg)
    if meeting:
        meeting.all_come("here", meeting.timeout)
        meeting.watch()
    elif held != FINISHED and processes_of(cfg) > 1:
        from handgrad.runs.meeting import serve

        meeting = serve(processes_of(cfg), cfg.trainer.peer_timeout)
    if meeting:
        meeting.tell("run", json.dumps([str(run.path), held]))
    return True


def check_same_processes(run: RunFolder, cfg: DictConfig) -> None:
    """Raises an InputError where a run goes on with other processes: the order in which they add up is in its bits."""
    try:
        before = OmegaConf.create(run.config())
        was = processes_of(before), before.trainer.get("num_nodes", 1)
    except (InputError, AttributeError, TypeError):  # what is for people may be damaged; the checkpoint knows too
        return
    if was != (now := (processes_of(cfg), cfg.trainer.num_nodes)):
        raise InputError(
            f"{run}: begun by {was[0]} processes on {was[1]} hosts, and now there are {now[0]} on {now[1]}; accepted "
            f"are as many as before"
        )


def part(line: str = "", number: int = 0) -> str:
    """Ends this process's part in a run of several, and tells the others why: an error's line, or a signal.

    Returns:
        The line of another process that has failed before; empty where none has.
    """
    try:
        found = launched()
    except InputError:  # told already
        return ""
    if (found is None or found.processes == 1) and "handgrad.runs.meeting" not in sys.modules:
        return ""
    from handgrad.runs.meeting import leave, meet

    if (line or number) and found and found.processes > 1:
        with suppress(InputError):  # nobody is there to be told
            meet(found, LAST_WORDS)
    stopping.ignore()
    return leave(line, number)
