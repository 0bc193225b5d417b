"""A sweep's jobs and their results in one table."""

import csv
import itertools
import os
from pathlib import Path

import pytest
import torch
import yaml

from handgrad.cli.endings import sum_up
from handgrad.errors import InputError
from handgrad.runs.checkpoint import WholeCheckpointIO
from handgrad.runs.folder import LAST, LOCK, RESULTS, WORDS, RunFolder
from handgrad.runs.results import as_csv, read_results
from handgrad.runs.sweep import SWEEP, accuracy_on_test, latest_sweep, owned, read_jobs, started_with
from tests.report.conftest import write_results


def write_job(sweep: Path, number: int, overrides: list[str], failed: bool = False, l2: float = 0.0) -> Path:
    folder = sweep / ",".join(overrides)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"job": {"num": number}}}))
    if not failed:
        write_results(folder, [l2], 240)
        state = {"weight": torch.linspace(-1, 1, 10 * 784).view(1, 10, 784)}
        WholeCheckpointIO().save_checkpoint({"state_dict": state}, folder / "checkpoints" / "best.ckpt")
    return folder


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def begun(folder: Path, *words: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    given = {"hydra": {"overrides": {"task": list(words), "hydra": ["hydra.mode=MULTIRUN"]}}}
    (folder / SWEEP).write_text(yaml.safe_dump(given))


def touched(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def torn(sweep: Path) -> None:
    (sweep / SWEEP).write_bytes((sweep / SWEEP).read_bytes()[:20])


def of(job: Path, *words: str) -> None:
    RunFolder(job).begin({}, ["task=softmax", *words], 0)


WORDS_OF_IT = ("task=softmax", "seed=1,2")
STRANGE = {
    "a run's words": (lambda x: touched(x / WORDS), "holds a run already"),
    "a run's checkpoint": (lambda x: touched(x / LAST), "holds a run already"),
    "a run's results": (lambda x: touched(x / RESULTS), "holds a run already"),
    "a run in a sweep": (lambda x: (begun(x, *WORDS_OF_IT), touched(x / WORDS)), "holds a run already"),
    "another sweep": (lambda x: begun(x, "task=softmax", "seed=3"), "holds another sweep already"),
    "another sweep, of whose file there is half": (
        lambda x: (begun(x), torn(x), of(x / "job", "seed=3")),
        "holds another sweep already",
    ),
    "a larger sweep": (lambda x: begun(x, "task=softmax", "seed=1,2,3"), "holds another sweep already"),
    "runs": (lambda x: touched(x / "run" / WORDS), "holds other runs already"),
    "a run that has just begun": (lambda x: touched(x / "run" / LOCK), "holds other runs already"),
    "sweeps": (lambda x: begun(x / "sweep", *WORDS_OF_IT), "holds other runs already"),
    "a sweep around it": (lambda x: begun(x.parent, *WORDS_OF_IT), "lies in the folder of another sweep"),
}
ITS_OWN = {
    "nothing": lambda x: None,
    "an empty folder": lambda x: x.mkdir(),
    "a note": lambda x: touched(x / "notes.txt"),
    "the same sweep": lambda x: begun(x, *WORDS_OF_IT),
    "the same sweep, ended": lambda x: (begun(x, *WORDS_OF_IT), touched(x / RESULTS), touched(x / "job" / WORDS)),
    "the same sweep, of whose file there is half": lambda x: (begun(x), torn(x), of(x / "job", "seed=2")),
    "the same sweep, of which there is half a file alone": lambda x: (begun(x), torn(x), touched(x / "job" / WORDS)),
    "a part of it": lambda x: begun(x, "seed=2", "task=softmax"),
}


@pytest.mark.parametrize(("make", "told"), STRANGE.values(), ids=STRANGE)
def test_a_sweep_leaves_a_folder_of_others_alone(make, told, tmp_path):
    make(tmp_path / "outputs" / "x")
    before = files(tmp_path)
    with pytest.raises(InputError) as caught, owned(tmp_path / "outputs" / "x", WORDS_OF_IT):
        pytest.fail("two in one folder")
    accepted = "accepted is a new folder, or that of a sweep with the same words"
    assert str(caught.value) == f"hydra.sweep.dir={tmp_path}/outputs/x: {told}; {accepted}"
    assert files(tmp_path) == before


@pytest.mark.parametrize("make", ITS_OWN.values(), ids=ITS_OWN)
def test_a_sweep_owns_its_folder(make, tmp_path):
    folder = tmp_path / "x"
    make(folder)
    with owned(folder, WORDS_OF_IT):
        before = files(tmp_path)
        with pytest.raises(InputError, match=r"x: a run or a sweep is under way there$"), owned(folder, WORDS_OF_IT):
            pytest.fail("two sweeps in one folder")
        assert files(tmp_path) == before
    with owned(folder, WORDS_OF_IT):
        pass


HALF = "hydra: {overrides: {hydra: [], task: [task=softmax, 'seed=[1']}}"


def test_a_sweep_with_a_link_out_of_its_folder_is_refused(tmp_path):
    begun(tmp_path / "x", *WORDS_OF_IT)
    (tmp_path / "x" / "job").symlink_to(tmp_path)
    with (
        pytest.raises(InputError, match=r"x/job: leads to .*; accepted are links that stay in "),
        owned(tmp_path / "x", WORDS_OF_IT),
    ):
        pytest.fail("a sweep that writes elsewhere")


@pytest.mark.parametrize("content", ["", "[", "hydra: 5", "hydra: {overrides: {task: 5, hydra: []}}", "a: b", HALF])
def test_a_damaged_description_of_a_sweep_is_one_line_and_is_passed_over(content, tmp_path, caplog):
    begun(tmp_path / "whole", *WORDS_OF_IT)
    begun(tmp_path / "damaged", *WORDS_OF_IT)
    (tmp_path / "damaged" / SWEEP).write_text(content)
    os.utime(tmp_path / "whole" / SWEEP, (1000, 1000))
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / SWEEP).symlink_to("nowhere")
    assert latest_sweep(tmp_path, WORDS_OF_IT) == tmp_path / "whole"
    assert f"{tmp_path}/damaged/multirun.yaml: damaged, or no description of a sweep; passed over" in caplog.messages
    with pytest.raises(InputError, match=r"damaged/multirun\.yaml: damaged, or no description of a sweep"):
        started_with(tmp_path / "damaged")


def test_one_table_holds_every_job_the_failed_one_too(sweep):
    printed = sum_up(sweep).splitlines()
    with open(sweep / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok"]
    assert [row["l2"] for row in rows] == ["0.0", "0.002", "0.02", "2.0"]
    assert rows[3]["val_accuracy"] == "0.92"
    assert rows[2]["val_accuracy"] == ""
    assert [line.split()[0] for line in printed] == ["job", "l2=0", "l2=0.002", "l2=0.02", "l2=2"]
    assert printed[3].split() == ["l2=0.02", "failed"]
    assert printed[4].split() == ["l2=2", "240", "210", "2.3100", "0.9200", "0.6667"]
    assert len({line.rindex(line.split()[-1]) + len(line.split()[-1]) for line in printed if "failed" not in line}) == 1


def test_jobs_stand_in_the_order_of_the_sweep(tmp_path):
    for number, l2 in enumerate((10, 9, 2)):
        write_job(tmp_path, number, [f"l2={l2}"])
    assert [job.overrides["l2"] for job in read_jobs(tmp_path)] == [10, 9, 2]


def test_nothing_breaks_it(tmp_path):
    assert sum_up(tmp_path) == f"{tmp_path}: no jobs"
    write_job(tmp_path, 0, ["l2=1"], failed=True)
    assert sum_up(tmp_path).splitlines()[-1].split()[-1] == "failed"
    damaged = write_job(tmp_path, 1, ["l2=2"])
    (damaged / "checkpoints" / "best.ckpt").write_bytes(b"damaged")
    (damaged / ".hydra" / "hydra.yaml").unlink()
    half = write_job(tmp_path, 2, ["l2=3"])
    (half / "results.csv").write_text("")
    assert [job.status for job in read_jobs(tmp_path)] == ["failed", "failed", "ok"]
    sum_up(tmp_path)
    assert (tmp_path / "sweep.png").is_file()
    assert not (tmp_path / "weights.png").exists()


def test_a_job_whose_words_are_damaged_is_named_by_its_folder(sweep):
    damaged = sweep / "task=softmax,l2=2"
    (damaged / WORDS).write_text("- task=softmax\n-")
    lines = sum_up(sweep).splitlines()
    assert [line.split()[0] for line in lines] == ["job", "l2=0", "l2=0.002", "l2=0.02", "task=softmax,l2=2"]
    assert lines[-1].split()[-1] == "0.6667", "its results are no less"


def test_what_a_killed_sweep_was_writing_goes_with_the_next(tmp_path):
    touched(tmp_path / ".results.csv.4711.tmp")
    with owned(tmp_path, WORDS_OF_IT):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_of_files_the_selected_l2_alone_is_told(tmp_path):
    for number, name in enumerate(("a", "b")):
        folder = write_job(tmp_path, number, [f"data.train={name}.npz"])
        (folder / "results.csv").write_text(
            "l2,selected,val_loss,val_f1_macro,val_accuracy,test_accuracy,weight_norm_squared\n"
            f"1.0,false,0.25,0.5,0.95,0.55,1.0\n0.1,true,0.5,0.75,0.{number + 7},0.6{number},4.0\n"
        )
    heading, *lines = sum_up(tmp_path).splitlines()
    assert heading.split() == [
        "job",
        "l2",
        "val",
        "loss",
        "val",
        "f1",
        "macro",
        "val",
        "accuracy",
        "test",
        "accuracy",
        "‖w‖",
    ]
    assert [line.split() for line in lines] == [
        ["data.train=a.npz", "0.1", "0.5000", "0.7500", "0.7000", "0.6000", "2"],
        ["data.train=b.npz", "0.1", "0.5000", "0.7500", "0.8000", "0.6100", "2"],
    ]
    assert (tmp_path / "files.png").is_file()


def test_the_refitted_weights_are_tested_where_there_are_some():
    assert accuracy_on_test({"test_accuracy": 0.5}) == 0.5
    assert accuracy_on_test({"test_accuracy": 0.5, "refit_test_accuracy": 0.6}) == 0.6
    assert accuracy_on_test({"test_accuracy": None, "refit_test_accuracy": None}) is None


def test_over_seeds_there_are_mean_and_deviation(tmp_path):
    for number, (seed, l2) in enumerate(itertools.product((0, 1, 2), (0.1, 0.2))):
        folder = write_job(tmp_path, number, [f"seed={seed}", f"l2={l2}"], l2=l2)
        rows = read_results(folder / RESULTS)
        (folder / RESULTS).write_bytes(as_csv([row | {"val_accuracy": 0.5 + l2 + seed / 100} for row in rows]))
    lines = sum_up(tmp_path).split("\n\n")[-1].splitlines()
    assert lines[0].split()[:4] == ["over", "seeds", "l2", "runs"]
    assert "0.6100 ± 0.0100" in lines[1]
    assert lines[2].startswith("l2=0.2")
    assert "0.7100 ± 0.0100" in lines[2]
    assert len(lines) == 3
