"""Multi-label regression: a sigmoid for each label; from files to a certified optimum, or by SGD and Adam."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, log_loss
from sklearn.multiclass import OneVsRestClassifier

from handgrad.cli.configuration import check
from handgrad.errors import InputError
from handgrad.fit import fit
from handgrad.functions.objective import MULTILABEL
from handgrad.models.multilabel_regression import MultilabelRegression
from handgrad.models.softmax_regression import SoftmaxRegression
from handgrad.solvers.exact import Exact
from handgrad.solvers.sgd import SGD
from tests.conftest import results
from tests.data.feature_samples import data_of


def drawn(samples: int = 240, labels: int = 3):
    """Returns features (N, 5), and labels that follow from them with noise, the last one rare."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(samples, 5))
    odds = x @ generator.normal(size=(5, labels)) + generator.logistic(size=(samples, labels)) - np.arange(labels)
    return x, (odds > 0).astype(np.int64)


@pytest.fixture
def files(tmp_path) -> dict:
    """Two files of samples."""
    x, y = drawn()
    np.savez(tmp_path / "train.npz", x=x[:160], y=y[:160])
    np.savez(tmp_path / "val.npz", x=x[160:], y=y[160:])
    return {"train": tmp_path / "train.npz", "val": tmp_path / "val.npz"}


def test_an_output_for_each_label():
    model = MultilabelRegression(num_features=7, num_classes=3, l2=[0, 1])
    assert (model.weight.shape, model.bias.shape) == ((2, 3, 7), (2, 3))
    assert MultilabelRegression.task == "multilabel"
    assert MultilabelRegression.criterion is MULTILABEL


def test_a_sample_has_the_labels_whose_logits_are_positive():
    logits = torch.tensor([[[0.5, -1, 2], [-1, 0, -2]]])
    assert MultilabelRegression.decide(logits).tolist() == [[[1, 0, 1], [0, 0, 0]]]
    model = MultilabelRegression(num_features=1, num_classes=3, l2=[0])
    for target, right in (([[1, 0, 1], [0, 0, 0]], 2), ([[1, 0, 1], [0, 1, 0]], 1), ([[0, 0, 1], [1, 0, 0]], 0)):
        assert model.right(logits, torch.tensor(target)).tolist() == [right]


def test_two_labels_have_the_C_of_two_sigmoids():
    assert MultilabelRegression(num_features=1, num_classes=2, l2=[0]).inverse_penalty(0.01, 200) == 0.5
    assert SoftmaxRegression(num_features=1, num_classes=2, l2=[0]).inverse_penalty(0.01, 200) == 1.0


def test_the_mean_average_precision_is_that_of_the_best_weights(monkeypatch):
    x, y = drawn()
    model = MultilabelRegression(num_features=5, num_classes=3, l2=[0, 1])
    model.best_weight, model.best_bias = (
        torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((2, 3, 5), (2, 3))
    )
    for rows in (2**20, 35):  # all at once, or 7 samples at a time
        monkeypatch.setattr("handgrad.models.multilabel_regression.NUMBERS_AT_ONCE", rows)
        for entry in (0, 1):
            found = model.ranked(entry, (torch.from_numpy(x), torch.from_numpy(y)))
            logits = torch.from_numpy(x).float() @ model.best_weight[entry].t() + model.best_bias[entry]
            assert found == pytest.approx(average_precision_score(y, logits, average="macro"), rel=1e-6)


def test_it_ends_where_scikit_learn_does(files):
    data = data_of(**files, multilabel=True)
    model = MultilabelRegression(num_features=5, num_classes=3, l2=[0.1, 0.001])
    result = fit(data, model, Exact(1e-9, 100), accelerator="cpu", threads=1)
    x, y = drawn()
    for entry, row in enumerate(result.rows):
        theirs = OneVsRestClassifier(LogisticRegression(C=row["C"], tol=1e-10, max_iter=1000)).fit(x[:160], y[:160])
        p = theirs.predict_proba(x[160:])
        z = torch.from_numpy(x[160:]) @ result.model.best_weight[entry].t() + result.model.best_bias[entry]
        assert torch.allclose(torch.sigmoid(z), torch.from_numpy(p), atol=1e-4)
        assert row["val_accuracy"] == accuracy_score(y[160:], p > 0.5)
        assert row["val_loss"] == pytest.approx(sum(map(log_loss, y[160:].T, p.T)), rel=1e-4)
        assert row["val_map"] == pytest.approx(average_precision_score(y[160:], p, average="macro"), abs=1e-6)
        assert (row["test_map"], row["converged"]) == (None, "true")


def test_a_model_of_one_label_is_refused(files):
    softmax = SoftmaxRegression(num_features=5, num_classes=3, l2=[0.1])
    with pytest.raises(InputError, match="SoftmaxRegression, of data whose samples have several labels"):
        fit(data_of(**files, multilabel=True), softmax, SGD(lr=0.1))
    np.savez(files["train"], x=np.zeros((9, 5)), y=np.arange(9) % 3)
    model = MultilabelRegression(num_features=5, num_classes=3, l2=[0.1])
    with pytest.raises(InputError, match="MultilabelRegression, of data whose samples have one label"):
        fit(data_of(train=files["train"]), model, SGD(lr=0.1))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "exact"])
def test_a_run(optimizer, files, run):
    given = [f"data.{name}={file}" for name, file in files.items()]
    words = [] if optimizer == "exact" else ["epochs=3", "batch_size=16"]
    folder = run("task=multilabel", "data=features", *given, f"optimizer={optimizer}", "l2=[0.1,0.01]", *words)
    rows = results(folder)
    assert [row["task"] for row in rows] == ["multilabel"] * 2
    assert [row["classes"] for row in rows] == ["0 1 2"] * 2
    for row in rows:
        assert row["val_loss"] < 3 * np.log(2)
        assert 0.5 < row["val_map"] <= 1
        assert 0 <= row["gap"] <= (1e-6 if optimizer == "exact" else 1)
        assert row["C"] == pytest.approx(1 / (160 * row["l2"]))
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert state["weight"].shape == (2, 3, 5)
    x, y = drawn()
    logits = torch.einsum("lkd,nd->lnk", state["weight"].double(), torch.from_numpy(x[160:])) + state["bias"][:, None]
    for entry, row in enumerate(rows):
        right = ((logits[entry] > 0).long().numpy() == y[160:]).all(1).mean()
        assert row["val_accuracy"] == pytest.approx(right)


def test_data_of_one_label_are_refused(composed):
    for words, message in (
        (("data=mnist",), "data=mnist: a sample has one label; accepted with task=multilabel is data=features"),
        (("data=features", "task.multilabel=false"), "task.multilabel=false: not to be set"),
    ):
        with pytest.raises(InputError, match=message):
            check(composed("task=multilabel", *words))
