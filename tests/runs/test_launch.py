"""How many processes were launched and which one this is, by what launchers put into the environment."""

import pytest

from handgrad.cli.configuration import check
from handgrad.errors import InputError
from handgrad.files import locked
from handgrad.runs.launch import MEETING, RANKS, check_rank, is_first_process, launched

NAMES = (*RANKS, *MEETING, "WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
SEVERAL = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1234"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Sets the variables that are given, and no other of those that count."""

    def environment(**variables: str) -> None:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    environment()
    return environment


@pytest.mark.parametrize(
    ("variables", "found", "first"),
    [
        ({}, None, True),
        ({"WORLD_SIZE": "4"}, None, True),  # some clusters set it for everything
        ({"LOCAL_RANK": "0", **SEVERAL}, ("WORLD_SIZE", 2), True),
        ({"LOCAL_RANK": "1", **SEVERAL}, ("WORLD_SIZE", 2), False),
        ({"LOCAL_RANK": "01", **SEVERAL}, ("WORLD_SIZE", 2), False),
        ({"LOCAL_RANK": "0"}, ("WORLD_SIZE", 1), True),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "1"}, ("WORLD_SIZE", 1), True),
        ({"LOCAL_RANK": "00", "WORLD_SIZE": "01"}, ("WORLD_SIZE", 1), True),  # numbers, not text
        ({"RANK": "1", "SLURM_PROCID": "1", "JSM_NAMESPACE_RANK": "1"}, None, True),  # of nobody that we know
        ({"SLURM_STEP_NUM_TASKS": "3"}, ("SLURM_STEP_NUM_TASKS", 3), True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None, True),
        ({"SLURM_STEP_NUM_TASKS": "01"}, None, True),
    ],
)
def test_what_launchers_tell(variables, found, first, environment):
    environment(**variables)
    assert (launched(), is_first_process()) == (found, first)
    check_rank()


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
    ],
)
def test_a_process_that_nobody_launched_is_refused(variables, told, environment):
    environment(**variables)
    with pytest.raises(InputError, match=f"^{told}"):
        check_rank()


@pytest.mark.parametrize(
    ("words", "accepted"),
    [
        ([], False),
        (["trainer.devices=2", "trainer.strategy=ddp"], True),
        (["trainer.devices=[0,1]", "trainer.strategy=ddp"], True),
        (["trainer.devices=3", "trainer.strategy=ddp"], False),
        (["trainer.devices=auto"], False),
    ],
)
def test_those_that_are_launched_train_together(words, accepted, environment, composed):
    environment(LOCAL_RANK="0", **SEVERAL)
    cfg = composed(*words)
    if accepted:
        check(cfg)
    else:
        with pytest.raises(
            InputError, match=r"2 processes were launched \(WORLD_SIZE\).*accepted is trainer.devices=2 "
        ):
            check(cfg)


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("words", [(), ("hydra.run.dir=outputs/run",), ("-m", "l2=0,1")], ids=str)
def test_a_launch_that_does_not_match_leaves_nothing(words, rank, environment, command, tmp_path):
    environment(LOCAL_RANK=rank, **SEVERAL)
    ended = command("epochs=1", *words)
    assert ended.code == 1
    assert ended.err.count("error: ") == (rank == "0"), "the first one tells"
    assert not [path for path in tmp_path.glob("outputs/**/*") if path.is_file() or path.name == "run"]
    assert not list(tmp_path.glob("outputs/*/*"))


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
