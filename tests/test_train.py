"""The program as a whole: the report's experiments give the reference's numbers; a run leaves what it promises."""

import importlib
import logging

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from handgrad.data.mnist import MNISTDataModule
from handgrad.runs.results import BOOTSTRAP, CALIBRATION, COLUMNS, OF_FOLDS, RANKINGS, SCORES
from tests.conftest import DATA, results

# Settings, and for each l2: steps, loss train / val, accuracy train / val, sum w^2 of the last weights; from an
# independent float64 NumPy run on split `course`, without shuffling.
REFERENCE = {
    "experiment=course_logistic": [(0, 1550, 0.06509, 0.06522, 0.97927, 0.97894, 5.3326)],
    "experiment=course_logistic_early_stopping": [(0, 882, 0.07196, 0.06657, 0.97702, 0.97698, 3.7674)],
    "experiment=course_logistic epochs=500": [(0, 15500, 0.03648, 0.07399, 0.98851, 0.97649, 35.893)],
    "experiment=course_l2 data.shuffle=false epochs=2": [
        (0, 312, 0.55377, 0.53524, 0.86610, 0.8714, 3.5092),
        (0.002, 312, 0.55491, 0.53636, 0.86595, 0.8713, 3.4908),
        (0.02, 312, 0.56524, 0.54655, 0.86570, 0.8706, 3.3320),
        (0.2, 312, 0.67125, 0.65130, 0.85670, 0.8647, 2.2160),
        (2, 312, 1.32196, 1.30262, 0.79075, 0.8100, 0.36257),
    ],
    "experiment=course_l2 data.shuffle=false": [
        (0, 7800, 0.28136, 0.29863, 0.92225, 0.9143, 23.968),
        (0.002, 7800, 0.28748, 0.30221, 0.92045, 0.9144, 21.366),
        (0.02, 7800, 0.34510, 0.34611, 0.91105, 0.9076, 10.906),
        (0.2, 7800, 0.60565, 0.58867, 0.8723, 0.8793, 2.7491),
        (2, 7800, 1.32189, 1.30255, 0.7908, 0.8100, 0.36263),
    ],
}


LONG = ("experiment=course_logistic epochs=500", "experiment=course_l2 data.shuffle=false")


@pytest.mark.parametrize(
    "words", [pytest.param(words, marks=pytest.mark.torture if words in LONG else ()) for words in REFERENCE]
)
def test_reference_numbers(words, run):
    rows = results(run(*words.split(), "logger=none"))
    assert len(rows) == len(REFERENCE[words])
    for row, (l2, steps, *measures, squares) in zip(rows, REFERENCE[words], strict=True):
        assert (row["l2"], row["steps"]) == (l2, steps)
        names = ("last_train_loss", "last_val_loss", "last_train_accuracy", "last_val_accuracy")
        assert [row[name] for name in names] == pytest.approx(measures, abs=1e-4)
        assert row["last_weight_norm_squared"] == pytest.approx(squares, rel=1e-4)


def numpy_run(data: MNISTDataModule, l2: float, lr: float) -> tuple[float, float, float]:
    """Trains in float64 with NumPy and the bias trick; returns validation loss and accuracy, and sum w^2."""
    (x, y), (x_val, y_val) = (
        (np.hstack([input.double().numpy(), np.ones((len(target), 1))]), target.numpy())
        for input, target in (data.train, data.val)
    )
    w, batch = np.zeros((data.num_classes, x.shape[1])), data.batch_size
    one_hot = np.eye(data.num_classes)

    def probabilities(x):
        z = np.exp(x @ w.T - (x @ w.T).max(1, keepdims=True))
        return z / z.sum(1, keepdims=True)

    for update in range(data.total_updates):
        start = update % data.batches * batch
        part, target = x[start : start + batch], y[start : start + batch]
        w -= lr * ((probabilities(part) - one_hot[target]).T @ part / batch + l2 * w)
    p = probabilities(x_val)
    return -np.log(p[np.arange(len(y_val)), y_val]).mean(), (p.argmax(1) == y_val).mean(), (w**2).sum()


@pytest.mark.parametrize(
    ("split", "digits", "l2", "lr", "batch"),
    [
        ("full", [7, 1, 4], 0.05, 0.02, 100),
        ("course", [9, 0], 0.5, 0.005, 33),
        ("report", [7, 1, 4], 0.05, 0.02, 100),
    ],
)
def test_other_digits_penalties_and_splits_against_numpy(split, digits, l2, lr, batch, run):
    words = (f"data.split={split}", f"data.digits={digits}", f"l2={l2}", f"lr={lr}", f"batch_size={batch}")
    words += ("task=softmax", "epochs=2", "data.shuffle=false", "penalize_bias=true", "patience=null", "logger=none")
    (row,) = results(run(*words))
    data = MNISTDataModule(
        root=DATA, split=split, digits=digits, shuffle=False, batch_size=batch, seed=0, epochs=2, train_size=None
    )
    data.setup()
    loss, accuracy, squares = numpy_run(data, l2, lr)
    assert row["last_val_loss"] == pytest.approx(loss, abs=1e-5)
    assert row["last_val_accuracy"] == pytest.approx(accuracy, abs=1.01 / len(data.val[1]))
    assert row["last_weight_norm_squared"] == pytest.approx(squares, rel=1e-4)


def test_early_stopping_numbers(run):
    (row,) = results(run("experiment=course_logistic_early_stopping"))
    assert (row["steps"], row["epoch"], row["best_step"]) == (882, 29, 822)
    assert row["val_loss"] == pytest.approx(0.06657, abs=1e-5)


def test_path_equals_separate_runs(run):
    """Stops, steps and weights: each classifier of a path is trained as if it were alone."""
    words = ("experiment=report_l2", "epochs=15", "patience=4", "optimizer.momentum=0.5", "logger=none")
    words += (
        "data.train_size=3000",
        "trainer.precision=64-true",
    )
    path = results(run(*words, "l2=[0,0.2,2]", name="path"))
    assert len({row["steps"] for row in path}) > 1, "the test wants classifiers that stop at different times"
    for row in path:
        (alone,) = results(run(*words, f"l2={row['l2']}", name=f"alone{row['l2']}"))
        measured = set(COLUMNS[3:]) - {"seconds", "selected", *CALIBRATION}  # that of the selected alone
        assert [row[name] for name in row if name not in COLUMNS] == [
            alone[name] for name in row if name not in COLUMNS
        ]
        for name in measured:
            assert row[name] == (pytest.approx(alone[name], rel=1e-11) if alone[name] != "" else ""), name


def test_adam_leaves_stopped_classifiers_alone(run):
    words = ("experiment=report_logistic", "optimizer=adam", "lr=0.001", "patience=3", "epochs=12", "logger=none")
    words += ("trainer.precision=64-true",)
    path = results(run(*words, "l2=[0,1]", name="path"))
    assert path[0]["steps"] > path[1]["steps"]
    (alone,) = results(run(*words, "l2=1", name="alone"))
    assert path[1]["last_weight_norm_squared"] == pytest.approx(alone["last_weight_norm_squared"], rel=1e-11)


def test_files_and_results_of_a_full_run(run, caplog, capsys):
    with caplog.at_level(logging.INFO):
        folder = run("task=softmax", "l2=2.0", "epochs=1")
    (row,) = results(folder)
    settings = [name for name in row if name not in COLUMNS]
    assert list(row) == [*settings, *COLUMNS]
    assert settings == [
        *("task", "data", "optimizer", "lr", "epochs", "batch_size", "seed", "patience", "penalize_bias"),
        *("data.split", "data.digits", "data.shuffle", "data.train_size", "optimizer.momentum"),
        *("trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision"),
        *("select.metric", "select.rule", "select.refit"),
    ]
    assert [row[name] for name in ("task", "data", "optimizer")] == ["softmax", "mnist", "sgd"]
    assert (row["classes"], row["scaling"]) == ("0 1 2 3 4 5 6 7 8 9", "pixel / 127.5 - 1")
    assert row["best_step"] in range(78, 391, 78)
    assert 0.7 < row["test_accuracy"] < 0.9
    empty = {"converged", "iterations", "passes", "val_ece", "val_ece_scaled"}  # of optima, and of a run without a test
    empty |= {name for name in COLUMNS if name.startswith("refit_")}
    empty |= {name for name in SCORES if name != "val_loss_se"} | {*RANKINGS}  # of other metrics, and several labels
    empty |= {*OF_FOLDS, *BOOTSTRAP}
    assert {name for name in COLUMNS[2:] if not isinstance(row[name], float)} == {*empty, "selected"}
    assert not any(row[name] for name in empty)
    assert row["selected"] == "true"
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert "Gradient proven" in caplog.text
    printed = capsys.readouterr().out
    assert f"{row['test_accuracy']:.4f}" in printed
    assert str(folder) in printed


def test_best_checkpoint_holds_the_best_weights(run):
    from handgrad.models.softmax_regression import SoftmaxRegression

    folder = run("experiment=report_l2", "l2=[0,2]", "epochs=5")
    model = SoftmaxRegression.load_from_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True)
    rows = results(folder)
    assert rows[1]["best_step"] < rows[1]["steps"]
    squares = model.weight_norm_squared().tolist()
    assert squares == pytest.approx([row["weight_norm_squared"] for row in rows], rel=1e-6)
    assert squares[1] != pytest.approx(rows[1]["last_weight_norm_squared"], rel=1e-3)


def test_bfloat16_and_other_digits(run):
    (low,) = results(run("experiment=report_softmax", "data.digits=[7,1,4]", "epochs=2", "trainer.precision=bf16-true"))
    (full,) = results(run("experiment=report_softmax", "data.digits=[7,1,4]", "epochs=2", name="f32"))
    assert full["val_accuracy"] > 0.95
    assert low["val_accuracy"] == pytest.approx(full["val_accuracy"], abs=0.02)


def test_tensorboard_of_a_path_is_that_of_separate_runs(run):
    path = run("experiment=report_l2", "l2=[0,2]", "epochs=1", "data.shuffle=false")
    alone = run("experiment=report_l2", "l2=2", "epochs=1", "data.shuffle=false", name="alone")
    assert sorted(p.name for p in path.glob("l2=*")) == ["l2=0.0", "l2=2.0"]
    for tag in ("loss/train", "loss/val", "accuracy/train", "accuracy/val", "weight_norm", "penalty"):
        ours, theirs = (scalars(folder, tag) for folder in (path / "l2=2.0", alone))
        assert ours.keys() == theirs.keys()
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-5)
    assert list(scalars(alone, "loss/train")) == list(range(1, 141))
    assert list(scalars(alone, "loss/val")) == [28, 56, 84, 112, 140]


def scalars(folder, tag):
    events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


@pytest.mark.parametrize("broken", [1.0005, 0.0, -1.0, 2.0])
def test_a_wrong_gradient_stops_the_run_before_it_trains(broken, run, monkeypatch, tmp_path):
    from handgrad.errors import GradientError

    module = importlib.import_module("handgrad.functions.linear_cross_entropy")
    right = module._LinearCrossEntropy.backward

    def wrong(ctx, *grads):
        return tuple(None if g is None else g * broken for g in right(ctx, *grads))

    monkeypatch.setattr(module._LinearCrossEntropy, "backward", staticmethod(wrong))
    with pytest.raises(
        GradientError, match=r"derived gradient of linear_cross_entropy for .* differs from finite differences"
    ):
        run("experiment=report_softmax", "epochs=1")
    assert not (tmp_path / "outputs" / "run" / "checkpoints").exists()


@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_a_wrong_l2_gradient_stops_the_run(factor, run, monkeypatch):
    from handgrad.errors import GradientError
    from handgrad.functions import objective as module

    right = module.add_l2_gradient
    monkeypatch.setattr(module, "add_l2_gradient", lambda *arguments: right(*arguments[:-1], arguments[-1] * factor))
    with pytest.raises(GradientError):
        run("experiment=report_softmax", "l2=0.02", "epochs=1")


def test_divergence_is_told(run):
    from handgrad.errors import InputError

    with pytest.raises(InputError, match=r"loss/(train|val) is (nan|inf) at l2=0 after \d+ updates"):
        run("experiment=report_softmax", "lr=1e38", "epochs=3")


def test_seed_decides_the_order(run):
    words = ("experiment=report_logistic", "data.shuffle=true", "epochs=1", "logger=none")
    first, again, other = (
        results(run(*words, f"seed={seed}", name=name))[0]["last_train_loss"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


def test_logits_of_the_module(run):
    from handgrad.models.logistic_regression import LogisticRegression

    model = LogisticRegression(num_features=3, num_classes=2, l2=[0, 1], penalize_bias=False)
    torch.nn.init.normal_(model.weight)
    x = torch.randn(5, 3)
    assert torch.allclose(model(x)[1, :, 0], x @ model.weight[1, 0] + model.bias[1])


def test_the_penalty_is_not_rounded_before_the_precision_is_known(run):
    double, single = (
        torch.load(
            run("experiment=report_logistic", "epochs=1", "l2=0.002", f"trainer.precision={p}", name=p)
            / "checkpoints"
            / "last.ckpt",
            weights_only=True,
        )["state_dict"]["l2"]
        for p in ("64-true", "32-true")
    )
    assert double.item() == 0.002 != single.item()
