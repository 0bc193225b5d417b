"""How many processes were launched and which one this is, by what launchers put into the environment."""

import pytest

from handgrad.cli.configuration import check
from handgrad.errors import InputError
from handgrad.files import locked
from handgrad.runs import meeting
from handgrad.runs.launch import (
    MEETING,
    RANKS,
    Launch,
    check_rank,
    endangers_the_first,
    first_host,
    is_first_process,
    launched,
)

OTHERS = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
OTHERS += ("TORCHELASTIC_USE_AGENT_STORE",)
SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_STEP_TASKS_PER_NODE", "SLURM_LOCALID", "SLURM_NODEID")
SLURM += ("SLURM_STEP_NODELIST", "SLURM_STEP_ID", "SLURM_JOB_ID", "SLURM_RESTART_COUNT")
NAMES = (*RANKS, *MEETING, *OTHERS, *SLURM)
SEVERAL = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}  # nobody listens there
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "RANK": "5", "LOCAL_RANK": "2"}
TORCHRUN |= {"GROUP_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "2", "MASTER_ADDR": "a", "MASTER_PORT": "7"}
STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
STEP |= {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "2",
}
STEP |= {"SLURM_STEP_NODELIST": "gpu[03,05]"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Sets the variables that are given, and no other of those that count."""

    def environment(**variables: str) -> None:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    environment()
    monkeypatch.setattr(meeting, "LINGER", 0.1)
    monkeypatch.setattr("handgrad.cli.together.LAST_WORDS", 0.1)
    yield environment
    meeting.leave()


@pytest.mark.parametrize(
    ("variables", "found", "first"),
    [
        ({}, None, True),
        ({"WORLD_SIZE": "4"}, None, True),  # some clusters set it for everything
        ({"LOCAL_RANK": "0", **SEVERAL}, Launch("WORLD_SIZE", 2, 0, 0, 2), True),
        ({"LOCAL_RANK": "1", **SEVERAL}, Launch("WORLD_SIZE", 2, 1, 1, 2), False),
        ({"LOCAL_RANK": "01", **SEVERAL}, Launch("WORLD_SIZE", 2, 1, 1, 2), False),
        ({"LOCAL_RANK": "0"}, Launch("WORLD_SIZE", 1), True),
        ({"LOCAL_RANK": "00", "WORLD_SIZE": "01"}, Launch("WORLD_SIZE", 1), True),  # numbers, not text
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "RANK": "0", **SEVERAL}, Launch("WORLD_SIZE", 2, 1, 1, 2), False),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "RANK": "1", **SEVERAL}, Launch("WORLD_SIZE", 2, 1), False),
        (TORCHRUN, Launch("WORLD_SIZE", 6, 5, 2, 3, "2"), False),
        (TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0"}, Launch("WORLD_SIZE", 6, 0, 0, 3, "2"), True),
        (TORCHRUN | {"RANK": "3", "LOCAL_RANK": "0"}, Launch("WORLD_SIZE", 6, 3, 0, 3, "2"), False),  # another host's
        (TORCHRUN | {"NODE_RANK": "7"}, Launch("WORLD_SIZE", 6, 5, 2, 3, "2"), False),  # anybody's
        ({"RANK": "1", "SLURM_PROCID": "1", "JSM_NAMESPACE_RANK": "1"}, None, True),  # of nobody that we know
        ({"SLURM_STEP_NUM_TASKS": "3"}, Launch("SLURM_STEP_NUM_TASKS", 3, 0, 0, 3, "0_0_0"), True),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None, True),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}, None, True),  # a job's script without srun
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_STEP_NUM_TASKS": "01"}, None, True),
        (STEP, Launch("SLURM_STEP_NUM_TASKS", 4, 3, 1, 2, "1234567_2_0"), False),
        (STEP | {"SLURM_RESTART_COUNT": "1"}, Launch("SLURM_STEP_NUM_TASKS", 4, 3, 1, 2, "1234567_2_1"), False),
        (STEP | TORCHRUN, Launch("WORLD_SIZE", 6, 5, 2, 3, "2"), False),  # torchrun in a step is torchrun
    ],
)
def test_what_launchers_tell(variables, found, first, environment):
    environment(**variables)
    assert (launched(), is_first_process()) == (found, first)
    check_rank()


def test_hosts_and_where_all_meet(environment):
    environment(**TORCHRUN)
    found = launched()
    assert (found.nodes, found.node_rank, found.place(), found.served) == (2, 1, ("a", 7), False)
    environment(**TORCHRUN, TORCHELASTIC_USE_AGENT_STORE="True")
    assert found.served
    environment(**STEP)
    found = launched()
    host, port = found.place()
    assert (found.nodes, found.node_rank, host, found.served) == (2, 1, "gpu03", False)
    assert 15_000 <= port < 30_000
    environment(**STEP | {"SLURM_STEP_ID": "3"})
    assert found.place()[1] != port, "two steps of a job may begin on one host"
    environment(**STEP, MASTER_ADDR="b", MASTER_PORT="9")
    assert found.place() == ("b", 9)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("a[03-05,07],b", "a03"),
        ("gpu[1-2]-ib", "gpu1-ib"),
        ("x-[7,9]", "x-7"),
        ("c-1[2,4]", "c-12"),
    ],
)
def test_the_first_host_of_a_list_of_slurms(nodes, first):
    assert first_host(nodes) == first


def test_lightning_and_srun_may_kill_the_first_process_for_the_exit_code_of_another_one(environment):
    environment(LOCAL_RANK="1", NODE_RANK="0", **SEVERAL)
    assert endangers_the_first()
    environment(**TORCHRUN, NODE_RANK="0")
    assert not endangers_the_first()
    environment(**STEP)
    assert endangers_the_first()


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1: in the environment, where WORLD_SIZE is not set; .* unset LOCAL_RANK"),
        ({"LOCAL_RANK": "2", "WORLD_SIZE": "2"}, "LOCAL_RANK=2: in the environment, where WORLD_SIZE=2; accepted is"),
        ({"LOCAL_RANK": "0", "RANK": "5", "WORLD_SIZE": "4"}, "RANK=5: in the environment, where WORLD_SIZE=4"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK=first: in the environment, accepted is a whole number from 0"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK=: in the environment, accepted is a whole number from 0"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0: in the environment, accepted is a whole number from 1"),
        ({"SLURM_STEP_NUM_TASKS": "x"}, "SLURM_STEP_NUM_TASKS=x: in the environment"),
        ({"RANK": ""}, "RANK=: in the environment, accepted is a whole number from 0"),
        ({"SLURM_PROCID": "x"}, "SLURM_PROCID=x: in the environment, accepted is a whole number from 0"),
        (STEP | {"SLURM_PROCID": "4"}, "SLURM_PROCID=4: in the environment, where SLURM_STEP_NUM_TASKS=4"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "4"}, "LOCAL_WORLD_SIZE=4: with WORLD_SIZE=6 accepted is as many processes"),
        (STEP | {"SLURM_STEP_NUM_NODES": "3"}, "SLURM_STEP_NUM_NODES=3: with SLURM_STEP_NUM_TASKS=4 accepted is as"),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "1,3"}, "SLURM_STEP_TASKS_PER_NODE=1,3: accepted are as many tasks on"),
    ],
)
def test_a_process_that_nobody_launched_is_refused(variables, told, environment):
    environment(**variables)
    with pytest.raises(InputError, match=f"^{told}"):
        check_rank()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ""),
        (["trainer.devices=auto", "trainer.num_nodes=1"], ""),
        (["trainer.devices=2", "trainer.strategy=ddp"], ""),
        (["trainer.devices=[0,1]"], ""),
        (["trainer.devices=3"], "trainer.devices=3"),
        (["trainer.devices=1"], "trainer.devices=1"),
        (["trainer.num_nodes=2"], "trainer.num_nodes=2"),
    ],
)
def test_those_that_are_launched_train_together(words, told, environment, composed):
    environment(LOCAL_RANK="0", **SEVERAL)
    cfg = composed(*words)
    if told:
        with pytest.raises(InputError, match=rf"^{told}: 2 processes were launched \(WORLD_SIZE\), 2 per host; "):
            check(cfg)
    else:
        check(cfg)
        assert (cfg.trainer.devices, cfg.trainer.num_nodes) in ((2, 1), ([0, 1], 1))


def test_hosts_that_nobody_launched_are_refused(composed):
    with pytest.raises(
        InputError, match=r"^trainer.num_nodes=2: this process was launched alone; accepted .* torchrun"
    ):
        check(composed("trainer.num_nodes=2"))
    check(cfg := composed())
    assert (cfg.trainer.devices, cfg.trainer.num_nodes) == (1, 1)


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("words", [("trainer.devices=3",), ("-m", "l2=0,1"), ("epoch=1",)], ids=str)
def test_a_launch_that_does_not_match_leaves_nothing(words, rank, environment, command, tmp_path):
    environment(LOCAL_RANK=rank, **SEVERAL | {"MASTER_PORT": "0" if rank == "0" else "1"})
    ended = command(*words, "trainer.peer_timeout=1")
    assert ended.code == 1
    assert ended.err.count("error: ") == (rank == "0"), "the first one tells"
    assert not list(tmp_path.glob("outputs/*/*"))


def test_the_first_process_that_waits_in_vain_says_so(environment, command, tmp_path):
    environment(LOCAL_RANK="0", **SEVERAL | {"MASTER_PORT": "0"})
    ended = command("trainer.peer_timeout=1", "hydra.run.dir=outputs/run")
    assert (ended.code, ended.err) == (1, "error: in 1 s (trainer.peer_timeout) these processes have not come: 1\n")
    assert not (tmp_path / "outputs/run").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("missing", [(), *MEETING, MEETING], ids=str)
def test_several_processes_that_cannot_meet_are_no_launch(missing, rank, environment):
    environment(LOCAL_RANK=rank, **{name: text for name, text in SEVERAL.items() if name not in missing})
    if missing:
        with pytest.raises(InputError, match=f"^LOCAL_RANK={rank}: .*with WORLD_SIZE=2 but without MASTER_.*unset"):
            check_rank()
    else:
        check_rank()


STRAY = [{"LOCAL_RANK": "1"}, {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, {"LOCAL_RANK": "01", "WORLD_SIZE": "4"}]


@pytest.mark.parametrize("variables", STRAY, ids=str)
def test_a_stray_rank_is_refused_by_whatever_process_has_it(variables, environment, command, tmp_path):
    environment(**variables)
    ended = command("epochs=1")
    assert (ended.code, ended.err.count("error: ")) == (1, 1)
    assert f"error: LOCAL_RANK={variables['LOCAL_RANK']}: " in ended.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("rank", ["0", "00"])
def test_the_first_process_owns_its_folder_however_its_number_is_written(rank, environment, command, tmp_path):
    environment(LOCAL_RANK=rank, WORLD_SIZE="1")
    with locked(tmp_path / "outputs/run/.lock"):
        ended = command("experiment=report_logistic", "epochs=1", "hydra.run.dir=outputs/run")
    assert (ended.code, ended.err.splitlines()[-1]) == (1, "error: outputs/run: a run is under way there")
