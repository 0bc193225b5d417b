"""The probe as its user meets it: features of one's own, a path of l2, certified optima, saved weights."""

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from handgrad.runs.results import read_results
from handgrad.runs.signals import Interrupted, stopping
from tests.test_resume import Killed, assert_same_state, curve

L2 = [0.1, 0.001, 0.01]
EXACT = ["data=features", "optimizer=exact"]


@pytest.fixture
def features(tmp_path) -> str:
    """Digits, of which the last third is the test set; a square of 8 x 8 features."""
    x, y = datasets.load_digits(return_X_y=True)
    np.savez(tmp_path / "train.npz", x=x[:1200], y=y[:1200])
    np.savez(tmp_path / "test.npz", x=x[1200:], y=y[1200:])
    return f"data.train={tmp_path}/train.npz"


def rows_of(folder: Path) -> list[dict]:
    return read_results(folder / "results.csv")


def best(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]


def test_a_path_is_solved_in_the_users_order_and_proven(run, features):
    rows = rows_of(run(*EXACT, features, f"l2={L2}"))
    assert [row["l2"] for row in rows] == L2
    for row in rows:
        assert 0 < row["gap"] <= 1e-6
        assert row["converged"] == "true"
        assert row["last_gap"] == row["gap"]
        assert row["iterations"] == row["steps"] == row["best_step"] > 0
        assert row["passes"] >= 2
        assert row["C"] == pytest.approx(1 / (row["l2"] * 1080), rel=1e-12)  # a tenth of each class is held out
        J = row["train_loss"] + row["l2"] / 2 * row["weight_norm_squared"]
        assert row["objective"] == pytest.approx(J, rel=1e-9)
    assert [row["selected"] for row in rows].count("true") == 1
    assert not {"lr", "batch_size", "epochs", "patience"} & rows[0].keys()


def arrays(file: Path) -> dict[str, np.ndarray]:
    """Returns what is in an archive, and closes it: else a later test is told of it."""
    with np.load(file) as found:
        return dict(found)


@pytest.mark.parametrize("normalize", ["none", "center", "standardize"])
def test_the_saved_weights_are_for_features_as_they_are_and_those_of_scikit_learn(normalize, run, features, tmp_path):
    folder = run(*EXACT, features, "l2=0.01", f"data.normalize={normalize}", f"data.val={tmp_path}/test.npz")
    state, train = best(folder), arrays(tmp_path / "train.npz")
    x = StandardScaler().fit_transform(train["x"]) if normalize == "standardize" else train["x"]
    theirs = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-8, max_iter=1000, solver="newton-cg").fit(x, train["y"])
    logits = torch.from_numpy(train["x"]).double() @ state["weight"][0].t() + state["bias"][0]
    expected = torch.from_numpy(theirs.predict_proba(x)).double()
    assert (torch.softmax(logits, 1) - expected).abs().max() < 5e-3
    assert state["weight"].dtype == torch.float64


def test_automatic_values_and_the_choice_among_them(run, features):
    rows = rows_of(run(*EXACT, features, "l2=auto", "data.normalize=standardize"))
    assert len(rows) == 20
    assert max(row["gap"] for row in rows) <= 1e-6
    chosen = [row for row in rows if row["selected"] == "true"]
    assert [row["val_loss"] for row in chosen] == [min(row["val_loss"] for row in rows)]


def test_two_classes_are_scikit_learns_by_either_task(run, tmp_path):
    x, y = datasets.load_breast_cancer(return_X_y=True)
    np.savez(tmp_path / "x.npz", x=StandardScaler().fit_transform(x), y=np.array(["bad", "good"])[y])
    words = [*EXACT, f"data.train={tmp_path}/x.npz", f"data.val={tmp_path}/x.npz"]
    wanted = {"logistic": 0.01, "softmax": 0.02}
    folders = [run(*words, f"task={task}", f"l2={l2}", name=task) for task, l2 in wanted.items()]
    (one,), (two,) = map(rows_of, folders)
    assert one["classes"] == "bad good"
    assert one["C"] == pytest.approx(two["C"]) == pytest.approx(1 / (0.01 * len(y)))
    assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-4)


def test_class_weights_count(run, features, tmp_path):
    table = "{0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 3}"
    folder = run(*EXACT, features, "l2=0.01", f"data.class_weight={table}", f"data.val={tmp_path}/test.npz")
    train = arrays(tmp_path / "train.npz")
    weight = np.where(train["y"] == 9, 3.0, 1.0)
    theirs = LogisticRegression(C=1 / (0.01 * weight.sum()), tol=1e-8, max_iter=1000, solver="newton-cg")
    theirs.fit(train["x"], train["y"], sample_weight=weight)
    state = best(folder)
    logits = torch.from_numpy(train["x"]).double() @ state["weight"][0].t() + state["bias"][0]
    assert (torch.softmax(logits, 1) - torch.from_numpy(theirs.predict_proba(train["x"]))).abs().max() < 5e-3
    (row,) = rows_of(folder)
    assert row["C"] == pytest.approx(1 / (0.01 * weight.sum()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("large", [False, True], ids=["newton", "quasi-newton"])
def test_killed_in_the_midst_of_a_path_it_goes_on_bit_for_bit(threads, large, run, features, monkeypatch):
    from handgrad.solvers.exact import EntryRun
    from handgrad.solvers.newton import NewtonMetric

    if large:
        monkeypatch.setattr(NewtonMetric, "suits", staticmethod(lambda *shape: False))
    words = [*EXACT, features, f"l2={L2}", "callbacks.checkpoint.every_seconds=0"]
    unbroken = run(*words, name="unbroken")
    search = EntryRun.search

    def killing(self, *args):
        if self.past and self.iterations == 1:
            raise Killed
        return search(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(EntryRun, "search", killing)
        with pytest.raises(Killed):
            run(*words, f"threads={threads}", name="killed")
    folder = run(*words, f"threads={threads}", name="killed")
    assert_same_state(folder, unbroken)
    without = [{key: value for key, value in row.items() if key != "seconds"} for row in rows_of(folder)]
    assert without == [{key: value for key, value in row.items() if key != "seconds"} for row in rows_of(unbroken)]
    for l2 in L2:
        for tag in ("objective/train", "gap/train", "loss/val"):
            assert curve(folder / f"l2={l2}", tag) == curve(unbroken / f"l2={l2}", tag)


def test_a_signal_is_obeyed_after_an_l2_value(run, features, monkeypatch):
    from handgrad.callbacks.curves import Curves

    def on_validation_end(self, trainer, model):
        stopping.signal = 15

    monkeypatch.setattr(Curves, "on_validation_end", on_validation_end)
    with pytest.raises(Interrupted) as stopped:
        run(*EXACT, features, f"l2={L2}")
    stopping.signal = None
    assert stopped.value.done == "1 l2 values"


def test_curves_count_the_iterations_of_each_value(run, features):
    folder = run(*EXACT, features, f"l2={L2}")
    for row in rows_of(folder):
        steps, gaps = zip(*curve(folder / f"l2={row['l2']}", "gap/train"), strict=True)
        assert list(steps) == list(range(row["iterations"] + 1))
        assert gaps[-1] == pytest.approx(row["gap"], rel=1e-6)
        assert curve(folder / f"l2={row['l2']}", "loss/val") == [(row["iterations"], pytest.approx(row["val_loss"]))]
        assert [step for step, _ in curve(folder / f"l2={row['l2']}", "objective/train")] == list(steps)


def test_in_double_precision_every_product_is(run, features, monkeypatch):
    from handgrad.functions.objective import Objective

    data_term, dtypes = Objective.data_term, set()

    def watched(self, *args, dtype=torch.float64, **kwargs):
        dtypes.add(dtype)
        return data_term(self, *args, dtype=dtype, **kwargs)

    monkeypatch.setattr(Objective, "data_term", watched)
    monkeypatch.setattr("handgrad.solvers.newton.LARGEST", 0)
    run(*EXACT, features, "l2=0.1", "trainer.precision=64-true")
    assert dtypes == {torch.float64}


def test_what_did_not_converge_is_told(run, features, caplog, monkeypatch):
    monkeypatch.setattr("handgrad.solvers.newton.LARGEST", 0)
    folder = run(*EXACT, features, "l2=[1e-6,0]", "optimizer.max_iterations=2")
    small, none = rows_of(folder)
    assert (small["converged"], none["converged"]) == ("false", "false")
    assert small["gap"] > 1e-6
    assert none["gap"] is none["C"] is None
    assert "not converged: the gap is above optimizer.tolerance at l2=1e-06" in caplog.text
    assert "raise optimizer.max_iterations" in caplog.text
    assert "l2=0: there is no certificate without a penalty" in caplog.text


def test_sgd_says_how_far_it_is(run, features):
    (row,) = rows_of(run("data=features", features, "l2=0.01", "epochs=3", "lr=0.001", "patience=null"))
    (optimum,) = rows_of(run(*EXACT, features, "l2=0.01", name="exact"))
    assert (row["objective"] - optimum["objective"]) / row["objective"] <= row["gap"]
    assert row["last_gap"] > 0
    assert row["converged"] is row["passes"] is None


def test_weights_of_samples_count_in_sgd_too(run, tmp_path):
    x, y = datasets.load_iris(return_X_y=True)
    count = np.arange(len(y)) % 3
    np.savez(tmp_path / "weighted.npz", x=x, y=y, w=count.astype(float))
    np.savez(tmp_path / "all.npz", x=x, y=y)
    words = ["data=features", "epochs=1", "batch_size=150", "lr=0.1", f"data.val={tmp_path}/all.npz"]
    folder = run(*words, f"data.train={tmp_path}/weighted.npz", "data.sample_weight=w", "data.x=x")
    state = best(folder)
    xs, ys, s = torch.from_numpy(x).double(), torch.eye(3).double()[torch.from_numpy(y)], torch.from_numpy(count)
    expected = -0.1 * ((s[:, None] * (1 / 3 - ys)).t() @ xs) / s.sum()
    torch.testing.assert_close(state["weight"][0].double(), expected, rtol=1e-4, atol=1e-6)


def test_mnist_ends_at_the_optimum_of_the_courses_objective(run):
    folder = run("optimizer=exact", "data.split=course", "data.train_size=2000", "penalize_bias=true", "l2=[0.02,2]")
    for row in rows_of(folder):
        assert row["gap"] <= 1e-6
        J = row["train_loss"] + row["l2"] / 2 * row["weight_norm_squared"]  # the bias is among them
        assert row["objective"] == pytest.approx(J, rel=1e-9)


@pytest.mark.draws
def test_the_choice_is_refitted_told_and_drawn(command, features, tmp_path):
    words = [*EXACT, features, f"data.test={tmp_path}/test.npz", f"l2={L2}", "hydra.run.dir=outputs/probe"]
    words += ["select.metric=mean_per_class", "select.rule=one_standard_error", "select.refit=true"]
    ended = command(*words)
    assert ended.code == 0, ended.err
    rows = rows_of(Path("outputs/probe"))
    (chosen,) = [row for row in rows if row["selected"] == "true"]
    least = max(row["val_mean_per_class"] - row["val_mean_per_class_se"] for row in rows)
    assert chosen["l2"] == max(row["l2"] for row in rows if row["val_mean_per_class"] >= least - 1e-9)
    told = "* selected by its validation mean per class: the largest l2 within one standard error of the best"
    assert told in ended.out
    figures = f"test loss {chosen['refit_test_loss']:.4f}, accuracy {chosen['refit_test_accuracy']:.4f}"
    assert f"refitted on train + val at l2={chosen['l2']:g}: {figures}, gap " in ended.out
    assert {path.stem for path in Path("outputs/probe").glob("*.png")} == {
        "validation_curve",
        "confusion",
        "reliability",
    }
    shutil.rmtree("outputs/probe/checkpoints")
    again = command(*words)
    assert again.code == 0, again.err
    assert "has finished already" in again.err + again.out + Path("outputs/probe/train.log").read_text()


REFUSED = [
    (["lr=0.1"], "lr: optimizer=exact has no use for it; accepted is the command without it"),
    (["batch_size=64"], "batch_size: optimizer=exact has no use for it"),
    (["callbacks.early_stopping=null"], "callbacks.early_stopping: optimizer=exact has no use for it"),
    (["trainer.precision=bf16-true"], "trainer.precision=bf16-true: accepted with optimizer=exact are 32-true"),
    (["optimizer.momentum=0.9"], "optimizer.momentum: no such key with optimizer=exact"),
    (["optimizer.tolerance=0"], "optimizer.tolerance=0: accepted is a number > 0"),
    (["l2=automatic"], "l2=automatic: accepted is a number >= 0 or a list of them, like 2.0 or [0,0.02,2], or auto"),
]


@pytest.mark.parametrize(("words", "line"), REFUSED, ids=[words[0] for words, _ in REFUSED])
def test_what_it_has_no_use_for_is_refused(words, line, command, features):
    ended = command(*EXACT, features, *words)
    assert ended.code == 1
    assert line in ended.err
    assert not list(Path("outputs").rglob("results.csv"))


def test_an_experiments_settings_are_passed_over(command):
    ended = command("experiment=report_logistic", "optimizer=exact", "l2=0.1", "data.train_size=500")
    assert ended.code == 0, ended.err
    assert "gap" in ended.out


def test_a_finished_run_of_automatic_values_is_known_again(command, features):
    words = [*EXACT, features, "l2=auto", "hydra.run.dir=outputs/probe"]
    assert command(*words).code == 0
    shutil.rmtree("outputs/probe/checkpoints")
    again = command(*words)
    assert again.code == 0, again.err
    assert "has finished already" in again.err + again.out + Path("outputs/probe/train.log").read_text()


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.torture)])
def test_many_values_are_solved(count, run, tmp_path):
    x, y = datasets.load_wine(return_X_y=True)
    np.savez(tmp_path / "wine.npz", x=x, y=y)
    values = [10 ** (1 - 5 * i / (count - 1)) for i in range(count)]
    folder = run(*EXACT, f"data.train={tmp_path}/wine.npz", f"l2={values}", "logger=none")
    rows = rows_of(folder)
    assert len(rows) == count
    assert max(row["gap"] for row in rows) <= 1e-6


def test_the_file_has_one_header(run, features):
    folder = run(*EXACT, features, "l2=0.1")
    with open(folder / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert math.isclose(float(row["gap"]), rows_of(folder)[0]["gap"])
