"""The pictures of a sweep."""

import itertools
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from handgrad.cli.endings import sum_up
from handgrad.plots.sweep_pictures import (
    Weights,
    best_weights,
    draw_files,
    draw_sweep,
    draw_weights,
    evenly,
    names_of,
    write_pictures,
)
from handgrad.runs.checkpoint import WholeCheckpointIO
from handgrad.runs.folder import BEST
from handgrad.runs.sweep import Job, read_jobs, swept_keys
from tests.runs.test_sweep import write_job


def test_pictures_are_written_and_logged(sweep):
    sum_up(sweep)
    (events,) = sweep.glob("events.out.tfevents.*")
    logged = {}
    for event in LegacyEventFileLoader(str(events)).Load():
        logged |= {v.tag: (v.image.height, v.image.width) for v in event.summary.value if v.HasField("image")}
    for name in ("sweep", "weights"):
        with Image.open(sweep / f"{name}.png") as image:
            assert logged[name] == (image.height, image.width)


def test_one_swept_number_gets_an_axis_and_failed_jobs_a_cross(sweep):
    jobs = read_jobs(sweep)
    assert swept_keys(jobs) == ["l2"]
    upper, lower = draw_sweep(jobs, ["l2"]).axes
    assert lower.get_xscale() == "log"
    assert lower.get_xlabel() == "l2"
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["0", "0.002", "0.02", "2"]
    apart, points, line, best, failed = upper.lines
    zero, *others = points.get_xdata()
    assert 0 < zero < 0.001
    assert others == list(line.get_xdata()) == [0.002, 2], "no line leads to 0, which stands apart"
    assert list(failed.get_xdata()) == [0.02]
    assert points.get_xdata()[0] < apart.get_xdata()[0] == lower.lines[0].get_xdata()[0] < 0.002
    assert (best.get_marker(), best.get_label()) == ("*", "best val loss: l2=0")


def test_several_swept_keys_are_named(tmp_path):
    for number, task in enumerate(("softmax", "logistic")):
        write_job(tmp_path, number, [f"task={task}", f"lr=0.{number + 1}"])
    assert sum_up(tmp_path).splitlines()[2].startswith("task=logistic, lr=0.2")
    left, _ = draw_sweep(read_jobs(tmp_path), ["task", "lr"]).axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["task=softmax, lr=0.1", "task=logistic, lr=0.2"]


# --- parts of them ---------------------------------------------------------------------------------------------------


def job(name: str, overrides: dict, *rows: tuple[float, float]) -> Job:
    """A job with a row of results per ``(accuracy, squared norm)``."""
    results = [
        {"val_accuracy": a, "weight_norm_squared": squared, "l2": float(i)} for i, (a, squared) in enumerate(rows)
    ]
    return Job(Path(name), overrides, results)


def test_both_panels_show_what_was_measured():
    jobs = [job("a", {"lr": 2}, (0.8, 9.0)), job("b", {"lr": 1}, (0.9, 4.0))]
    upper, lower = draw_sweep(jobs, ["lr"]).axes
    for panel, measured in ((upper, [0.9, 0.8]), (lower, [2, 3])):
        assert list(panel.lines[0].get_xdata()) == [1, 2]  # in the order of the axis, not of the jobs
        assert list(panel.lines[0].get_ydata()) == list(panel.lines[1].get_ydata()) == measured
        assert panel.lines[1].get_linestyle() == "-"
        assert panel.get_legend() is None
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("Validation accuracy", "‖w‖")


def test_jobs_with_a_path_each_are_points_without_a_line():
    jobs = [job("a", {"lr": 1}, (0.8, 9.0), (0.7, 1.0)), job("b", {"lr": 2}, (0.9, 4.0), (0.6, 1.0))]
    upper, _ = draw_sweep(jobs, ["lr"]).axes
    assert list(upper.lines[0].get_xdata()) == [1, 1, 2, 2]
    assert [line.get_linestyle() for line in upper.lines] == ["None"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 19.9], "linear"), ([1, 20], "symlog"), ([0, 0.1, 1], "linear"), ([0, 0.1, 2], "symlog"), ([0, 0], "linear")],
)
def test_a_wide_range_gets_a_logarithmic_axis(values, scale):
    _, lower = draw_sweep([job(str(i), {"lr": lr}, (0.9, 1.0)) for i, lr in enumerate(values)], ["lr"]).axes
    assert lower.get_xscale() == scale


def test_over_seeds_there_are_points_mean_and_deviation():
    accuracies = {0.0: (0.5, 0.7), 0.1: (0.6, 0.9), 1.0: (0.8,)}
    jobs = [
        Job(Path("x"), {"l2": l2, "seed": seed}, [{"val_accuracy": a, "weight_norm_squared": 1.0, "val_loss": 1 - a}])
        for l2, found in accuracies.items()
        for seed, a in enumerate(found)
    ]
    upper, _ = draw_sweep(jobs, ["l2", "seed"]).axes
    _, means, line, *points, best = (line for line in upper.lines if line.get_marker() not in ("_", "|"))
    assert list(means.get_ydata()) == pytest.approx([0.6, 0.75, 0.8])
    assert list(line.get_ydata()) == pytest.approx([0.75, 0.8])
    assert [list(found.get_ydata()) for found in points[:2]] == [[0.5, 0.7], [0.6, 0.9]]
    (bars,) = upper.containers
    (segments,) = (found.get_segments() for found in bars.lines[2])
    assert [high - low for (_, low), (_, high) in segments] == pytest.approx([2 * 0.02**0.5, 2 * 0.045**0.5])
    assert best.get_label() == "best val loss: l2=1.0"
    assert list(best.get_ydata()) == [0.8], "by the mean, though one seed of l2=0.1 is better"


def test_paths_over_seeds_lie_along_their_l2():
    rows = [
        {"val_accuracy": 0.5, "weight_norm_squared": 1.0, "val_loss": loss, "l2": l2} for l2, loss in ((0.1, 2), (1, 1))
    ]
    upper, lower = draw_sweep(
        [Job(Path(s), {"seed": s}, rows) for s in "ab"] + [Job(Path("c"), {"seed": "c"}, [])], ["seed"]
    ).axes
    assert (lower.get_xscale(), lower.get_xlabel()) == ("log", "l2")
    assert list(upper.lines[0].get_xdata()) == [0.1, 1]
    assert "best val loss: l2=1" in [line.get_label() for line in upper.lines]


@pytest.mark.parametrize("values", [[True, False], ["a", "b"], [1, None], [[0], [1]]])
def test_what_is_no_number_is_named_from_top_to_bottom(values):
    jobs = [job(str(i), {"key": value}, (0.9, 4.0)) for i, value in enumerate(values)]
    left, right = draw_sweep([*jobs, job("2", {"key": "bad"})], ["key"]).axes
    names = [f"key={value}" for value in [*values, "bad"]]
    assert [tick.get_text() for tick in left.get_yticklabels()] == names
    assert left.get_ylim() == right.get_ylim() == (2.5, -0.5)
    for panel, label, measured in ((left, "Validation accuracy", 0.9), (right, "‖w‖", 2)):
        assert panel.get_xlabel() == label
        points, failed = panel.lines
        assert (list(points.get_xdata()), list(points.get_ydata())) == ([measured] * 2, [0, 1])
        assert list(failed.get_ydata()) == [2]


PATHS = [f"/home/someone/experiments/features/wordnet/minilm-l12-h384/layer{n:02d}/features_train.npz" for n in (1, 6)]
LONG = {
    "files": [{"data.train": path} for path in PATHS],
    "files and seeds": [{"data.train": path, "seed": seed} for path in PATHS for seed in (0, 1)],
    "shards": [{"data.train": [path, path.replace("train", "more")]} for path in PATHS],
    "names": [{"task": "a" * 90}, {"task": "b" * 60}],
    "names that differ in their midst": [{"task": f"{'a' * 60}{n}{'a' * 60}"} for n in range(2)],
    "one without words": [{}, {"task": "softmax"}, {"task": "logistic"}],
    "many": [{"epochs": n, "lr": n} for n in range(60)],
}


@pytest.mark.slow
@pytest.mark.parametrize("draw", [draw_sweep, draw_files])
@pytest.mark.parametrize("overrides", LONG.values(), ids=LONG)
def test_no_label_is_cut_and_none_covers_another(overrides, draw):
    jobs = [job(f"seed={i},{'folder' * 15}", given, (0.9, 1.0)) for i, given in enumerate(overrides)]
    jobs = [one._replace(results=[row | {"selected": "true"} for row in one.results]) for one in jobs]
    figure = draw(jobs, swept_keys(jobs))
    FigureCanvasAgg(figure).draw()  # of a figure that is too small for its labels matplotlib warns
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # both in inches
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.02
    names = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(lower.y1 <= upper.y0 + 1 for upper, lower in itertools.pairwise(names))


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (5, [0, 2, 4, 7, 9]), (10, [*range(10)])]
)
def test_evenly_spread_with_both_ends(count, chosen):
    assert evenly([*range(10)], count) == chosen


def test_fewer_than_asked_for_are_all():
    assert evenly(["a", "b"], 24) == ["a", "b"]
    assert evenly([], 24) == []


@pytest.mark.parametrize("shape", [(1, 10, 783), (10, 784)], ids=["no square", "no path"])
def test_weights_that_are_no_pictures_are_not_drawn(shape, tmp_path):
    folder = write_job(tmp_path, 0, ["l2=0"])
    (found,) = read_jobs(tmp_path)
    assert best_weights(found, "a").weight.shape == (1, 10, 784)
    WholeCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.zeros(shape)}}, folder / BEST)
    assert best_weights(found, "a") is None
    WholeCheckpointIO().save_checkpoint({"other": 1}, folder / BEST)
    assert best_weights(found, "a") is None
    assert best_weights(found._replace(results=[]), "a") is None


@pytest.mark.parametrize(
    ("outputs", "classes", "tiles"),
    [(3, [7, 8, 9], ["7", "8", "9"]), (1, [3, 2], ["2"]), (3, [1, 2], None), (3, [], None)],
)
def test_the_tiles_are_named_by_their_classes(outputs, classes, tiles, tmp_path):
    folder = write_job(tmp_path, 0, ["l2=0"])
    (found,) = read_jobs(tmp_path)
    io = WholeCheckpointIO(None, {"classes": classes})
    io.save_checkpoint({"state_dict": {"weight": torch.ones(1, outputs, 4)}}, folder / BEST)
    assert best_weights(found, "a").tiles == tiles


def test_pictures_of_weights_stand_one_below_the_other_at_one_scale():
    wide = Weights("wide", torch.zeros(1, 10, 784), [*"0123456789"])
    narrow = Weights("narrow", torch.full((2, 1, 784), -0.5), ["2"])
    wide.weight[0, 3] = 0.25
    figure = draw_weights([wide, narrow])
    upper, lower, bar = figure.axes
    assert [text.get_text() for text in figure.texts] == ["wide", "narrow", "weight"]
    assert [text.get_text() for text in upper.texts] == [*"0123456789"]
    assert [text.get_text() for text in lower.texts] == ["2"]
    width, height = figure.get_size_inches()
    places = [ax.get_position() for ax in (upper, lower)]
    assert places[1].width * width == pytest.approx(places[0].width * width / 10)
    assert places[1].height * height == pytest.approx(2 * places[0].height * height)
    assert places[0].y0 > places[1].y1 > bar.get_position().y1
    assert (bar.get_xlim(), [float(tick) for tick in bar.get_xticks()]) == ((-0.5, 0.5), [-0.5, 0, 0.5])
    colours = [ax.images[0].get_array()[30, middle].tolist() for ax, middle in ((upper, 3 * 60 + 30), (lower, 30))]
    assert colours[1] == [33, 102, 172], "the largest of all has the full colour"
    assert colours[0] == [213, 136, 145], "half of it half the colour"


def test_narrow_pictures_of_weights_stand_side_by_side_as_far_as_they_fit():
    *axes, _ = draw_weights([Weights(f"l2=0.0{i}, seed=0", torch.ones(1, 1, 784), ["2"]) for i in range(5)]).axes
    places = [ax.get_position() for ax in axes]
    assert places[0].y0 == places[3].y0 > places[4].y1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places[:4]))
    assert places[0].x0 == places[4].x0 == 0


def test_a_sweep_in_which_all_failed_leaves_no_picture(tmp_path):
    write_pictures(tmp_path, [job("a", {"l2": -1})], ["l2"])
    assert list(tmp_path.iterdir()) == []


# --- a sweep over files -----------------------------------------------------------------------------------------------


def of_file(name: object, *rows: dict) -> Job:
    return Job(Path(str(name)), {"data.train": name}, list(rows), None if rows else "no such file")


def chosen(val: float, test: float | None = None, refitted: float | None = None) -> dict:
    found = {"selected": "true", "val_accuracy": val, "test_accuracy": test, "refit_test_accuracy": refitted}
    return found | {"weight_norm_squared": 1.0}


OTHER = {"selected": "false", "val_accuracy": 1.0, "test_accuracy": 1.0, "weight_norm_squared": 1.0}


def test_each_file_is_drawn_with_the_accuracy_of_its_selected_l2():
    jobs = [
        of_file("a.npz", OTHER, chosen(0.8, 0.7)),
        of_file("b.npz"),
        of_file("c.npz", chosen(0.9, 0.8, 0.85), OTHER),
    ]
    (ax,) = draw_files(jobs, ["data.train"]).axes
    found = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}
    assert found["validation"] == ([0.8, 0.9], [0, 2])
    assert found["test"] == ([0.7, 0.85], [0, 2]), "of the refitted where there are some"
    assert found["failed"][1] == [1]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a.npz", "b.npz", "c.npz"]
    (ax,) = draw_files([of_file("a.npz", chosen(0.8))], ["data.train"]).axes
    assert [line.get_label() for line in ax.lines] == ["validation"]


def test_files_of_one_folder_are_named_without_it():
    assert names_of([of_file("x/a.npz"), of_file("x/b.npz")], ["data.train"]) == ["a.npz", "b.npz"]
    assert names_of([of_file("x/a.npz"), of_file("y/a.npz")], ["data.train"]) == ["x/a.npz", "y/a.npz"]
    assert names_of([of_file(["x/a.npy", "x/b.npy"]), of_file("y.npy")], ["data.train"]) == [
        "x/a.npy, x/b.npy",
        "y.npy",
    ]
    of_layers = [of_file(f"/far/away/layer{n}/{'x' * 40}.npz") for n in (1, 12)]
    assert names_of(of_layers, ["data.train"]) == [
        f"layer1/{'x' * 15}…{'x' * 17}.npz",
        f"layer12/{'x' * 14}…{'x' * 17}.npz",
    ]
    assert [len(name) for name in names_of(of_layers, ["data.train", "seed"])] == [44, 44]
    assert names_of([of_file("/far/a.npz"), of_file("b.npz")], ["data.train"]) == ["/far/a.npz", "b.npz"]


def test_a_sweep_over_files_gets_its_picture(tmp_path):
    jobs = [of_file("a.npz", chosen(0.8)), of_file("b.npz", chosen(0.9))]
    write_pictures(tmp_path, jobs, ["data.train"])
    assert {path.name for path in tmp_path.glob("*.png")} == {"sweep.png", "files.png"}
