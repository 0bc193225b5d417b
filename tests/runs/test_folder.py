"""A run as a folder: one process at a time is in it, and what was written down when it began is read back."""

import os
import subprocess
import sys

import pytest
import yaml

from handgrad.errors import InputError
from handgrad.files import locked
from handgrad.runs.folder import CONFIG, FAILED, JOB, LAST, LOCK, LOG, RESULTS, WORDS, RunFolder, latest_run
from handgrad.runs.results import as_csv, shown

WHOLE = as_csv([{"task": "softmax", "selected": "true", "val_accuracy": 0.5}])
CONFIGURATION = {"l2": [0, 0.02], "lr": 1e-5, "data": {"split": "2024-13-45", "digits": None}, "ü": "null"}
TYPED = ["task=softmax", "l2=[0,0.02]", "lr=1e-5", "data.root='my data'"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    """A run that has begun, its path typed from the current folder."""
    monkeypatch.chdir(tmp_path)
    run = RunFolder("outputs/run")
    run.begin(CONFIGURATION, TYPED, 3)
    return run


def files(run: RunFolder) -> list[str]:
    return sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())


# --- who is in it ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("name", [LOCK, RESULTS, FAILED, LOG, CONFIG, WORDS, JOB, LAST])
def test_a_pipe_in_place_of_a_file_is_told_and_not_waited_for(name, run):
    path = run.path / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"{path.name}: no file, but a folder, a pipe or the like"), run.owned():
        pytest.fail("it is read")


def test_a_second_owner_is_refused_in_one_line(run):
    with run.owned():
        with pytest.raises(InputError) as refused, RunFolder(run.path.resolve()).owned():
            pytest.fail("two runs in one folder")
        assert str(refused.value) == "outputs/run: a run is under way there"
    with run.owned():
        pass


def test_a_second_process_is_refused(run):
    text = "import sys; from handgrad.runs.folder import RunFolder\nwith RunFolder(sys.argv[1]).owned(): print('in')"
    with run.owned():
        ended = subprocess.run([sys.executable, "-c", text, str(run.path)], capture_output=True, text=True)
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].endswith("InputError: outputs/run: a run is under way there")


def test_an_error_ends_the_ownership(run):
    with pytest.raises(KeyError), run.owned():
        raise KeyError
    with run.owned():
        pass


def test_the_folder_is_made_for_its_owner(tmp_path):
    with RunFolder(tmp_path / "a" / "b").owned():
        assert files(RunFolder(tmp_path)) == ["a/b/.lock"]


@pytest.mark.parametrize("name", ["checkpoints", "train.log", LOCK, "l2=0.0/deeper"])
def test_a_link_out_of_it_is_refused_before_anything_is_written(name, run, tmp_path):
    (tmp_path / "victim").mkdir()
    link = run.path / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "victim")
    with pytest.raises(InputError) as caught, run.owned():
        pytest.fail("a run that writes elsewhere")
    assert (
        str(caught.value)
        == f"outputs/run/{name}: leads to {tmp_path}/victim; accepted are links that stay in outputs/run"
    )
    assert not (run.path / LOCK).exists() or name == LOCK
    link.unlink()
    (run.path / "inside").symlink_to(run.path / CONFIG)
    with run.owned():
        pass


def test_it_is_named_as_the_user_would_type_it(tmp_path, monkeypatch):
    assert str(RunFolder(tmp_path / "run")) == str(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert str(RunFolder(tmp_path / "outputs" / "run")) == "outputs/run"
    assert str(RunFolder("outputs/run")) == "outputs/run"


# --- how it came about -----------------------------------------------------------------------------------------------


def test_what_was_written_down_is_read_back(run):
    assert files(run) == [".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"]
    assert run.config() == CONFIGURATION
    assert run.words() == TYPED
    assert run.overrides() == {"task": "softmax", "l2": [0, 0.02], "lr": 1e-5, "data.root": "my data"}
    assert run.job() == 3


def test_a_run_by_itself_has_no_number_and_may_have_no_words(run):
    run.begin({}, (), None)
    assert (run.config(), run.words(), run.overrides(), run.job()) == ({}, [], {}, None)


def test_the_configuration_is_in_the_order_in_which_it_was_given(run):
    assert list(run.config()) == list(CONFIGURATION)
    assert (run.path / CONFIG).read_text(encoding="utf-8").splitlines()[-1] == "ü: 'null'"


def test_words_that_yaml_takes_for_something_else_stay_words(run):
    (run.path / WORDS).write_text("- 5\n- task=softmax\n")
    assert run.words() == ["5", "task=softmax"]


def test_a_new_beginning_forgets_the_failure(run):
    run.fail("lr=0: accepted is a number > 0")
    assert (run.path / FAILED).read_text() == "lr=0: accepted is a number > 0\n"
    run.forget_failure()
    assert not (run.path / FAILED).exists()


READERS = {"config": (CONFIG, "configuration"), "words": (WORDS, "list of words"), "job": (JOB, "description")}


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_is_one_line(reader, run):
    name, _ = READERS[reader]
    (run.path / name).unlink()
    with pytest.raises(InputError) as caught:
        getattr(run, reader)()
    assert str(caught.value) == f"outputs/run/{name}: missing; accepted is the folder of a run that was started"


DAMAGED = {"half": b"[task", "bytes": b"\xff\xfe\x00", "zeros": b"\0" * 64, "code": b"!!python/name:os.system", "": b""}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [*DAMAGED.values(), b"5", b"text"], ids=[*DAMAGED, "number", "text"])
def test_a_damaged_or_foreign_file_is_one_line(reader, content, run):
    name, what = READERS[reader]
    (run.path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        getattr(run, reader)()
    assert str(caught.value) == f"outputs/run/{name}: damaged, or no {what} of a run"


def test_a_list_is_no_configuration_and_a_mapping_no_words(run):
    for name, content in ((CONFIG, TYPED), (JOB, TYPED), (WORDS, CONFIGURATION)):
        (run.path / name).write_text(yaml.safe_dump(content))
    for reader in READERS:
        with pytest.raises(InputError, match="damaged"):
            getattr(run, reader)()


def test_a_code_in_a_file_does_not_run(run, tmp_path):
    (run.path / CONFIG).write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']")
    with pytest.raises(InputError, match="damaged"):
        run.config()
    assert not (tmp_path / "ran").exists()


# --- what has come of it ---------------------------------------------------------------------------------------------


def test_what_a_run_has(run):
    def has() -> tuple[bool, bool, bool]:
        return run.has_words, run.has_checkpoint, run.has_results

    assert has() == (True, False, False)
    (run.path / LAST).parent.mkdir()
    (run.path / LAST).touch()
    assert has() == (True, True, False)
    (run.path / RESULTS).write_bytes(WHOLE)
    assert has() == (True, True, True)
    (run.path / WORDS).unlink()
    assert has() == (False, True, True)
    run = RunFolder("outputs/nowhere")
    assert has() == (False, False, False)


@pytest.mark.parametrize("name", [FAILED, RESULTS, LAST, "events.out.tfevents.1"])
def test_a_folder_is_empty_until_something_came_of_the_run(name, run):
    (run.path / LOG).touch()
    with run.owned():
        assert (run.path / LOCK).exists()
        assert run.is_empty
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).touch()
    assert not run.is_empty


def test_the_last_line_of_a_failure_tells_it(run):
    assert run.failure() is None
    run.fail("Traceback:\n  a line\nZeroDivisionError: a mistake")
    assert run.failure() == "ZeroDivisionError: a mistake"
    (run.path / FAILED).write_bytes(b"")
    assert run.failure() == ""


def test_results_are_read(run):
    (run.path / RESULTS).write_bytes(as_csv([{"task": "softmax", "val_loss": 0.25}]))
    (row,) = run.results()
    assert (row["task"], row["val_loss"], row["test_loss"]) == ("softmax", 0.25, None)


def test_results_that_cannot_be_read_are_an_error(run):
    with pytest.raises(FileNotFoundError):
        run.results()
    (run.path / RESULTS).write_bytes(b"task\n\xff\n")
    with pytest.raises(ValueError, match="utf-8"):
        run.results()
    (run.path / RESULTS).write_bytes(b"task,val_accuracy\nsoftmax,0.5,0.5\n")
    with pytest.raises(ValueError, match="more or fewer cells"):
        run.results()
    assert run.results_or_none() == []


@pytest.mark.parametrize("cut", range(0, len(WHOLE), 7))
def test_results_cut_anywhere_are_none(cut, run):
    (run.path / RESULTS).write_bytes(WHOLE[:cut])
    assert (run.has_results, run.has_damaged_results) == (False, True)


def test_results_without_the_selected_row_are_none(run):
    rows = [{"l2": l2, "selected": mark, "val_accuracy": 0.5} for l2, mark in ((0.0, "false"), (1.0, "true"))]
    (run.path / RESULTS).write_bytes(as_csv(rows))
    assert len(run.results_or_none()) == 2
    (run.path / RESULTS).write_bytes(as_csv(rows[:1]))
    assert run.has_damaged_results


@pytest.mark.parametrize("words", [TYPED[:1], [], ["task=logistic", *TYPED[1:]]])
def test_results_that_cannot_be_read_are_replaced_by_their_own_run_alone(words, run):
    """Where no checkpoint says whose they are its words do; without words they may be anybody's."""
    (run.path / RESULTS).write_bytes(WHOLE[:-1])
    run.begin(CONFIGURATION, TYPED[::-1], 3)
    before = files(run), (run.path / WORDS).read_bytes()
    with pytest.raises(InputError, match=r"^outputs/run/results\.csv: damaged, or no results of a run$"):
        run.begin(CONFIGURATION, words, 3)
    assert (files(run), (run.path / WORDS).read_bytes()) == before
    (run.path / WORDS).unlink()
    with pytest.raises(InputError, match=r"results\.csv: damaged"):
        run.begin(CONFIGURATION, TYPED, 3)


def test_what_a_killed_process_was_writing_goes_with_the_next(run):
    for folder in (".", ".hydra", "checkpoints"):
        (run.path / folder).mkdir(exist_ok=True)
        (run.path / folder / ".results.csv.4711.tmp").touch()
    (run.path / "notes.tmp").touch()
    with run.owned():
        assert files(run) == [".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", ".lock", "notes.tmp"]


SETTINGS = {"task": "softmax", "l2": [0.0, 2.0], "data.digits": None, "callbacks.early_stopping": None}


def finish(run: RunFolder, settings: dict) -> None:
    measured = {"classes": "0 1", "epoch": 1, "val_loss": 0.25, "val_accuracy": 0.5}
    run.path.mkdir(parents=True, exist_ok=True)
    (run.path / RESULTS).write_bytes(
        as_csv([{key: shown(value) for key, value in (settings | measured | {"l2": l2}).items()} for l2 in (0.0, 2.0)])
    )


def test_results_of_the_same_settings_are_the_results(run):
    finish(run, SETTINGS)
    assert [row["l2"] for row in run.results_of(SETTINGS)] == [0.0, 2.0]


@pytest.mark.parametrize("key", [key for key in SETTINGS if key != "l2"])
def test_a_setting_that_only_one_of_both_has_is_a_difference(key, run):
    """A callback is switched off by null, and is then a setting itself: on again, there is no such setting."""
    less = {name: value for name, value in SETTINGS.items() if name != key}
    value = shown(SETTINGS[key])
    finish(run, SETTINGS)
    with pytest.raises(InputError) as caught:
        run.results_of(less)
    assert str(caught.value) == f"{key}=(absent): outputs/run holds a run that finished with {key}={value}"
    finish(run, less)
    with pytest.raises(InputError) as caught:
        run.results_of(SETTINGS)
    assert str(caught.value) == f"{key}={value}: outputs/run holds a run that finished with {key}=(absent)"


# --- the latest ------------------------------------------------------------------------------------------------------


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Four stopped runs, ``outputs/<day>/0`` saved first, ``3`` last."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        run = RunFolder(tmp_path / "outputs" / f"day{number % 2}" / str(number))
        run.begin({}, [], None)
        (run.path / LAST).parent.mkdir()
        (run.path / LAST).touch()
        os.utime(run.path / LAST, (1000 + number, 1000 + number))
    return tmp_path / "outputs"


def test_the_latest_run_saved_its_state_last(outputs):
    assert latest_run(outputs).path == outputs / "day1" / "3"
    os.utime(outputs / "day0" / "0" / LAST, (2000, 2000))
    found = latest_run(outputs)
    assert (found.path, str(found)) == (outputs / "day0" / "0", "outputs/day0/0")
    with found.owned():  # nothing holds it any more
        pass


def test_finished_locked_and_wordless_runs_are_passed_over(outputs):
    (outputs / "day1" / "3" / RESULTS).write_bytes(WHOLE)
    (outputs / "day0" / "2" / WORDS).unlink()
    with locked(outputs / "day1" / "1" / LOCK):
        assert latest_run(outputs).path == outputs / "day0" / "0"
    assert latest_run(outputs).path == outputs / "day1" / "1"


@pytest.mark.parametrize("content", ["", "- task=softmax\n-", "- task=softmax\n- l2=[0,"])
def test_one_whose_words_are_damaged_is_told_and_passed_over(content, outputs, caplog):
    (outputs / "day1" / "3" / WORDS).write_text(content)
    assert latest_run(outputs).path == outputs / "day0" / "2"
    (told,) = caplog.messages
    assert told == "outputs/day1/3/.hydra/overrides.yaml: damaged, or no list of words of a run; passed over"


@pytest.mark.parametrize("name", ["outputs", "elsewhere"])
def test_without_any_it_is_one_line(name, outputs, tmp_path):
    for path in outputs.glob(f"*/*/{LAST}"):
        path.unlink()
    with pytest.raises(InputError) as caught:
        latest_run(tmp_path / name)
    assert str(caught.value) == f"resume=latest: no unfinished run with a checkpoint below {tmp_path / name}/"


def test_a_relative_path_will_do(outputs):
    assert latest_run(outputs.relative_to(outputs.parent)).path == outputs / "day1" / "3"
