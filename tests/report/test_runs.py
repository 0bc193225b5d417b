import pytest

from report import runs
from report.runs import COMMANDS, Command, CommandFailed, finished_jobs, perform, perform_all
from tests.report.conftest import write_command, write_run

ONE = Command("one", ("experiment=report_logistic", "threads=1"))
SWEEP = Command("swept", ("threads=1",), {"experiment": ("report_logistic",), "seed": ("0", "1")})


def test_command_lines():
    assert ONE.arguments("there") == ["experiment=report_logistic", "threads=1", "hydra.run.dir=there"]
    assert SWEEP.arguments("there") == [
        "-m",
        "experiment=report_logistic",
        "seed=0,1",
        "threads=1",
        "hydra.sweep.dir=there",
    ]
    assert SWEEP.jobs()[1] == {"experiment": "report_logistic", "seed": 1, "threads": 1}
    assert sum(len(command.jobs()) for command in COMMANDS) == 19


def test_the_optimum_is_asked_for_on_both_splits_at_every_l2_above_zero():
    jobs = [job for command in COMMANDS for job in command.jobs() if job.get("optimizer") == "exact"]
    assert [job["experiment"] for job in jobs] == ["course_l2", "report_l2"]
    assert all(job["l2"] == [0.002, 0.02, 0.2, 2] for job in jobs)


def test_a_run_is_finished_with_results_and_the_overrides_asked_for(tmp_path):
    assert finished_jobs(ONE, tmp_path) == [None]
    write_run(tmp_path, ONE.jobs()[0])
    assert finished_jobs(ONE, tmp_path) == [tmp_path]
    assert finished_jobs(Command("one", ("experiment=course_logistic", "threads=1")), tmp_path) == [None]
    (tmp_path / "results.csv").unlink()
    assert finished_jobs(ONE, tmp_path) == [None]


def test_the_jobs_of_a_sweep_are_found_by_their_overrides(tmp_path):
    write_run(tmp_path / "b", SWEEP.jobs()[1])
    assert finished_jobs(SWEEP, tmp_path) == [None, tmp_path / "b"]
    write_run(tmp_path / "a", SWEEP.jobs()[0])
    assert finished_jobs(SWEEP, tmp_path) == [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize("name", ["results.csv", ".hydra/overrides.yaml"])
def test_a_job_of_which_a_file_is_damaged_is_not_finished(name, tmp_path):
    for job, folder in zip(SWEEP.jobs(), "ab", strict=True):
        write_run(tmp_path / folder, job)
    (tmp_path / "a" / name).write_text("[")
    assert finished_jobs(SWEEP, tmp_path) == [None, tmp_path / "b"]


def test_overrides_are_compared_as_values(tmp_path):
    write_run(tmp_path, {"experiment": "course_l2", "data.shuffle": True, "l2": [0, 0.02]})
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- l2=[0,0.02]\n- experiment=course_l2\n- data.shuffle=True\n")
    command = Command("x", ("experiment=course_l2", "data.shuffle=true", "l2=[0, 0.02]"))
    assert finished_jobs(command, tmp_path) == [tmp_path]


def test_finished_runs_are_not_run_again(finished, monkeypatch):
    monkeypatch.setattr(runs, "call", lambda *_: pytest.fail("a finished run was started"))
    perform_all(finished / "runs")


def test_an_unfinished_run_starts_in_an_empty_folder(tmp_path, monkeypatch):
    write_command(ONE, tmp_path)
    (tmp_path / "one" / "results.csv").unlink()
    called = []

    def call(arguments, log):
        called.append(arguments)
        assert not (tmp_path / "one").exists()
        write_command(ONE, tmp_path)

    monkeypatch.setattr(runs, "call", call)
    perform_all(tmp_path, (ONE,))
    assert called == [["train.py", *ONE.arguments(tmp_path / "one")]]


def test_a_run_that_leaves_no_results_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "call", lambda *_: None)
    with pytest.raises(CommandFailed, match="not every run left its results"):
        perform(ONE, tmp_path)


def test_the_first_error_ends_it_all_and_names_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(Command, "arguments", lambda self, folder: ["--no-such-option"])
    with pytest.raises(CommandFailed, match=r"ended with status \d+; see .*one\.log"):
        perform_all(tmp_path, (ONE,))
    assert (tmp_path / "one.log").read_text()


def test_missing_weights_are_looked_at_without_training_again(tmp_path, monkeypatch):
    command = Command("path", ("experiment=report_l2",), weights=True)
    write_command(command, tmp_path)
    (tmp_path / "path" / "weights.npz").unlink()
    called = []
    monkeypatch.setattr(runs, "call", lambda arguments, log: called.append(arguments))
    perform_all(tmp_path, (command,))
    assert called == [["-m", "report.weights", str(tmp_path / "path")]]
