"""LinearProbe is a scikit-learn classifier, and its optimum is LogisticRegression's."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from handgrad import LinearProbe, load
from handgrad.estimator import Entry
from tests.finished import classifier_of, finished_run


@parametrize_with_checks([LinearProbe(), LinearProbe(l2=[0.1, 0.01], cv=2)])
def test_it_is_what_scikit_learn_asks_for(estimator, check):
    check(estimator)


@pytest.mark.parametrize("load", [datasets.load_digits, datasets.load_breast_cancer, datasets.load_wine])
@pytest.mark.parametrize("l2", [0.1, 1e-3])
def test_its_optimum_is_that_of_logistic_regression(load, l2):
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    ours = LinearProbe(l2=l2).fit(X, y)
    theirs = LogisticRegression(C=1 / (l2 * len(y)), tol=1e-10, max_iter=100_000).fit(X, y)
    assert pytest.approx(theirs.C) == ours.C_
    assert np.abs(ours.coef_ - theirs.coef_).max() <= 1e-3 * np.abs(theirs.coef_).max()
    assert np.abs(ours.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-4
    assert ours.coef_.shape == theirs.coef_.shape
    assert (ours.predict(X) == theirs.predict(X)).all()
    assert ours.decision_function(X).shape == theirs.decision_function(X).shape
    assert ours.gap_ <= 1e-6


@pytest.mark.parametrize("load", [datasets.load_digits, datasets.load_breast_cancer, datasets.load_wine])
def test_its_choice_is_that_of_logistic_regression(load):
    X, y = load(return_X_y=True)
    X, y, values = StandardScaler().fit_transform(X)[y < 4][::2], y[y < 4][::2], [0.1, 0.01, 1e-3]
    cv = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    Cs = [3 / (2 * l2 * len(y)) for l2 in values]  # C = 1 / (l2 N) of a fold's N = 2/3 of all samples
    options = dict(scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False, solver="newton-cholesky")
    theirs = LogisticRegressionCV(Cs=Cs, cv=cv, **options).fit(X, y)
    ours = LinearProbe(values, cv=cv).fit(X, y)
    np.testing.assert_allclose(ours.cv_scores_, -theirs.scores_[:, 0], rtol=1e-2)  # one sample more or less in a fold
    assert values[Cs.index(theirs.C_)] == ours.l2_


@pytest.mark.parametrize(
    "options", [dict(fit_intercept=False), dict(class_weight="balanced"), dict(class_weight={0: 3.0})]
)
def test_its_options_are_those_of_logistic_regression(options):
    X, y = datasets.load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)[y != 2][:-20]
    y = y[y != 2][:-20]
    weight = np.random.default_rng(0).random(len(y))
    of_class = {"balanced": len(y) / (2 * np.bincount(y))}.get(str(options.get("class_weight")), np.ones(2))
    of_class = np.array([3.0, 1.0]) if options.get("class_weight") == {0: 3.0} else of_class
    whole = (weight * of_class[y]).sum()
    ours = LinearProbe(l2=0.01, **options).fit(X, y, weight)
    options = options if "class_weight" not in options else {"class_weight": dict(enumerate(of_class))}
    theirs = LogisticRegression(C=1 / (0.01 * whole), tol=1e-10, max_iter=10_000, **options).fit(X, y, weight)
    assert pytest.approx(theirs.C) == ours.C_
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-3, atol=1e-4)


def iris():
    X, y = datasets.load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


def test_a_path_has_an_entry_for_each_value_in_the_given_order():
    X, y = iris()
    probe = LinearProbe(l2=[1e-3, 0.1, 1e-2]).fit(X, y)
    assert [entry.l2_ for entry in probe.path_] == [1e-3, 0.1, 1e-2]
    for entry in probe.path_:
        alone = LinearProbe(l2=entry.l2_).fit(X, y)
        np.testing.assert_allclose(entry.coef_, alone.coef_, rtol=1e-5, atol=1e-7)
        assert pytest.approx(1 / (entry.l2_ * len(y))) == entry.C_
        assert isinstance(entry, Entry)
    assert not hasattr(probe, "coef_")
    with pytest.raises(ValueError, match="none of the 3 l2 values was chosen; accepted are cv=5"):
        probe.predict(X)
    with pytest.raises(NotFittedError):
        LinearProbe().predict(X)


@pytest.mark.parametrize(
    "cv", [5, StratifiedKFold(5), PredefinedSplit(np.arange(150) % 5)], ids=["5", "splitter", "predefined"]
)
def test_cross_validation_chooses_the_value_that_separate_fits_would(cv):
    X, y = iris()
    values = [1.0, 0.1, 1e-2, 1e-3, 1e-4]
    probe = LinearProbe(l2=values, cv=cv, metric="accuracy").fit(X, y)
    assert probe.cv_scores_.shape == (5, 5)
    if cv != 5:
        for column, l2 in enumerate(values):
            scores = cross_val_score(LinearProbe(l2=l2), X, y, cv=cv)
            np.testing.assert_allclose(probe.cv_scores_[:, column], scores)
    means = probe.cv_scores_.mean(0)
    assert probe.l2_ == values[int(np.flatnonzero(means == means.max())[0])]
    np.testing.assert_array_equal(probe.coef_, probe.path_[values.index(probe.l2_)].coef_)


def test_automatic_values_are_chosen_from():
    X, y = iris()
    probe = LinearProbe(l2="auto", cv=5).fit(X, y)
    values = [entry.l2_ for entry in probe.path_]
    assert len(values) == 20
    assert values[0] / values[-1] == pytest.approx(1e8, rel=1e-3)
    assert probe.l2_ in values
    assert probe.score(X, y) > 0.95


def test_it_takes_tensors_and_half_precision():
    X, y = iris()
    expected = LinearProbe(l2=0.01).fit(X.astype(np.float16).astype(np.float64), y)
    for given in (X.astype(np.float16), torch.from_numpy(X).half(), torch.from_numpy(X).half().double()):
        probe = LinearProbe(l2=0.01).fit(given, y)
        np.testing.assert_allclose(probe.coef_, expected.coef_, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(probe.predict_proba(given), expected.predict_proba(X.astype(np.float16)), atol=1e-5)
    numbers = torch.arange(150) // 50
    assert LinearProbe().fit(torch.from_numpy(X).bfloat16(), numbers).predict(X).dtype == np.int64


@pytest.mark.parametrize("normalize", ["center", "standardize", "l2"])
def test_normalization_is_part_of_it(normalize):
    X, y = iris()
    probe = LinearProbe(l2=0.01, normalize=normalize).fit(X, y)
    Z = {
        "center": lambda: X - X.mean(0),
        "standardize": lambda: StandardScaler().fit_transform(X),
        "l2": lambda: X / np.linalg.norm(X, axis=1, keepdims=True),
    }[normalize]()
    np.testing.assert_allclose(probe.predict_proba(X), LinearProbe(l2=0.01).fit(Z, y).predict_proba(Z), atol=1e-6)


def test_a_class_without_weight_has_the_probability_0():
    X, y = iris()
    for gone, classes in (("setosa", 2), (None, 3)):
        weight = (y != gone).astype(float)
        probe = LinearProbe(l2=0.01).fit(X, y, weight)
        alone = LinearProbe(l2=0.01).fit(X[y != gone], y[y != gone])
        found = probe.predict_proba(X)
        assert len(probe.classes_) == found.shape[1] == 3
        np.testing.assert_allclose(found[:, 3 - classes :], alone.predict_proba(X), atol=1e-7)
        assert (found[:, : 3 - classes] == 0).all()


def test_it_works_within_scikit_learn():
    X, y = iris()
    pipeline = make_pipeline(StandardScaler(), LinearProbe()).set_output(transform="default")
    search = GridSearchCV(pipeline, {"linearprobe__l2": [1.0, 0.01]}, cv=3).fit(X, y)
    assert search.best_params_ == {"linearprobe__l2": 0.01}
    probe = LinearProbe(l2=[0.1, 0.2], cv=3, metric="f1_macro", normalize="l2")
    assert clone(probe).get_params() == probe.get_params()


def test_an_entry_that_is_not_proven_is_told():
    X, y = datasets.load_digits(return_X_y=True)
    with pytest.warns(
        ConvergenceWarning, match=r"the gap is above tolerance=1e-06 at l2=0\.001 \(.*; raise max_iterations"
    ):
        LinearProbe(max_iterations=1).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearProbe().fit(X[:300], y[:300])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(l2=-1), r"l2=-1: accepted are a number >= 0, a list of them, and 'auto'"),
        (dict(l2="outo"), r"l2='outo': accepted are"),
        (dict(l2=[]), r"l2=\[\]: accepted are"),
        (dict(metric="acuracy"), r"metric='acuracy': accepted are .*; did you mean 'accuracy'\?"),
        (dict(normalize="standard"), r"normalize='standard': accepted are none, .*; did you mean 'standardize'\?"),
        (dict(device="cuda"), r"device='cuda': accepted are None, cpu"),
        (dict(dtype="float16"), r"dtype='float16': accepted are"),
        (dict(tolerance=0), r"tolerance=0: accepted is a number > 0"),
        (dict(fit_intercept="no"), r"fit_intercept='no': accepted are True and False"),
        (dict(class_weight={"rose": 1.0}), r"class_weight: no class 'rose'; accepted are 'setosa'"),
        (dict(l2=[1, 2], cv=200), r"folds=200: accepted are 2 to 150"),
    ],
)
def test_what_is_not_accepted_is_told_in_one_line(options, message):
    X, y = iris()
    with pytest.raises(ValueError, match=message) as told:
        LinearProbe(**options).fit(X, y)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("classes", [["a", "b"], [3, 5, 7]])
def test_a_run_becomes_an_estimator(classes, tmp_path):
    found = classifier_of(classes)
    probe = load(finished_run(tmp_path, found))
    X = np.random.default_rng(0).normal(size=(20, 5))
    expected = found.probabilities(found.logits(torch.from_numpy(X))).numpy()
    np.testing.assert_allclose(probe.predict_proba(X), expected, atol=1e-12)
    assert probe.classes_.tolist() == classes
    assert (probe.l2_, probe.C_, probe.gap_) == (0.05 if len(classes) == 2 else 0.1, 0.5, 1e-7)
    assert probe.coef_.shape == (1 if len(classes) == 2 else 3, 5)
    with pytest.raises(ValueError, match=r"X has 4 features, but LinearProbe is expecting 5"):
        probe.predict(X[:, :4])


def test_neither_lightning_nor_hydra_is_loaded():
    code = "import handgrad, sys; handgrad.LinearProbe; print({'pytorch_lightning', 'hydra'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
