"""Folds are separate fits, draws are what they say, and a run that was stopped among them goes on."""

import math
import re
import signal

import numpy as np
import pytest
import torch
from sklearn import datasets

from handgrad import LinearProbe
from handgrad.cli.messages import one_line
from handgrad.data.splits import few_shots
from handgrad.metrics import outcome
from handgrad.resampling import few_shot_table, intervals, kept, of_folds
from handgrad.runs.results import read_results, table
from handgrad.runs.signals import Interrupted, stopping

L2 = [0.1, 0.001, 0.01]
WORDS = ["data=features", "optimizer=exact", f"l2={L2}"]


@pytest.fixture
def wine(tmp_path) -> list[str]:
    """Wine, standardized; every third sample is for the test, and three in a row are a group."""
    x, y = datasets.load_wine(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    test = np.arange(len(y)) % 3 == 0
    group = np.arange(len(y)) // 9
    np.savez(tmp_path / "train.npz", x=x[~test], y=y[~test], group=group[~test], weight=1.0 + (x[~test, 0] > 0))
    np.savez(tmp_path / "test.npz", x=x[test], y=y[test])
    return [*WORDS, f"data.train={tmp_path}/train.npz", f"data.test={tmp_path}/test.npz"]


@pytest.mark.parametrize("content", [b"fold,l2\n0,0.1\n1,0", b"fold,l2\n0,0.1\n1\n", b"\xff"], ids=str)
def test_damaged_rows_of_an_earlier_process_are_told_and_made_again(content, tmp_path, caplog):
    (tmp_path / "folds.csv").write_bytes(content)
    assert kept(tmp_path, "folds.csv", 1) == []
    assert caplog.messages == [f"{tmp_path}/folds.csv: damaged; its fits are made again"]


@pytest.mark.parametrize(
    "more", [["data.normalize=standardize"], ["data.sample_weight=weight"], ["data.class_weight=balanced"]]
)
def test_each_fold_is_a_separate_fit(run, wine, more, tmp_path):
    folder = run(*wine, "data.folds=4", *more)
    rows = read_results(folder / "folds.csv")
    assert [(row["fold"], row["l2"]) for row in rows] == [(fold, l2) for fold in range(4) for l2 in L2]
    with np.load(tmp_path / "train.npz") as file:
        x, y, weight = file["x"], file["y"], file["weight"]
    from handgrad.data.splits import fold_index

    fold = fold_index(torch.from_numpy(y), [0, 1, 2], 4, seed=0).numpy()
    for number in range(4):
        train, held = fold != number, fold == number
        options = {"normalize": "standardize"} if "normalize" in more[0] else {}
        options |= {"class_weight": "balanced"} if "class_weight" in more[0] else {}
        probe = LinearProbe(L2, **options).fit(
            x[train], y[train], weight[train] if "sample_weight" in more[0] else None
        )
        for row, entry in zip(rows[3 * number :], probe.path_, strict=False):
            z = x[held] @ entry.coef_.T + entry.intercept_
            assert row["val_accuracy"] == (z.argmax(1) == y[held]).mean()
            expected = torch.nn.functional.cross_entropy(torch.from_numpy(z), torch.from_numpy(y[held])).item()
            assert row["val_loss"] == pytest.approx(expected, rel=1e-3)
            assert row["converged"] == "true"


def test_a_run_has_the_folds_means_and_the_weights_of_all_samples(run, wine, tmp_path):
    folder = run(*wine, "data.folds=4", "data.bootstrap=50", "select.metric=accuracy")
    rows, found = read_results(folder / "results.csv"), read_results(folder / "folds.csv")
    for entry, row in enumerate(rows):
        values = [each["val_accuracy"] for each in found[entry::3]]
        assert row["val_accuracy"] == pytest.approx(np.mean(values))
        assert row["val_accuracy_sd"] == pytest.approx(np.std(values, ddof=1))
        assert row["val_accuracy_se"] == pytest.approx(np.std(values, ddof=1) / 2)
        assert row["val_loss"] == pytest.approx(np.mean([each["val_loss"] for each in found[entry::3]]))
    (chosen,) = (row for row in rows if row["selected"] == "true")
    assert chosen["val_accuracy"] == max(row["val_accuracy"] for row in rows)
    assert chosen["test_accuracy_low"] <= chosen["test_accuracy"] <= chosen["test_accuracy_high"]
    assert chosen["test_accuracy_high"] - chosen["test_accuracy_low"] < 0.2
    assert "95 % interval" in table(rows)
    with np.load(tmp_path / "train.npz") as file:
        alone = LinearProbe(chosen["l2"]).fit(file["x"], file["y"])
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    np.testing.assert_allclose(state["weight"][L2.index(chosen["l2"])], alone.coef_, rtol=0, atol=2e-3)
    assert sum(row["C"] is not None for row in rows) == 3


def test_groups_stay_together_in_a_run(run, wine, tmp_path, monkeypatch):
    seen = []
    from handgrad.cross_validation import PartialFits

    fit = PartialFits.fit

    def noted(self, train, held, **options):
        seen.append((train, held))
        return fit(self, train, held, **options)

    monkeypatch.setattr(PartialFits, "fit", noted)
    run(*wine, "data.folds=3", "data.groups=group")
    with np.load(tmp_path / "train.npz") as file:
        group = file["group"]
    assert len(seen) == 3
    for train, held in seen:
        assert not set(group[train]) & set(group[held])


@pytest.mark.parametrize("words", [["data.folds=3"], ["data.shots=[1,2]", "data.draws=2"]], ids=["folds", "shots"])
def test_stopped_among_them_a_run_goes_on_with_the_next(run, wine, words, monkeypatch):
    from handgrad.cross_validation import PartialFits

    monkeypatch.setattr(stopping, "signal", None)
    unbroken = run(*wine, *words, name="unbroken")
    fit, left = PartialFits.fit, 3

    def stopped(self, train, held, **options):
        nonlocal left
        left -= 1
        if left == 0:
            stopping.handle(signal.SIGTERM, None)
        return fit(self, train, held, **options)

    monkeypatch.setattr(stopping, "installed", True)
    with monkeypatch.context() as patched:
        patched.setattr(PartialFits, "fit", stopped)
        with pytest.raises(Interrupted) as told:
            run(*wine, *words, name="stopped")
    assert told.value.done == ("2 of 3 folds" if "folds" in words[0] else "2 of 4 few-shot draws")
    monkeypatch.setattr(stopping, "signal", None)
    calls = []
    monkeypatch.setattr(
        PartialFits, "fit", lambda self, *args, **more: (calls.append(args), fit(self, *args, **more))[1]
    )
    folder = run(*wine, *words, name="stopped")
    assert len(calls) == (1 if "folds" in words[0] else 2)
    name = "folds.csv" if "folds" in words[0] else "few_shots.csv"
    assert (folder / name).read_bytes() == (unbroken / name).read_bytes()
    drop = {"seconds"}
    without = [
        [{k: v for k, v in row.items() if k not in drop} for row in read_results(f / "results.csv")]
        for f in (folder, unbroken)
    ]
    assert without[0] == without[1]


def test_few_shot_draws_are_fits_of_so_many_samples(run, wine, tmp_path):
    folder = run(*wine, "data.shots=[1,4]", "data.draws=2", "select.metric=accuracy")
    rows = read_results(folder / "few_shots.csv")
    assert [(row["shots"], row["draw"]) for row in rows] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert all(row["l2"] in L2 for row in rows)
    assert rows[0]["test_accuracy"] < rows[2]["test_accuracy"]
    with np.load(tmp_path / "train.npz") as train, np.load(tmp_path / "test.npz") as test:
        from handgrad.data.labels import held_out

        kept, _ = held_out(torch.from_numpy(train["y"]), 0.1, 0)
        x, y = train["x"][kept], train["y"][kept]
        drawn = few_shots(torch.from_numpy(y), 4, 0, 4, 1)
        alone = LinearProbe(rows[3]["l2"]).fit(x[drawn], y[drawn])
        assert rows[3]["test_accuracy"] == pytest.approx(alone.score(test["x"], test["y"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.folds=1"], "data.folds=1: accepted is a whole number >= 2, or null"),
        (["data.folds=200"], "folds=200: accepted are 2 to 118, the number of samples"),
        (["data.folds=3", "optimizer=sgd"], "data.folds: accepted with optimizer=exact"),
        (["data.folds=3", "data.val=x.npz"], "folds=3: accepted with data.val=x.npz is null"),
        (["data.folds=3", "select.refit=true"], "select.refit=true: accepted with data.folds is false"),
        (["data.folds=3", "data.shots=[1]"], r"shots=\[1\]: accepted with data.folds=3 is null"),
        (["data.groups=group"], "groups=group: accepted with data.folds=null is null"),
        (["data.folds=3", "data.groups=grup"], r"no groups 'grup'; found .*; did you mean 'group'\?"),
        (["data.shots=[1,60]"], "shots=60: class .* has fewer samples; accepted is at most 29$"),
        (["data.shots=[0]"], r"data.shots=\[0\]: accepted is a list of different whole"),
        (["data.folds=40", "select.metric=auroc"], "select.metric=auroc: no sample of class .* in fold"),
        (["data.bootstrap=50", "data.test=null"], "bootstrap=50: accepted with data.test=null is null"),
        (["data.bootstrap=0"], "data.bootstrap=0: accepted is a whole number >= 20, or null"),
    ],
)
def test_what_can_not_be_done_is_told_in_one_line(run, wine, words, message):
    with pytest.raises(Exception) as told:  # noqa: PT011  # Hydra wraps what an object raises as it is made
        run(*wine, *words)
    line = one_line(told.value)
    assert line is not None
    assert re.search(message, line)
    assert "\n" not in line


def test_means_and_deviations_of_folds():
    rows = [{"val_loss": loss, "val_accuracy": 0.5} for loss in (1.0, 2.0, 3.0, 6.0)]
    scores, columns = of_folds(rows, [0.1, 1.0], "loss")
    assert [score.value for score in scores] == [2.0, 4.0]
    assert scores[0].standard_error == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert columns[1]["val_loss_sd"] == pytest.approx(math.sqrt(8))


def test_intervals_are_those_of_a_mean():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (2000,), generator=generator)
    logits = torch.nn.functional.one_hot(target, 2) + torch.randn(2000, 2, generator=generator)
    found = intervals(outcome(logits, target), "accuracy", 500, seed=0)
    p = (logits.argmax(1) == target).double().mean().item()
    half = 1.96 * math.sqrt(p * (1 - p) / 2000)
    assert found["test_accuracy_low"] == pytest.approx(p - half, abs=0.15 * half)
    assert found["test_accuracy_high"] == pytest.approx(p + half, abs=0.15 * half)


def test_the_table_of_draws():
    rows = [
        {"shots": shots, "draw": draw, "l2": 0.1, "test_loss": 1.0, "test_accuracy": shots / 10 + draw / 5}
        for shots in (1, 2)
        for draw in (0, 1)
    ]
    lines = few_shot_table(rows, "accuracy").splitlines()
    assert lines[0].split() == [
        "shots",
        "draws",
        "median",
        "l2",
        "test",
        "loss",
        "±",
        "sd",
        "test",
        "accuracy",
        "±",
        "sd",
    ]
    assert lines[1].split() == ["1", "2", "0.1", "1.0000", "0.0000", "0.2000", "0.1414"]
