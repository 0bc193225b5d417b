"""``curves.csv``: whole or absent, and the same bytes however often the run was killed."""

import errno

import pytest
import torch

from handgrad.errors import InputError
from handgrad.loggers import curve_file
from handgrad.loggers.curve_file import CurveFile

BOTH = torch.tensor([True, True])
HEAD = "step,l2,metric,value\n"


def begun(folder) -> CurveFile:
    file = CurveFile(folder / "curves.csv", [0, 0.5])
    file.resume(0)
    return file


def block(file: CurveFile, first: int, running: torch.Tensor = BOTH) -> None:
    file.log_path(first, {"loss/train": torch.tensor([[first, -first], [first + 0.5, 0.1]])}, running)


def test_a_row_for_each_point_of_the_classifiers_that_run(tmp_path):
    file = begun(tmp_path)
    block(file, 1)
    file.log_path(2, {"loss/val": torch.tensor([[0.1, 9.0]], dtype=torch.float64)}, torch.tensor([True, False]))
    file.finish()
    rows = [
        "1,0.0,loss/train,1.0",
        "2,0.0,loss/train,1.5",
        "1,0.5,loss/train,-1.0",
        "2,0.5,loss/train,0.10000000149011612",
    ]
    assert (tmp_path / "curves.csv").read_text() == HEAD + "\n".join([*rows, "2,0.0,loss/val,0.1\n"])
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]


@pytest.mark.parametrize("torn", [b"", b"5,0.0,loss/tr", b"5,0.0,loss/train,5.0\n"])
@pytest.mark.parametrize("name", ["curves.csv", "curves.csv.part"])
def test_what_is_behind_the_checkpoint_is_cut_off(name, torn, tmp_path):
    """Killed while it was written, or stopped in order, which gives the file its name."""
    file = begun(tmp_path)
    block(file, 1)
    size = file.save()
    block(file, 3)
    file.finish()
    whole = (tmp_path / "curves.csv").read_bytes()
    (tmp_path / "curves.csv").rename(tmp_path / name)
    (tmp_path / name).write_bytes(whole[:size] + torn)
    again = CurveFile(tmp_path / "curves.csv", [0, 0.5])
    again.resume(size)
    assert not (tmp_path / "curves.csv").exists(), "it is not whole"
    block(again, 3)
    again.finish()
    assert (tmp_path / "curves.csv").read_bytes() == whole


def test_without_what_the_checkpoint_counts_it_begins_anew(tmp_path):
    (tmp_path / "curves.csv.part").write_text("half")
    file = CurveFile(tmp_path / "curves.csv", [0, 0.5])
    file.resume(500)
    block(file, 3)
    file.finish()
    assert (tmp_path / "curves.csv").read_text().startswith(f"{HEAD}3,0.0,")


def test_many_points_do_not_wait_for_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(curve_file, "BUFFERED", 100)
    file = begun(tmp_path)
    for first in range(1, 100, 2):
        block(file, first)
        assert file.waiting <= 100
    file.finish()
    assert (tmp_path / "curves.csv").read_text().count("\n") == 201


def test_a_full_disk_is_one_line_and_leaves_whole_rows(tmp_path, monkeypatch):
    file = begun(tmp_path)
    block(file, 1)
    size = file.save()
    block(file, 3)

    class Full:
        def __init__(self, *_: object) -> None:
            self.file = open(tmp_path / "curves.csv.part", "r+b")  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.seek(size)
            self.file.write(content[:10])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(curve_file, "open", Full, raising=False)
    with pytest.raises(InputError, match=r"curves\.csv\.part: curves not written \(No space left on device\)"):
        file.save()
    assert (tmp_path / "curves.csv.part").stat().st_size == size
