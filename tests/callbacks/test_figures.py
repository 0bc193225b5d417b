"""What a run leaves of the choice and of the chosen classifier, in its folder and in TensorBoard."""

import csv

import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from handgrad.callbacks.figures import Figures, pictures
from handgrad.loggers.tensorboard import TensorBoardPathLogger
from tests.test_choice import fitted

NAMES = {"validation_curve", "confusion", "reliability"}


def test_they_lie_in_the_folder_and_in_tensorboard(tmp_path):
    logger = TensorBoardPathLogger(tmp_path, [0.1, 0.01])
    result = fitted(callbacks=[Figures()], folder=tmp_path, logger=logger, l2=(0.1, 0.01))
    assert {path.stem for path in tmp_path.glob("*.png")} == NAMES
    events = EventAccumulator(str(tmp_path), {"images": 0}).Reload()
    assert set(events.Tags()["images"]) >= NAMES
    for name in NAMES:
        (image,) = events.Images(name)
        with Image.open(tmp_path / f"{name}.png") as file:
            assert (image.width, image.height) == file.size
    with open(tmp_path / "per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["left", "right", "top"]
    assert {row["set"] for row in rows} == {"test"}
    confusion = result.chosen.report.confusion
    assert [int(row["samples"]) for row in rows] == confusion.sum(1).tolist()
    assert [float(row["recall"]) for row in rows] == (confusion.diag() / confusion.sum(1)).tolist()


def test_a_single_value_has_no_curve_and_what_is_no_probability_no_calibration(tmp_path):
    chosen = fitted(l2=(0.1,)).chosen
    assert pictures(chosen, [0.1], [0, 1, 2]).keys() == NAMES - {"validation_curve"}
    object.__setattr__(chosen.report, "calibration", None)
    assert pictures(chosen, [0.1], [0, 1, 2]).keys() == {"confusion"}
    Figures().draw(chosen, [0.1], [0, 1, 2], None, None)


def test_what_is_not_defined_is_empty(tmp_path):
    chosen = fitted(l2=(0.1,)).chosen
    object.__setattr__(chosen.report, "confusion", torch.tensor([[3.0, 0, 0], [1.0, 0, 0], [0, 0, 0]]))
    Figures().draw(chosen, [0.1], ["a", "b", "c"], tmp_path, None)
    lines = (tmp_path / "per_class.csv").read_text().splitlines()
    assert lines[0] == "set,class,samples,recall,precision,f1"
    assert lines[2:] == ["test,b,1,0.0,,0.0", "test,c,0,,,"]
