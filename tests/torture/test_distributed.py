"""Several processes train as one does with the same mini-batches, and end together, however they end."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from handgrad.cli.configuration import CONF
from handgrad.files import locked
from tests.conftest import DATA
from tests.test_train import scalars
from tests.torture.processes import group_members, launch, read_until
from tests.torture.trials import state_digest

SOFTMAX = ("experiment=report_l2", "l2=[0,0.2,2]", "epochs=3", "patience=4", "lr=0.002", "optimizer.momentum=0.9")
LOGISTIC = ("experiment=report_logistic", "epochs=2")
CASES = {
    "path, uneven shares, shuffled": (2, (*SOFTMAX, "data.shuffle=true", "batch_size=127")),
    "logistic, uneven shares, in order": (2, (*LOGISTIC, "data.shuffle=false", "batch_size=127")),
    "equal shares, penalized bias": (2, (*LOGISTIC, "batch_size=128", "l2=0.5", "data.shuffle=true")),
    "adam, three processes": (3, ("experiment=report_softmax", "optimizer=adam", "lr=0.001", "epochs=1", "l2=[0,1]")),
}
LONG = ("experiment=report_softmax", "epochs=200", "data.shuffle=true", "batch_size=127", "threads=1")
LONG += ("callbacks.checkpoint.every_seconds=0", "trainer.devices=2", "trainer.strategy=ddp")


def long_form(*cases: tuple) -> list:
    return [pytest.param(*case, marks=pytest.mark.torture) for case in cases]


EXACT = ("data.train_size=4000", "optimizer=exact", "optimizer.tolerance=1e-12", "l2=[0.2,2]", "threads=1")
EXACT += ("callbacks.figures=null", "logger=none")
ONE_OF_EACH = [(rank, number) for rank in (0, 1) for number in (signal.SIGTERM, signal.SIGUSR1)]
SLURM_TASKS = [(2, 1), *long_form((1, 0), (2, 0), (3, 2))]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def curves(run: Path) -> Path:
    """Returns the folder with the curves of a run's last classifier."""
    return max(run.glob("l2=*"), default=run)


@pytest.fixture
def distributed(start):
    """Starts a run's processes as Lightning does; returns them."""

    def distributed(processes: int, run: str, *words: str) -> list:
        words = (*words, f"trainer.devices={processes}", "trainer.strategy=ddp", "threads=1", f"hydra.run.dir={run}")
        place = {
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(free_port()),
            "NODE_RANK": "0",
            "WORLD_SIZE": str(processes),
        }
        programs = []
        for rank in range(processes):
            programs.append(start(*words, **place, LOCAL_RANK=str(rank)))
        return programs

    return distributed


@pytest.mark.parametrize(("processes", "words"), CASES.values(), ids=CASES)
def test_the_weights_are_those_of_one_process(processes, words, start, distributed, tmp_path):
    one = start(*words, "hydra.run.dir=outputs/one")
    programs = distributed(processes, "outputs/several", *words)
    for program in (one, *programs):
        code, told = program.end()
        assert code == 0, told
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (
            torch.load(tmp_path / "outputs" / run / "checkpoints" / name, weights_only=True)["state_dict"]
            for run in ("several", "one")
        )
        for key in theirs:
            assert torch.allclose(ours[key], theirs[key], rtol=0, atol=1e-6), key
        assert torch.equal(ours["steps"], theirs["steps"])
    assert {path.name for path in (tmp_path / "outputs/several").iterdir() if "tfevents" not in path.name} == {
        path.name for path in (tmp_path / "outputs/one").iterdir() if "tfevents" not in path.name
    }
    for tag in ("loss/train", "loss/val"):
        ours, theirs = (scalars(curves(tmp_path / "outputs" / run), tag) for run in ("several", "one"))
        assert ours == pytest.approx(theirs, rel=1e-5)
    events = [[len(list(folder.glob("*tfevents*")))] for folder in (tmp_path / "outputs/several").glob("**/l2=*")]
    assert all(count == [1] for count in events), "the first process alone writes"
    assert [program.told.read_text() for program in programs[1:]] == [""] * (processes - 1)


def test_a_distributed_run_is_stopped_and_goes_on(tmp_path, start):
    """The command itself, which starts its second process: both end on a signal, and both go on."""
    process = launch(tmp_path, *LONG, "hydra.run.dir=outputs/run")
    told = read_until(process, "Training from update 1 of")
    process.terminate()
    told += process.communicate()[1]
    assert process.returncode == 143, told
    assert group_members(process.pid) == {}
    assert "Traceback" not in told
    assert re.search(r"Stopped by SIGTERM after \d+ updates; all is saved", told)
    assert "python train.py resume=outputs/run" in told
    checkpoint = tmp_path / "outputs/run/checkpoints/last.ckpt"
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    process = launch(tmp_path, "resume=latest")
    told = read_until(process, f"Training from update {step + 1} of")
    process.send_signal(signal.SIGINT)
    told += process.communicate()[1]
    assert process.returncode == 130, told
    assert group_members(process.pid) == {}
    assert torch.load(checkpoint, weights_only=True)["global_step"] > step
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["run"]


@pytest.mark.torture
def test_a_failed_save_ends_all_processes(tmp_path):
    process = launch(tmp_path, *LONG, "logger=none", "hydra.run.dir=outputs/run")
    told = read_until(process, "Training from update 1 of")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
    told += process.communicate()[1]
    assert process.returncode == 1, told
    assert [line for line in told.splitlines() if line.startswith("error: ")] == [told.splitlines()[-1]]
    assert "checkpoint not saved" in told
    assert group_members(process.pid) == {}


@pytest.mark.torture
@pytest.mark.parametrize("victim", ["first", "second"])
def test_a_killed_process_takes_the_others_with_it(victim, tmp_path):
    process = launch(tmp_path, *LONG, "epochs=2000", "hydra.run.dir=outputs/run")
    read_until(process, "Training from update 1 of")
    if victim == "first":
        process.kill()
    else:
        (second,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(second), signal.SIGKILL)
    told = process.communicate()[1]  # ends when no process has the pipe any more
    if victim == "second":
        assert (process.returncode, len(errors(told))) == (1, 1), told
        assert re.search(r"^error: process 1 on \S+ is lost: ", errors(told)[0]), told
    assert group_members(process.pid) == {}


# --- torchrun ---------------------------------------------------------------------------------------------------------

SHORT = ("experiment=report_softmax", "epochs=3", "data.shuffle=true", "batch_size=127", "threads=1", "l2=[0,0.1]")
SHORT += ("callbacks.checkpoint.every_seconds=0", "callbacks.figures=null")
FIXED = "hydra.run.dir=outputs/run"


def torchrun(folder: Path, *words: str, options: tuple[str, ...] = ("--nproc-per-node", "2")) -> subprocess.Popen:
    """Starts ``torchrun … train.py`` in ``folder``, in a process group of its own."""
    if not (folder / "data").exists():
        (folder / "data").symlink_to(DATA)
    program = [sys.executable, "-m", "torch.distributed.run", *options, CONF.parent / "train.py", *words]
    return subprocess.Popen(
        program,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def of_hosts(port: int, rank: int) -> tuple[str, ...]:
    """Returns torchrun's options for one of two hosts, which are one machine here."""
    place = ("--master-addr", "127.0.0.1", "--master-port", str(port))
    return ("--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1", *place)


def workers(agent: subprocess.Popen) -> dict[int, int]:
    """Returns the ids of torchrun's workers by their rank; they are no part of its group."""
    found = {}
    for process in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
        variables = Path(f"/proc/{process}/environ").read_text().split("\0")
        found |= {int(text.partition("=")[2]): int(process) for text in variables if text.startswith("RANK=")}
    return found


def are_gone(processes: dict[int, int]) -> bool:
    return not any(Path(f"/proc/{process}").exists() for process in processes.values())


def errors(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[Path, str]:
    """The run of ``SHORT`` on two processes, which nothing disturbs: its folder, and what was said."""
    place = tmp_path_factory.mktemp("unbroken")
    process = torchrun(place, *SHORT)
    told = process.communicate()[1]
    assert process.returncode == 0, told
    (folder,) = place.glob("outputs/*/*")
    return folder, told


def test_two_workers_of_torchrun_are_one_run(unbroken, command, tmp_path):
    """Without trainer.devices, and without a folder's name: one folder, one that speaks, the weights of one process."""
    folder, told = unbroken
    assert told.count("Training from") == told.count("Loading torch") == 1
    assert (folder / "train.log").read_text().count("Training from") == 1
    assert [len(list(place.glob("*tfevents*"))) for place in folder.glob("l2=*")] == [1, 1]
    assert command(*SHORT, "hydra.run.dir=outputs/one").code == 0
    assert_same_weights(folder, tmp_path / "outputs/one")


@pytest.mark.torture
@pytest.mark.parametrize("words", [SHORT, EXACT], ids=["sgd", "exact"])
def test_two_hosts_are_one_run(words, command, tmp_path):
    port = free_port()
    hosts = [torchrun(tmp_path, *words, options=of_hosts(port, rank)) for rank in (0, 1)]
    told = [host.communicate()[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], told
    (folder,) = tmp_path.glob("outputs/*/*")
    assert "Training from" in told[0]
    assert "Training" not in told[1] + str(errors(told[1]))
    assert command(*words, "hydra.run.dir=outputs/one").code == 0
    # A solver that ends by its proof may need an iteration more, and an unpenalized bias is told to no more than 1e-5.
    assert_same_weights(folder, tmp_path / "outputs/one", ending="weight" if words is EXACT else "")


def assert_same_weights(several: Path, one: Path, ending: str = "") -> None:
    """Compares two runs' weights, biases and steps to 1e-6, or what of them has a name with that ending."""
    for name in ("last.ckpt", "best.ckpt"):
        found, expected = (
            torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"] for run in (several, one)
        )
        for key in (key for key in expected if key.endswith(ending)):
            assert (found[key] - expected[key]).abs().max() < 1e-6, key


@pytest.mark.torture
@pytest.mark.parametrize(("rank", "number"), ONE_OF_EACH)
def test_a_signal_to_any_worker_saves_all_and_the_restart_goes_on(rank, number, command, tmp_path, unbroken):
    """torchrun starts the very same command again, which goes on by itself, bit for bit."""
    process = torchrun(tmp_path, *SHORT, FIXED, options=("--nproc-per-node", "2", "--max-restarts", "1"))
    told = read_until(process, "Training from update 1 of")
    before = workers(process)
    os.kill(before[rank], number)
    told += process.communicate()[1]
    assert process.returncode == 0, told
    (stopped,) = re.findall(rf"Stopped by {number.name} after (\d+) updates; all is saved", told)
    assert f"Training from update {int(stopped) + 1} of" in told
    assert (errors(told), are_gone(before)) == ([], True)
    assert state_digest(tmp_path / "outputs/run") == state_digest(unbroken[0])


@pytest.mark.torture
def test_a_signal_to_torchrun_saves_and_the_same_command_goes_on(command, tmp_path, unbroken):
    process = torchrun(tmp_path, *SHORT, FIXED)
    told = read_until(process, "Training from update 1 of")
    before = workers(process)
    process.terminate()
    told += process.communicate()[1]
    assert "Stopped by SIGTERM after" in told
    assert "python train.py resume=outputs/run" in told
    assert are_gone(before)
    other = torchrun(tmp_path, *SHORT, FIXED, options=("--nproc-per-node", "3"))
    assert "error: outputs/run: begun by 2 processes on 1 hosts, and now there are 3 on 1" in other.communicate()[1]
    again = torchrun(tmp_path, "resume=outputs/run")
    told = again.communicate()[1]
    assert again.returncode == 0, told
    assert state_digest(tmp_path / "outputs/run") == state_digest(unbroken[0])
    finished = torchrun(tmp_path, *SHORT, FIXED)
    assert "outputs/run has finished already" in finished.communicate()[1]
    assert finished.returncode == 0


@pytest.mark.slow
def test_whoever_fails_ends_all_with_one_line(tmp_path):
    """The folder is in use, as the first process alone can see."""
    with locked(tmp_path / "outputs/run/.lock"):
        process = torchrun(tmp_path, *SHORT, FIXED)
        told = process.communicate()[1]
    assert (process.returncode, errors(told)) == (1, ["error: outputs/run: a run is under way there"])


@pytest.mark.torture
def test_a_host_that_lacks_the_data_ends_all(tmp_path):
    port, other = free_port(), tmp_path / "other"
    other.mkdir()
    (other / "data").mkdir()
    hosts = [torchrun(place, *SHORT, options=of_hosts(port, rank)) for rank, place in enumerate((tmp_path, other))]
    told = [host.communicate()[1] for host in hosts]
    assert [host.returncode for host in hosts] == [1, 1]
    assert [len(errors(text)) for text in told] == [1, 0], told
    assert errors(told[0])[0].startswith(f"error: process 1 on {socket.gethostname()}: data/MNIST/raw: no such folder")
    assert not list(tmp_path.glob("outputs/*/*_*")), "nothing is left of it"


# --- SLURM, by its variables ------------------------------------------------------------------------------------------


def step(tasks: int, job: int) -> dict[str, str]:
    """Returns what srun sets for all tasks of a step on one node; ``job`` is of nobody else here."""
    told = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": tasks, "SLURM_STEP_NUM_NODES": 1}
    told |= {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_NAME": "probe"}
    told |= {"SLURM_NTASKS": tasks, "SLURM_NNODES": 1, "SLURM_NODEID": 0}
    return {name: str(value) for name, value in told.items()}


def tasks_of(start, number: int, job: int, *words: str) -> list:
    return [
        start(*words, **step(number, job), SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(number)
    ]


@pytest.mark.parametrize(("tasks", "rank"), SLURM_TASKS)
def test_sigusr1_under_slurm_requeues_and_the_job_goes_on(tasks, rank, start, tmp_path, monkeypatch):
    """No file of Lightning's is written, and the results are those of a run that nothing disturbs."""
    asked = tmp_path / "bin" / "asked"
    asked.parent.mkdir()
    (asked.parent / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    (asked.parent / "scontrol").chmod(0o755)
    job, path = free_port(), f"{asked.parent}:{os.environ['PATH']}"
    unbroken = [program.end() for program in tasks_of(start, tasks, job, *SHORT, "hydra.run.dir=outputs/unbroken")]
    assert [code for code, _ in unbroken] == [0] * tasks, unbroken
    programs = [
        start(*SHORT, FIXED, **step(tasks, job), PATH=path, SLURM_PROCID=str(number), SLURM_LOCALID=str(number))
        for number in range(tasks)
    ]
    programs[0].wait_until(lambda: "Training from update 1 of" in programs[0].told.read_text())
    os.kill(programs[rank].process.pid, signal.SIGUSR1)
    ended = [program.end() for program in programs]
    assert [code for code, _ in ended] == [128 + signal.SIGUSR1, *[0] * (tasks - 1)], (
        ended
    )  # for srun may kill by those
    assert ended[0][1].endswith(f"The job is requeued: scontrol requeue {job}\n")
    assert [told for _, told in ended[1:]] == [""] * (tasks - 1)
    assert asked.read_text() == f"requeue {job}\n"
    again = [program.end() for program in tasks_of(start, tasks, job, *SHORT, FIXED)]
    assert [code for code, _ in again] == [0] * tasks, again
    assert state_digest(tmp_path / "outputs/run") == state_digest(tmp_path / "outputs/unbroken")
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("told")} == {"bin", "data", "outputs"}


# --- what is refused --------------------------------------------------------------------------------------------------


def test_mini_batches_too_small_to_share_are_refused(command):
    ended = command("trainer.devices=4", "batch_size=3")
    assert ended.code == 1
    assert "error: batch_size=3: accepted with 4 processes is that or more" in ended.err


def test_other_ways_to_distribute_are_refused(command):
    ended = command("trainer.devices=2", "trainer.strategy=ddp_spawn")
    assert ended.code == 1
    assert "error: trainer.strategy=ddp_spawn: accepted is auto or ddp" in ended.err
