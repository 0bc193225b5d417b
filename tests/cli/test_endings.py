"""How a run ends: what is told, what is left of its folder, and the command that goes on."""

import logging
import shlex
import signal

import pytest
import yaml
from omegaconf import OmegaConf

from handgrad.cli import endings
from handgrad.cli.endings import SweepEnd, failures, forget_sweep, one_run, owning, sweeping, tell_stopped
from handgrad.errors import GradientError, InputError
from handgrad.runs.folder import FAILED, LAST, LOG, RESULTS, WORDS, RunFolder
from handgrad.runs.signals import Interrupted
from handgrad.runs.sweep import SWEEP, read_jobs

GOOD = b"val_loss,val_accuracy\n0.5,0.5\n"
LINE = "lr=0: accepted is a number > 0"


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No failure and no sweep before and after; this is the first process; the log stays open and as loud as it was."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    level = logging.getLogger().level
    for known in (failures, sweeping):
        known.clear()
    yield
    owning.close()
    logging.getLogger().setLevel(level)
    for known in (failures, sweeping):
        known.clear()


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "run").mkdir(parents=True)
    return RunFolder(tmp_path / "outputs" / "run")


def save(run: RunFolder) -> None:
    (run.path / LAST).parent.mkdir()
    (run.path / LAST).touch()


# --- one run ---------------------------------------------------------------------------------------------------------


def test_a_run_that_ends_well_leaves_its_folder_free(run, caplog):
    with one_run(run), pytest.raises(InputError, match="a run is under way there"), run.owned():
        pass
    with run.owned():
        pass
    assert failures == []
    assert caplog.records == []
    assert not (run.path / FAILED).exists()


def test_the_users_error_leaves_a_line_and_no_folder(run, caplog):
    with one_run(run):
        run.begin({}, [], None)
        (run.path / LOG).touch()
        raise InputError(LINE)
    assert failures == [LINE]
    assert [record.getMessage() for record in caplog.records] == [f"error: {LINE}"]
    assert not run.path.exists()


def test_what_has_come_of_a_run_stays(run):
    save(run)
    with one_run(run):
        raise InputError(LINE)
    assert failures == [LINE]
    assert run.has_checkpoint
    assert (run.path / FAILED).read_text() == f"{LINE}\n"


def test_in_a_sweep_the_reason_stays(run, caplog):
    with one_run(run, of_sweep=True):
        raise InputError(LINE)
    assert failures == [LINE]
    assert [record.getMessage() for record in caplog.records] == [f"error: run: {LINE}"]
    assert (run.path / FAILED).read_text() == f"{LINE}\n"
    with run.owned():
        pass


@pytest.mark.parametrize("of_sweep", [False, True])
def test_notes_are_told_below_the_line_and_the_line_alone_is_the_reason(of_sweep, run, caplog):
    error = GradientError("weight: zero")
    error.add_note("    see there")
    error.add_note("  loss: right")
    with one_run(run, of_sweep):
        raise error
    named = "run: " if of_sweep else ""
    assert [record.getMessage() for record in caplog.records] == [
        f"error: {named}weight: zero\n    see there\n  loss: right"
    ]
    assert failures == ["weight: zero"]
    assert run.failure() == ("weight: zero" if of_sweep else None)


@pytest.mark.parametrize("of_sweep", [False, True])
def test_a_strangers_error_is_remembered_with_its_traceback(of_sweep, run, caplog):
    with one_run(run, of_sweep):
        raise ZeroDivisionError("a mistake")
    (told,) = failures
    assert told.startswith("Traceback (most recent call last):\n")
    assert "in test_a_strangers_error_is_remembered" in told
    assert told.endswith("\nZeroDivisionError: a mistake")
    assert caplog.records[0].getMessage() == f"error: {'run: ' if of_sweep else ''}{told}"
    assert (run.path / FAILED).read_text() == f"{told}\n"


def test_an_error_after_the_results_does_not_make_them_a_failure(run):
    with one_run(run, of_sweep=True):
        (run.path / RESULTS).write_bytes(GOOD)
        raise InputError(LINE)
    assert failures == [LINE]
    assert not (run.path / FAILED).exists()


@pytest.mark.parametrize("of_sweep", [False, True])
def test_what_is_refused_because_of_earlier_results_is_told_to_the_sweep_alone(of_sweep, run):
    """In a parallel sweep the folder is all that the first process sees of it; a run by itself has its exit code."""
    (run.path / RESULTS).write_bytes(GOOD)
    with one_run(run, of_sweep):
        raise InputError(LINE)
    assert failures == [LINE]
    assert run.failure() == (LINE if of_sweep else None)
    assert run.has_results


def test_an_occupied_folder_is_left_alone(run):
    with run.owned(), pytest.raises(InputError, match="outputs/run: a run is under way there"), one_run(run):
        pytest.fail("two runs in one folder")
    assert failures == []
    assert run.path.is_dir()
    assert not (run.path / FAILED).exists()


def test_an_interruption_passes_and_names_the_folder_of_what_is_saved(run):
    stop = Interrupted(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught, one_run(run):
        raise stop
    assert caught.value is stop
    assert stop.folder is None  # nothing is saved
    save(run)
    with pytest.raises(Interrupted), one_run(run):
        raise stop
    assert stop.folder == run.path
    assert failures == []
    assert not (run.path / FAILED).exists()


# --- a further process of a distributed run --------------------------------------------------------------------------


def test_a_second_process_is_silent_about_the_users_error(run, monkeypatch, caplog, capfd):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with run.owned(), one_run(run):  # the first process owns the folder
        logging.getLogger("handgrad").warning("a further process's warning")
        raise InputError(LINE)
    assert failures == [LINE]  # its exit code
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert run.path.is_dir()
    assert not (run.path / FAILED).exists()


def test_a_second_process_tells_what_is_its_own(run, monkeypatch, caplog):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with one_run(run):
        raise ZeroDivisionError("a mistake")
    assert caplog.records[0].getMessage().endswith("ZeroDivisionError: a mistake")
    assert (run.path / FAILED).read_text().endswith("ZeroDivisionError: a mistake\n")


# --- stopped ---------------------------------------------------------------------------------------------------------


def test_stopped_before_a_run(capsys):
    tell_stopped(Interrupted(signal.SIGTERM))
    assert capsys.readouterr() == ("", "\nStopped by SIGTERM before a run began\n")


@pytest.mark.parametrize("results", [False, True])
def test_stopped_in_a_run_without_checkpoints(results, run, capsys):
    """Whether its training had begun nobody knows: true is what is said of both."""
    if results:
        (run.path / RESULTS).write_bytes(GOOD)
    with pytest.raises(Interrupted) as caught, one_run(run):
        raise Interrupted(signal.SIGTERM)
    tell_stopped(caught.value)
    said = "after the results were saved" if results else "in a run, of which no weights are saved"
    assert capsys.readouterr() == ("", f"\nStopped by SIGTERM {said}\n")


def test_stopped_in_training(run, capsys):
    tell_stopped(Interrupted(signal.SIGINT, run.path, "112 updates"))
    assert capsys.readouterr().err == (
        "\nStopped by SIGINT after 112 updates; all is saved. Go on with:\n  python train.py resume=outputs/run\n"
    )


def test_stopped_between_two_saves(run, capsys):
    tell_stopped(Interrupted(signal.SIGINT, run.path))
    assert capsys.readouterr().err == ("\nStopped by SIGINT. Go on with:\n  python train.py resume=outputs/run\n")


def test_a_folder_with_a_space_is_quoted(tmp_path, capsys):
    tell_stopped(Interrupted(signal.SIGINT, tmp_path / "my run"))
    assert shlex.split(capsys.readouterr().err.splitlines()[-1]) == ["python", "train.py", f"resume={tmp_path}/my run"]


def test_a_stopped_sweep_names_what_is_left_and_how_to_go_on(tmp_path, capsys):
    task = ["experiment=report_l2", "l2=0,[0,1]", "lr=0.1,0.2"]
    hydra = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=outputs/x", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": {"task": task, "hydra": hydra}}}))
    for number, (l2, lr) in enumerate((("0", "0.2"), ("[0,1]", "0.1"))):
        job = RunFolder(tmp_path / str(number))
        job.begin({}, ["experiment=report_l2", f"lr={lr}", f"l2={l2}"], number)
    (tmp_path / "0" / RESULTS).write_bytes(GOOD)
    (tmp_path / "1" / RESULTS).write_bytes(GOOD[:-4])
    sweeping.append(tmp_path)
    tell_stopped(Interrupted(signal.SIGTERM))
    assert capsys.readouterr().err == (
        "\nStopped by SIGTERM. Runs of the sweep that have not finished:\n"
        "  experiment=report_l2 l2=0 lr=0.1\n"
        "  experiment=report_l2 l2=[0,1] lr=0.1\n"
        "  experiment=report_l2 l2=[0,1] lr=0.2\n"
        "Go on with:\n"
        "  python train.py -m experiment=report_l2 'l2=0,[0,1]' lr=0.1,0.2 "
        "hydra/launcher=joblib hydra.launcher.n_jobs=2 resume=true\n"
    )


@pytest.mark.parametrize("name", [WORDS, SWEEP], ids=str)
def test_a_stopped_sweep_with_a_damaged_file_names_it(name, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    words = {"hydra": {"overrides": {"task": ["seed=1,2"], "hydra": []}}}
    (tmp_path / SWEEP).write_text(yaml.safe_dump(words))
    RunFolder("1").begin({}, ["seed=1"], 0)
    (tmp_path / "1" / RESULTS).write_bytes(GOOD)
    damaged = tmp_path / SWEEP if name == SWEEP else tmp_path / "1" / WORDS
    damaged.write_text("[")
    sweeping.append(tmp_path)
    tell_stopped(Interrupted(signal.SIGTERM))
    told = [*caplog.messages, *capsys.readouterr().err.splitlines()]
    assert sum(f"{RunFolder(damaged)}: damaged" in line for line in told) == 1
    assert any("Stopped by SIGTERM" in line for line in told)
    assert ("  seed=1" in told) == (name == WORDS), "who knows what has come of it? It is done again"


# --- the beginning of a sweep ----------------------------------------------------------------------------------------


def begin(folder, *words: str) -> None:
    config = {"hydra": {"sweep": {"dir": str(folder)}, "overrides": {"task": list(words)}}}
    SweepEnd().on_multirun_start(OmegaConf.create(config))


@pytest.mark.parametrize("held", ["a run", "a sweep"])
def test_a_sweep_that_is_refused_writes_nothing_and_ends_the_program(held, tmp_path, capsys):
    """By an exit: of an error in a callback Hydra makes a warning."""
    folder = tmp_path / "sweep"
    if held == "a run":
        RunFolder(folder).begin({}, ["seed=5"], None)
    else:
        begin(folder, "seed=1,2")
        capsys.readouterr()
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        begin(folder, "seed=1,2")
    told = "holds a run already; accepted is" if held == "a run" else "a run or a sweep is under way there"
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: hydra.sweep.dir={folder}: {told}")
    assert sorted(folder.rglob("*")) == before
    assert len(sweeping) == (held == "a sweep")


def test_a_sweep_owns_its_folder_to_its_end(sweep, run):
    folder = RunFolder(run.path.parent)
    with pytest.raises(InputError, match="a run is under way there"), folder.owned():
        pytest.fail("a run in a sweep's folder")
    sweep()
    with folder.owned():
        pass


@pytest.mark.parametrize("left", [(), ("multirun.yaml",), ("multirun.yaml", "seed=1")])
def test_a_sweep_whose_words_are_refused_leaves_nothing(left, tmp_path):
    begin(tmp_path / "sweep", "seed=1,2")
    for name in left:
        (tmp_path / "sweep" / name).touch()
    forget_sweep()
    assert (tmp_path / "sweep").exists() == (len(left) == 2)
    assert sweeping == []
    with RunFolder(tmp_path / "sweep").owned():
        pass


# --- the end of a sweep ----------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(run, monkeypatch):
    """Begins a sweep in ``outputs``; returns what ends it."""
    run.path.rmdir()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(run.path.parent)}, "overrides": {"task": ["seed=1,2"]}}})
    end = SweepEnd()
    end.on_multirun_start(config)
    assert sweeping == [run.path.parent]
    run.path.mkdir()
    monkeypatch.setattr(endings, "sum_up", lambda folder: f"the table of {folder.name}")
    return lambda: end.on_multirun_end(config)


def test_a_sweep_ends_with_its_table(sweep, capsys):
    sweep()
    assert capsys.readouterr() == ("\nthe table of outputs\nFiles: outputs\n", "")
    assert failures == sweeping == []


def test_a_sweep_names_its_failed_runs_by_the_last_line_of_the_reason(sweep, run, capsys):
    run.fail("Traceback:\n  a line\nZeroDivisionError: a mistake")
    sweep()
    assert failures == ["run"]
    assert capsys.readouterr().err == "failed: run: ZeroDivisionError: a mistake\n"


def job(run: RunFolder, name: str, results: bytes | None) -> RunFolder:
    job = RunFolder(run.path.parent / name)
    job.begin({}, [f"seed={name}"], 0)
    if results is not None:
        (job.path / RESULTS).write_bytes(results)
    return job


LEFT = {
    "nothing": (None, None),
    "an empty table": (b"", None),
    "half a table": (GOOD[:10], None),
    "other bytes": (b"\xff\n", None),
    "a cell too many": (b"val_loss,val_accuracy\n0.5,0.5,0.5\n", None),
    "a reason": (None, LINE),
    "results of other settings": (GOOD, LINE),
}


@pytest.mark.parametrize(("results", "told"), LEFT.values(), ids=LEFT)
def test_a_sweep_with_a_failed_job_has_failed_whatever_process_the_job_was_in(results, told, sweep, run, capsys):
    """Processes of other launchers keep their list of failures to themselves."""
    run.path.rmdir()
    job(run, "1", GOOD)
    bad = job(run, "2", results)
    if told:
        bad.fail(told)
    sweep()
    assert failures == ["2"]
    assert capsys.readouterr().err == f"failed: 2: {told or 'no readable results'}\n"
    assert [found.status for found in read_jobs(run.path.parent)] == ["ok", "failed"]


def test_a_job_that_could_not_write_anything_has_failed(sweep, run, capsys):
    with run.owned():
        pass
    sweep()
    assert (failures, capsys.readouterr().err) == (["run"], "failed: run: no readable results\n")


def test_a_table_that_cannot_be_made_is_a_failure(sweep, monkeypatch, capsys):
    def broken(folder):
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(endings, "sum_up", broken)
    sweep()
    assert failures[0].endswith("ZeroDivisionError: a mistake")
    assert capsys.readouterr().err == f"error: {failures[0]}\n"
