"""What the environment says of a run's processes: how many were launched, by whom, and which one this is."""

import os
import re
from typing import NamedTuple

from handgrad.errors import InputError

RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # what Lightning reads, whoever has set it
MEETING = ("MASTER_ADDR", "MASTER_PORT")  # where processes find one another: who launches several sets it
PORTS = 15_000  # those of SLURM's jobs, and the first of them: below those that a system gives away


class Launch(NamedTuple):
    """The processes that were launched, and which of them this is.

    Attributes:
        variable: that tells how many there are.
        processes: on all hosts.
        rank: of this one among all, from 0.
        local_rank: the same among those of its host.
        local_processes: on each host.
        attempt: how often they were launched before, in words that a store's keys can have.
    """

    variable: str
    processes: int
    rank: int = 0
    local_rank: int = 0
    local_processes: int = 1
    attempt: str = "0"

    @property
    def nodes(self) -> int:
        """Hosts."""
        return self.processes // self.local_processes

    @property
    def node_rank(self) -> int:
        """This host's number, from 0."""
        return self.rank // self.local_processes

    @property
    def served(self) -> bool:
        """Whether the launcher has a store for them; else the first one has."""
        return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"

    def place(self) -> tuple[str, int]:
        """Returns host and port of the store in which they meet."""
        if all(name in os.environ for name in MEETING):
            return os.environ["MASTER_ADDR"], count("MASTER_PORT", least=0)
        first = first_host(os.environ.get("SLURM_STEP_NODELIST", "localhost"))
        job, step = (int(number_of(name)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        return os.environ.get("MASTER_ADDR", first), PORTS + (10 * job + step) % PORTS


def launched() -> Launch | None:
    """Returns what a launcher tells; None where none does, and the process is the only one.

    torchrun sets LOCAL_RANK and WORLD_SIZE, as Lightning does for the processes that it adds; srun counts its tasks.

    Raises:
        InputError: a variable is no whole number, or they do not fit one another.
    """
    if "LOCAL_RANK" in os.environ:
        return by_torch()
    tasks = count("SLURM_STEP_NUM_TASKS", least=1) if "SLURM_STEP_NUM_TASKS" in os.environ else 1
    return by_slurm(tasks) if tasks > 1 else None


def by_torch() -> Launch:
    """Returns what torchrun tells, or Lightning, which counts hosts and the processes of each."""
    total, local_rank = optional("WORLD_SIZE", 1, least=1), count("LOCAL_RANK", least=0)
    local = optional("LOCAL_WORLD_SIZE", total, least=1)
    rank = local_rank
    if "TORCHELASTIC_RUN_ID" in os.environ or "NODE_RANK" not in os.environ:
        rank = optional("RANK", rank, least=0)
    else:  # RANK may be anybody's
        rank += optional("NODE_RANK", 0, least=0) * local
    check_even("LOCAL_WORLD_SIZE", local, "WORLD_SIZE", total)
    return Launch("WORLD_SIZE", total, rank, local_rank, local, number_of("TORCHELASTIC_RESTART_COUNT"))


def by_slurm(tasks: int) -> Launch:
    """Returns what srun tells of its ``tasks``."""
    nodes = optional("SLURM_STEP_NUM_NODES", 1, least=1)
    check_even("SLURM_STEP_NUM_NODES", nodes, "SLURM_STEP_NUM_TASKS", tasks)
    told = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    if len(set(re.sub(r"\(x\d+\)", "", told).split(","))) > 1:
        raise InputError(f"SLURM_STEP_TASKS_PER_NODE={told}: accepted are as many tasks on each node")
    local, rank = tasks // nodes, optional("SLURM_PROCID", 0, least=0)
    if rank < tasks and (node := optional("SLURM_NODEID", rank // local, least=0)) != rank // local:
        raise InputError(
            f"SLURM_NODEID={node}: with SLURM_PROCID={rank} and {local} tasks on each node accepted is "
            f"{rank // local}, as srun --distribution=block has it"
        )
    attempt = "_".join(number_of(name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
    return Launch("SLURM_STEP_NUM_TASKS", tasks, rank, optional("SLURM_LOCALID", rank % local, least=0), local, attempt)


def check_even(part: str, size: int, whole: str, total: int) -> None:
    """Raises an InputError unless ``total`` is a multiple of ``size``: each host has as many processes."""
    if total % size:
        raise InputError(f"{part}={size}: with {whole}={total} accepted is as many processes on each host")


def first_host(nodes: str) -> str:
    """Returns the first host of a list as SLURM writes it, like ``a[03-05,07],b`` or ``gpu[1-2]-ib``."""
    name = re.sub(r"((?:[^,\[]|\[[^\]]*\])*).*", r"\1", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", name)


def number_of(name: str) -> str:
    """Returns a variable that is a number in a launcher's words; "0" where it is not set."""
    text = os.environ.get(name, "0")
    return text if is_whole(text) else "0"


def optional(name: str, default: int, least: int) -> int:
    """Returns what ``count`` does, and ``default`` where the variable is not set."""
    return count(name, least) if name in os.environ else default


def count(name: str, least: int) -> int:
    """Returns a variable as a number; raises an InputError unless it is a whole one from ``least``."""
    text = os.environ[name]
    if not (is_whole(text) and int(text) >= least):
        raise InputError(f"{name}={text}: in the environment, accepted is a whole number from {least}")
    return int(text)


def check_rank() -> None:
    """Raises an InputError unless the process is one of those that were launched: else nobody would be the first."""
    ranks = {name: count(name, least=0) for name in RANKS if name in os.environ}
    if not (found := launched()):
        return
    total = found.variable
    own = {"LOCAL_RANK": found.local_rank, "RANK": found.rank} if "LOCAL_RANK" in ranks else {}
    own |= {"SLURM_PROCID": found.rank} if not own else {}
    for name, rank in own.items():
        if rank >= found.processes:
            counted = f"{total}={found.processes}" if total in os.environ else f"{total} is not set"
            raise InputError(
                f"{name}={os.environ.get(name, rank)}: in the environment, where {counted}; accepted is a number below "
                f"that of the processes, which their launcher sets; without a launcher, unset {name}"
            )
    missing = [name for name in MEETING if name not in os.environ]
    if "LOCAL_RANK" in ranks and found.processes > 1 and missing:
        raise InputError(
            f"LOCAL_RANK={os.environ['LOCAL_RANK']}: in the environment, with {total}={found.processes} but without "
            f"{missing[0]}, which a launcher of several processes sets; without a launcher, unset LOCAL_RANK"
        )


def is_first_process() -> bool:
    """Tells the process that speaks and writes, on whatever host it is, from the others of a distributed run."""
    try:
        found = launched()
    except InputError:  # which ``check_rank`` tells
        return True
    return found is None or found.rank == 0


def endangers_the_first() -> bool:
    """Tells whether the first process may be killed for the exit code of this one: by Lightning, or by srun."""
    if "LOCAL_RANK" not in os.environ:
        return "SLURM_STEP_NUM_TASKS" in os.environ
    return "NODE_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ


def is_whole(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None
