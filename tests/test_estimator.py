"""LinearProbe is a scikit-learn classifier, and its optimum is LogisticRegression's."""

import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, LeaveOneOut, PredefinedSplit, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import handgrad
from handgrad import LinearProbe, load
from handgrad.cross_validation import PartialFits
from handgrad.data.splits import fold_index
from handgrad.estimator import BEYOND, Entry
from handgrad.metrics import Score
from tests.finished import classifier_of, finished_run


@pytest.mark.slow
@parametrize_with_checks([LinearProbe(), LinearProbe(l2=[0.1, 0.01], cv=2)])
def test_it_is_what_scikit_learn_asks_for(estimator, check):
    check(estimator)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
        (dict(l2=[1, 2], cv=200), r"^cv=200: accepted are 2 to 150"),
        (dict(normalize=["l2"]), r"normalize=\['l2'\]: accepted are none, "),
        (dict(max_iterations=0), r"^max_iterations=0: accepted is a whole number >= 1"),
        (dict(max_iterations=1.5), r"^max_iterations=1.5: accepted is a whole number >= 1"),
        (dict(class_weight="balance"), r"^class_weight='balance': accepted are None, 'balanced', or a table"),
        (dict(class_weight=np.ones(3)), r"^class_weight=array\(.*: accepted are None"),
        (dict(l2=[1, 2], cv=5, random_state=-1), r"^random_state=-1: accepted are a whole number >= 0"),
    ],
)
def test_what_is_not_accepted_is_told_in_one_line(options, message):
    X, y = iris()
    with pytest.raises(ValueError, match=message) as told:
        LinearProbe(**options).fit(X, y)
    assert "\n" not in str(told.value)


# --- Folds ------------------------------------------------------------------------------------------------------------


def refused(message, *weight, y=None, **options):
    """The fit raises one line, and nothing is fitted."""
    X, given = iris()
    probe = LinearProbe(**options)
    with pytest.raises(ValueError, match=message) as told:
        probe.fit(X, given if y is None else y, *weight)
    assert "\n" not in str(told.value)
    assert not hasattr(probe, "path_")


@pytest.mark.parametrize("cv", [0, -1, 1, True, np.True_, 2.0, [], "a", StratifiedKFold], ids=str)
@pytest.mark.parametrize("l2", [0.1, [0.1, 1.0]])
def test_what_does_not_say_how_to_split_is_refused(cv, l2):
    refused(r"^cv=.*: accepted are a whole number >= 2, a splitter, an iterable of splits, or None$", l2=l2, cv=cv)


THIRD = np.arange(150) % 3 == 0


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ((~THIRD, []), "^cv: fold 0 to hold out: no sample; accepted is one or more"),
        ((~THIRD, [150]), "^cv: fold 0 to hold out: index 150; accepted are -150 to 149"),
        ((~THIRD, [3, -147]), "^cv: fold 0 to hold out: a sample stands there twice"),
        (
            ([0.0, 1.0], THIRD),
            r"^cv: fold 0 to train on: float64 \(2,\); accepted are indices, or a mask of 150 samples",
        ),
        (3, "^cv: fold 0: accepted is a pair"),
        ((np.arange(100), np.arange(100, 150)), "^cv: fold 0 has no sample that weighs anything of class 'virginica'"),
    ],
)
def test_a_split_that_can_not_be_made_is_refused(split, message):
    refused(message, l2=[0.1, 1.0], cv=[split])


def test_masks_and_negative_indices_are_as_numpy_has_them():
    X, y = iris()
    train, held = np.flatnonzero(~THIRD), np.flatnonzero(THIRD)
    splits = [(train, held), (~THIRD, THIRD), (train - 150, held[::-1].tolist())]
    scores = LinearProbe(l2=[0.1, 1.0], cv=iter(splits)).fit(X, y).cv_scores_
    np.testing.assert_array_equal(scores, scores[[0, 0, 0]])


@pytest.mark.parametrize("cv", [LeaveOneOut(), [(~THIRD, np.arange(100))]], ids=["one", "two classes"])
def test_a_score_that_is_not_defined_is_told_before_the_fits(cv, monkeypatch):
    monkeypatch.setattr("handgrad.cross_validation.PartialFits.fit", None)
    refused(
        "^cv: fold 0 holds out no sample of class .*'virginica', without which auroc", l2=[1, 2], cv=cv, metric="auroc"
    )


def test_a_score_that_is_not_a_number_chooses_nothing(monkeypatch):
    monkeypatch.setattr("handgrad.estimator.score", lambda metric, outcome: Score(np.nan, np.nan))
    refused("^cv: loss is not defined in fold 0 at l2=1; accepted are other metrics or fewer folds", l2=[1, 2], cv=2)


def test_a_class_whose_weight_is_in_one_fold_is_told():
    weight = np.ones(150)
    weight[1:50] = 0
    refused("^cv: fold . has no sample that weighs anything of class 'setosa' to train on", weight, l2=[1, 2], cv=3)


@pytest.mark.parametrize("cv", [3, StratifiedKFold(3)], ids=["3", "splitter"])
@pytest.mark.parametrize("gone", ["setosa", "virginica"])
def test_a_class_without_weight_is_in_no_fold(cv, gone):
    X, y = iris()
    kept = y != gone
    probe = LinearProbe(l2=[0.1, 0.01], cv=cv, metric="auroc").fit(X, y, kept.astype(float))
    if cv != 3:  # the same folds of the others
        cv = [[np.isin(np.flatnonzero(kept), part) for part in split] for split in cv.split(X, y)]
    alone = LinearProbe(l2=[0.1, 0.01], cv=cv, metric="auroc").fit(X[kept], y[kept])
    np.testing.assert_allclose(probe.cv_scores_, alone.cv_scores_)
    assert probe.l2_ == alone.l2_
    assert len(probe.classes_) == 3


def test_an_integer_random_state_is_the_seed_of_the_folds():
    X, y = iris()
    fold = fold_index(torch.arange(150) // 50, np.unique(y).tolist(), 5, 7).numpy()
    for state in (7, np.int64(7)):
        found = LinearProbe(l2=[0.1, 0.01], cv=5, random_state=state).fit(X, y)
        given = LinearProbe(l2=[0.1, 0.01], cv=PredefinedSplit(fold)).fit(X, y)
        np.testing.assert_array_equal(found.cv_scores_, given.cv_scores_)
    drawn = LinearProbe(l2=[0.1, 0.01], cv=5, random_state=np.random.RandomState(7)).fit(X, y)
    assert (drawn.cv_scores_ != found.cv_scores_).any()


def test_folds_are_not_refined(monkeypatch):
    refined = []
    fit = PartialFits.fit
    monkeypatch.setattr(
        PartialFits, "fit", lambda self, *part, **more: refined.append(self.solver.refine) or fit(self, *part, **more)
    )
    LinearProbe(l2=[0.1, 0.01], cv=3).fit(*iris())
    assert sorted(refined) == [0, 0, 0, BEYOND]


# --- What it tells, and takes -----------------------------------------------------------------------------------------


def test_without_a_certificate_only_the_end_of_the_iterations_is_told():
    X, y = iris()
    X, y = X[50:], y[50:]  # not separable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(LinearProbe(l2=0).fit(X, y).gap_)
    with pytest.warns(ConvergenceWarning, match="l2=0 came to its end after max_iterations=2; raise it"):
        LinearProbe(l2=0, max_iterations=2).fit(X, y)


def test_a_choice_at_the_edge_is_a_warning():
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(60, 20)), np.arange(60) % 2
    with pytest.warns(
        UserWarning, match="is selected, at the edge of those that were tried: a better one may lie above"
    ):
        LinearProbe(l2="auto", cv=3).fit(X, y)


@pytest.mark.parametrize("size", [1.0, 0.1, 1e-20])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_constant_features_have_no_automatic_values(size, fit_intercept):
    X, y = iris()
    with pytest.raises(ValueError, match=r"^l2=auto: no feature tells anything of the classes"):
        LinearProbe(l2="auto", fit_intercept=fit_intercept).fit(np.full_like(X, size), y)
    assert len(LinearProbe(l2="auto", fit_intercept=fit_intercept).fit(size * X, y).path_) == 20


def test_a_fit_that_failed_leaves_nothing():
    X, y = iris()
    probe = LinearProbe(l2=[0.1, 0.01], cv=3).fit(X, y)
    with pytest.raises(ValueError, match="weight"):
        probe.fit(X[:, :2], y[::-1], np.r_[np.ones(50), np.zeros(100)])
    assert not {"path_", "coef_", "l2_", "cv_scores_"} & {*vars(probe)}
    with pytest.raises(NotFittedError):
        probe.predict(X)


@pytest.mark.parametrize("dtype", [np.longdouble, ">f8", ">f4", ">i4"])
def test_it_takes_numbers_that_torch_does_not_know(dtype):
    X, y = iris()
    X = np.round(10 * X)
    probe, expected = (LinearProbe(l2=0.1).fit(given, y) for given in (X.astype(dtype), X))
    np.testing.assert_allclose(probe.predict_proba(X.astype(dtype)), expected.predict_proba(X), atol=1e-6)


def test_numbers_too_long_are_told():
    with pytest.raises(ValueError, match="infinity"):
        LinearProbe().fit(np.longdouble("1e400") * iris()[0].astype(np.longdouble), iris()[1])


def test_logarithms_of_probabilities():
    X, y = iris()
    probe = LinearProbe(l2=0.01).fit(X, y)
    np.testing.assert_allclose(probe.predict_log_proba(X), np.log(probe.predict_proba(X)), rtol=1e-9)
    assert np.isfinite(probe.predict_log_proba(1e4 * X)).all()
    with np.errstate(divide="ignore"):
        assert np.isinf(np.log(probe.predict_proba(1e4 * X))).any()


def test_it_predicts_from_a_memory_map(tmp_path):
    X, y = iris()
    probe = LinearProbe().fit(X, y)
    joblib.dump(probe, tmp_path / "probe.joblib")
    mapped = joblib.load(tmp_path / "probe.joblib", mmap_mode="r")
    assert isinstance(mapped.coef_, np.memmap)
    np.testing.assert_array_equal(mapped.predict_proba(X), probe.predict_proba(X))


def test_the_package_lists_what_it_has():
    assert {"LinearProbe", "load"} <= {*dir(handgrad)}
    space = {}
    exec("from handgrad import *", space)
    assert space["LinearProbe"] is LinearProbe
    assert space["load"] is load


# --- Runs -------------------------------------------------------------------------------------------------------------


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


def test_another_l2_of_a_run_becomes_one_too(tmp_path):
    run = finished_run(tmp_path, classifier_of([3, 5, 7]))
    chosen, other = load(run), load(run, l2=0.01)
    assert (other.l2_, other.C_) == (0.01, 100)
    np.testing.assert_allclose(other.coef_, 0.01 * chosen.coef_)
    for l2, message in ((0.5, "l2=0.5: none of this run; accepted are"), ("a", "l2='a': accepted are the l2 values")):
        with pytest.raises(ValueError, match=message):
            load(run, l2)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "notes.md").touch()
    with pytest.raises(ValueError, match=r"notes.md: a file; accepted is the folder of a finished run"):
        load(tmp_path / "notes.md")
