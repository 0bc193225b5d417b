"""How several processes begin and end as one, each with what it would do; the launches themselves: tests/torture."""

import json
import threading

import pytest
from torch.distributed import HashStore

from handgrad.cli.configuration import check, resolved
from handgrad.cli.together import FINISHED, NEW, SAVED, begin, folder_of_first, part
from handgrad.errors import InputError
from handgrad.runs import meeting
from handgrad.runs.folder import LAST, RunFolder
from handgrad.runs.launch import Launch
from handgrad.runs.meeting import Meeting
from handgrad.runs.signals import stopping


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    return RunFolder(tmp_path / "outputs" / "run")


@pytest.fixture
def among(monkeypatch):
    """Makes this process one of two that have met, or will."""
    store, watched, made = HashStore(), [], []
    ignoring: list[int] = []
    monkeypatch.setattr(stopping, "ignore", lambda: ignoring.append(1))  # signals are the tests' own

    def among(rank: int, seconds: float = 0.2) -> Meeting:
        launch = Launch("WORLD_SIZE", 2, rank, rank, 2)
        for name, value in {"LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(meeting, "current", [Meeting(launch, store, seconds)])
        monkeypatch.setattr(
            Meeting, "watch", lambda self: watched.append(self.launch.rank)
        )  # it would end this process
        made.append(meeting.current[0])
        meeting.current[0].watched, meeting.current[0].ignoring = watched, ignoring
        return meeting.current[0]

    yield among
    for one in made:
        one.peers.stop()


def saved(run: RunFolder, cfg) -> None:
    run.begin(resolved(cfg), [], None)
    (run.path / LAST).parent.mkdir()
    (run.path / LAST).touch()


def test_who_is_alone_begins_and_tells_nobody(run, composed):
    check(cfg := composed())
    assert begin(run, cfg)
    assert (folder_of_first(), part("an error"), meeting.current) == (None, "", [])


def test_the_first_one_tells_its_folder_when_all_are_there(run, composed, among):
    check(cfg := composed("trainer.peer_timeout=1"))
    first = among(0)
    check(cfg := composed("trainer.peer_timeout=1"))
    assert folder_of_first() is None
    with pytest.raises(InputError, match=r"^in 1 s \(trainer.peer_timeout\) these processes have not come: 1$"):
        begin(run, cfg)
    assert (first.store.check(["run"]), first.watched) == (False, [])
    second = Meeting(Launch("WORLD_SIZE", 2, 1, 1, 2), first.store, 1)
    second.tell("here/1", "")
    assert begin(run, cfg)
    assert json.loads(second.hear("run")) == [str(run.path), NEW]
    assert first.watched == [0]


def test_the_others_follow(run, composed, among, monkeypatch):
    other = among(1)
    check(cfg := composed("trainer.peer_timeout=1"))
    other.tell("run", json.dumps([str(run.path), NEW]))
    assert folder_of_first() == str(run.path)
    assert other.store.check(["here/1"])
    assert begin(run, cfg)
    assert other.watched == [1]
    saved(run, cfg)
    other.tell("run", json.dumps([str(run.path), SAVED]))
    assert begin(run, cfg)
    monkeypatch.setattr(RunFolder, "has_results", True)
    other.tell("run", json.dumps([str(run.path), FINISHED]))
    assert not begin(run, cfg), "there is nothing left to do"


@pytest.mark.parametrize("of_first", [NEW, FINISHED])
def test_hosts_that_see_different_folders_are_refused(of_first, run, composed, among):
    """Else one would train alone, or from another update than the others."""
    other = among(1)
    check(cfg := composed("trainer.peer_timeout=1"))
    saved(run, cfg)
    other.tell("run", json.dumps([str(run.path), of_first]))
    there = f"a run that can go on here, and {of_first} where the first process is"
    with pytest.raises(InputError, match=rf"^outputs/run: {there}; accepted is a folder that all hosts share$"):
        begin(run, cfg)


def test_a_refusal_of_the_first_is_that_of_all(composed, among):
    first = among(0)
    telling = threading.Thread(target=part, args=("outputs/run: a run is under way there",))
    telling.start()
    telling.join(0.01)
    among(1)
    with pytest.raises(InputError, match=r"^outputs/run: a run is under way there$"):
        folder_of_first()
    assert part("outputs/run: a run is under way there") == "outputs/run: a run is under way there"
    telling.join()
    assert (meeting.current, first.peers.is_alone()) == ([], True)
    assert first.ignoring == [1, 1], "who leaves is not cut"


@pytest.mark.parametrize("words", [("trainer.devices=2",), ("trainer.devices=[0,1]",)], ids=str)
def test_a_run_goes_on_with_as_many_processes_as_before(words, run, composed, among):
    check(cfg := composed())
    saved(run, cfg)
    assert begin(run, cfg)
    check(several := composed(*words))
    with pytest.raises(InputError, match=r"^outputs/run: begun by 1 processes on 1 hosts, and now there are 2 on 1; "):
        begin(run, several)
    assert meeting.current == [], "nobody was called"
    (run.path / ".hydra/config.yaml").write_text("[")  # for people
    assert begin(run, cfg)
