"""A sweep's jobs and their results in one table."""

import csv
from pathlib import Path

import torch
import yaml

from handgrad.cli.endings import sum_up
from handgrad.runs.checkpoint import WholeCheckpointIO
from handgrad.runs.sweep import read_jobs
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
