"""A scikit-learn classifier: the certified optimum of each l2 value. No Lightning, no Hydra, no files."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from handgrad.cross_validation import Fitted, PartialFits
from handgrad.data.labels import class_weights, is_whole, listed
from handgrad.data.normalization import KINDS, to_length_one
from handgrad.data.rows import Rows
from handgrad.data.splits import fold_index, split_of
from handgrad.errors import InputError, nearest
from handgrad.functions.objective import LOGISTIC, SOFTMAX, Objective
from handgrad.metrics import METRICS, Score, decide, log_probabilities, score
from handgrad.selection import Selection, automatic_values, edge
from handgrad.solvers.exact import Exact
from handgrad.training.pipeline import Pipeline

NUMBERS_AT_ONCE = 2**20  # features that are cast, of the samples that are predicted at once
BEYOND = 3  # steps of Newton's beyond the certificate, on small problems
DTYPES = {None: torch.float32, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Entry:
    """The classifier of one l2 value.

    Attributes:
        l2_, C_: the penalty, and scikit-learn's name for it, ``1 / (l2 * sum of the sample weights)``.
        coef_, intercept_: (K, D) and (K,), with K = 1 for two classes.
        gap_: how far its objective is from the minimum at most, relative to it; NaN where l2 is 0.
        n_iter_: iterations of the solver.
    """

    l2_: float
    C_: float
    coef_: np.ndarray
    intercept_: np.ndarray
    gap_: float
    n_iter_: int


class LinearProbe(ClassifierMixin, BaseEstimator):
    """Logistic and softmax regression with an L2 penalty, each to a certified optimum.

    Minimizes ``J = sum_n s_n (-ln p[n, y_n]) / sum_n s_n + l2/2 sum coef_^2`` by derived gradients: scikit-learn's
    ``LogisticRegression(C=1 / (l2 * sum s))``. Two classes are one sigmoid.

    Args:
        l2: the penalty, >= 0; a list of them, the whole path of which is solved; or ``"auto"``: 20 values that suit the
            data. With l2 = 0 there is no certificate.
        cv: how one of several l2 values is chosen: the number of folds, from 2, a splitter, or an iterable of splits,
            each two arrays of indices or masks. None: none is chosen.
        metric: by which it is chosen: ``loss``, ``accuracy``, ``mean_per_class``, ``f1_macro`` or ``auroc``; the mean
            over the folds.
        class_weight: None, ``"balanced"``, or a table of weights by class, 1 for those that it lacks.
        fit_intercept: whether there is an intercept.
        penalize_bias: whether the penalty counts the intercept too.
        normalize: ``none``, ``center``, ``standardize``, or ``l2`` (each row to length 1); by the training samples.
            The first three are folded into ``coef_`` and ``intercept_``.
        tolerance: of the gap; an entry above it gives a ConvergenceWarning.
        max_iterations: of an l2 value, from 1; with l2 = 0 it is they that give the ConvergenceWarning.
        device: None or ``"cpu"``.
        dtype: of the products, where the optimum does not ask for more: None or ``"float32"``; ``"float64"``.
        random_state: of the folds, where ``cv`` is a number: their seed, so that ``cv=5`` draws the folds of a run with
            ``data.folds=5`` and that ``seed``; a RandomState; or None.

    Attributes:
        classes_: (C,). n_features_in_: D.
        path_: an ``Entry`` for each l2 value, in the given order, fitted on all samples.
        coef_, intercept_, l2_, C_, gap_, n_iter_: of the chosen entry, as in ``Entry``; where none was chosen they are
            missing.
        cv_scores_: (folds, L), what ``metric`` gave, where ``cv`` chose.

    Raises:
        ValueError: (by ``fit``) an argument or the data are not as described, in one line or in scikit-learn's words.
    """

    def __init__(
        self,
        l2: float | Sequence[float] | str = 1e-3,
        *,
        cv: Any = None,
        metric: str = "loss",
        class_weight: Any = None,
        fit_intercept: bool = True,
        penalize_bias: bool = False,
        normalize: str = "none",
        tolerance: float = 1e-6,
        max_iterations: int = 1000,
        device: str | None = None,
        dtype: str | None = None,
        random_state: Any = 0,
    ) -> None:
        self.l2 = l2
        self.cv = cv
        self.metric = metric
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.penalize_bias = penalize_bias
        self.normalize = normalize
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.device = device
        self.dtype = dtype
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "LinearProbe":
        """Solves for each l2 value on the samples ``X (N, D)``, ``y (N,)``, and chooses one where ``cv`` says how.

        Args:
            X: a NumPy array, a torch tensor or what scikit-learn makes an array of; float16 too. It is not copied.
            sample_weight: (N,), >= 0.
        """
        self._forget()
        self._check_arguments()
        X, y = validate_data(self, as_array(X), as_array(y), dtype="numeric", ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        samples = Samples(X, torch.from_numpy(numbers), self._weights(X, sample_weight))
        with Pipeline(self._solver(), "auto") as pipeline:
            problem, present = self._problem(samples, pipeline)
            splits = self._splits(problem, samples, present)
            fitted = problem.fit(problem.all, None)
            scores = self._scores(problem.guided_by(fitted.weight, fitted.bias), splits)
        self.path_ = self._path(problem, fitted, present)
        self._choose(scores)
        for told, kind in self._warnings():
            warnings.warn(told, kind, stacklevel=2)
        return self

    def _check_arguments(self) -> None:
        """Raises an InputError that names an argument which is not as described."""
        found: Any
        choices: dict[str, Iterable[str | None]]
        choices = {"metric": METRICS, "normalize": KINDS, "dtype": DTYPES, "device": (None, "cpu")}
        for name, accepted in choices.items():
            found = getattr(self, name)
            if not isinstance(found, str | None) or found not in accepted:
                names = [str(value) for value in accepted]
                raise InputError(f"{name}={shown(found)}: accepted are {', '.join(names)}{nearest(str(found), names)}")
        for name in ("fit_intercept", "penalize_bias"):
            if not isinstance(found := getattr(self, name), bool | np.bool_):
                raise InputError(f"{name}={shown(found)}: accepted are True and False")
        if not is_number(found := self.tolerance) or found <= 0:
            raise InputError(f"tolerance={shown(found)}: accepted is a number > 0")
        if not is_whole(found := self.max_iterations) or found < 1:
            raise InputError(f"max_iterations={shown(found)}: accepted is a whole number >= 1")
        values = [] if isinstance(self.l2, str) else self._several()
        if self.l2 != "auto" if not values else not all(is_number(l2) and l2 >= 0 for l2 in values):
            raise InputError(f"l2={shown(self.l2)}: accepted are a number >= 0, a list of them, and 'auto'")
        if not isinstance(found := self.class_weight, Mapping | None) and not (
            isinstance(found, str) and found == "balanced"
        ):
            raise InputError(f"class_weight={shown(found)}: accepted are None, 'balanced', or a table like {{'a': 2}}")
        if not says_how_to_split(self.cv):
            accepted = "a whole number >= 2, a splitter, an iterable of splits, or None"
            raise InputError(f"cv={shown(self.cv)}: accepted are {accepted}")

    def _several(self) -> list[Any]:
        """Returns the l2 values as a list."""
        l2: Any = self.l2
        return [l2] if np.ndim(l2) == 0 else list(l2)

    def _forget(self) -> None:
        """Takes away what an earlier fit has found, so that none of it stands beside what this one finds."""
        for name in (*CHOSEN, "cv_scores_", "path_", "classes_", "n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)

    def _solver(self) -> Any:
        return Exact(
            self.tolerance, int(self.max_iterations), DTYPES[self.dtype], bool(self.fit_intercept), refine=BEYOND
        )

    def _weights(self, X: np.ndarray, sample_weight: Any) -> Tensor | None:
        """Returns what each sample weighs by itself, (N,) float64; None: all alike."""
        if sample_weight is None:
            return None
        found = _check_sample_weight(as_array(sample_weight), X, dtype=np.float64, ensure_non_negative=True)
        return torch.from_numpy(found.copy())

    def _problem(self, samples: "Samples", pipeline: Pipeline) -> tuple[PartialFits, list[int]]:
        """Returns what is to be solved on any part of the samples, and the classes that have weight."""
        of_class = class_weights(self.class_weight, self.classes_.tolist(), samples.target)
        counts = samples.target.bincount(samples.weight, minlength=len(of_class)) * of_class
        present = torch.where(counts > 0)[0]
        if len(present) < 2:
            raise InputError(f"LinearProbe: {len(present)} class has samples of weight; accepted are 2 classes or more")
        place = torch.zeros(len(of_class), dtype=torch.int64)
        place[present] = torch.arange(len(present))
        x = tensor_of(samples.X)
        objective = Objective(
            LOGISTIC if len(present) == 2 else SOFTMAX,
            torch.ones(1, dtype=torch.float64),
            bool(self.penalize_bias),
            run=pipeline.run,
        )
        outputs = 1 if len(present) == 2 else len(present)
        weigh = partial(self._weights_of_part, samples)
        rows = Rows([x], None, to_length_one) if self.normalize == "l2" else x
        problem = PartialFits(self._solver(), objective, outputs, rows, place[samples.target], weigh, self.normalize)
        l2 = automatic_values(problem.centred()) if isinstance(self.l2, str) else self._several()
        return replace(
            problem, objective=replace(objective, l2=torch.tensor(l2, dtype=torch.float64))
        ), present.tolist()

    def _weights_of_part(self, samples: "Samples", part: Tensor) -> Tensor | None:
        """Returns what the samples ``part (n,)`` weigh, of which ``balanced`` counts these alone."""
        if self.class_weight is None:
            return None if samples.weight is None else samples.weight[part]
        target = samples.target[part]
        of_sample = class_weights(self.class_weight, self.classes_.tolist(), target)[target]
        return of_sample if samples.weight is None else of_sample * samples.weight[part]

    def _path(self, problem: PartialFits, fitted: Fitted, present: list[int]) -> list[Entry]:
        """Returns the path on all samples."""
        weights = problem.weights(problem.all)
        whole = len(problem.target) if weights is None else weights.sum().item()
        return [
            Entry(l2, 1 / (l2 * whole) if l2 else np.inf, *self._of_all_classes(weight, bias, present), gap, iterations)
            for l2, weight, bias, gap, iterations in zip(
                problem.objective.l2.tolist(),
                fitted.weight,
                fitted.bias,
                fitted.report["gap"].tolist(),
                fitted.report["iterations"].tolist(),
                strict=True,
            )
        ]

    def _warnings(self) -> Iterator[tuple[str, type[Warning]]]:
        """Yields what is to be said of the path: what is not proven, and a choice at the edge of automatic values."""
        left = [
            f"{entry.l2_:g} ({entry.gap_:.1e})"
            for entry in self.path_
            if entry.l2_ and not entry.gap_ <= self.tolerance
        ]
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            told = f"the gap is above tolerance={self.tolerance:g} at l2={', '.join(left[:5])}{more}"
            yield f"{told}; raise max_iterations, normalize, or take a larger l2", ConvergenceWarning
        if any(not entry.l2_ and entry.n_iter_ >= self.max_iterations for entry in self.path_):
            told = f"l2=0 came to its end after max_iterations={self.max_iterations}"
            yield f"{told}; raise it, normalize, or take a larger l2", ConvergenceWarning
        tried = [entry.l2_ for entry in self.path_]
        if isinstance(self.l2, str) and hasattr(self, "l2_") and (told := edge(tried, self.l2_)):
            yield told, UserWarning

    def _of_all_classes(self, weight: Tensor, bias: Tensor, present: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns coef_ and intercept_; a class without weight has the probability 0."""
        count = len(self.classes_)
        if count == len(present):
            return weight.numpy(), bias.numpy()
        if len(weight) == 1:  # a sigmoid among more classes
            weight, bias = torch.cat((-weight, weight)) / 2, torch.cat((-bias, bias)) / 2
        coef, intercept = np.zeros((count, weight.shape[1])), np.full(count, -np.inf)
        coef[present], intercept[present] = weight.numpy(), bias.numpy()
        return coef, intercept

    def _choose(self, scores: np.ndarray | None) -> None:
        """Takes the only entry, or the best by the scores of the folds ``(folds, L)``."""
        if scores is not None:
            self.cv_scores_ = scores
            means = [Score(mean, np.nan) for mean in scores.mean(0).tolist()]
            self._take(Selection(self.metric, "best").choose([entry.l2_ for entry in self.path_], means))
        elif len(self.path_) == 1:
            self._take(0)

    def _scores(self, problem: PartialFits, splits: list[tuple[Tensor, Tensor]]) -> np.ndarray | None:
        """Returns what the metric gives in each fold, (folds, L); None where there are none.

        Weights that only choose need no steps beyond the certificate.
        """
        if not splits:
            return None
        problem = replace(problem, solver=replace(problem.solver, refine=0))
        fits = (fitted for _, group in problem.fits(splits, keep=self.metric == "auroc") for fitted in group)
        found = np.array([[score(self.metric, outcome).value for outcome in fitted.outcomes] for fitted in fits])
        if len(wrong := np.argwhere(np.isnan(found))):
            fold, entry = wrong[0].tolist()
            told = f"cv: {self.metric} is not defined in fold {fold} at l2={problem.objective.l2[entry]:g}"
            raise InputError(f"{told}; accepted are other metrics or fewer folds")
        return found

    def _splits(self, problem: PartialFits, samples: "Samples", present: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Returns the samples that train in each fold, and those held out, ascending; none where nothing is chosen.

        Samples of a class without weight are not held out: no classifier knows it.
        """
        if self.cv is None or len(problem.objective.l2) == 1:
            return []
        known = torch.isin(samples.target, torch.tensor(present))
        names = self.classes_[present].tolist()
        splits = self._drawn(problem, names, known) if is_whole(self.cv) else self._given(samples)
        splits = [(train, held[known[held]]) for train, held in splits]
        for number, (train, held) in enumerate(splits):
            target, weight = problem.target, problem.weights(train)
            check_fold(number, target[train].bincount(weight, minlength=len(names)), names)
            check_held(number, target[held].bincount(minlength=len(names)), names, self.metric)
        return splits

    def _drawn(self, problem: PartialFits, names: list[Any], known: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns the splits of a number of folds: those of the command line's ``data.folds``, of the same seed."""
        fold = torch.full((len(known),), -1)
        fold[known] = fold_index(problem.target[known], names, int(self.cv), self._seed(), setting="cv")
        return [(torch.where(fold != number)[0], torch.where(fold == number)[0]) for number in range(int(self.cv))]

    def _seed(self) -> int:
        """Returns the seed of the folds: an integer ``random_state`` itself."""
        if not is_whole(self.random_state):
            return int(check_random_state(self.random_state).randint(2**31))
        if self.random_state < 0:
            raise InputError(f"random_state={self.random_state}: accepted are a whole number >= 0, a RandomState, None")
        return int(self.random_state)

    def _given(self, samples: "Samples") -> list[tuple[Tensor, Tensor]]:
        """Returns the splits of a splitter or an iterable."""
        y = self.classes_[samples.target.numpy()]
        splits = list(self.cv.split(samples.X, y) if hasattr(self.cv, "split") else self.cv)
        if not splits:
            raise InputError(f"cv={shown(self.cv)}: it has no splits; accepted is one or more")
        return [split_of(split, len(y), f"cv: fold {number}") for number, split in enumerate(splits)]

    def _take(self, entry: int) -> None:
        for name in CHOSEN:
            setattr(self, name, getattr(self.path_[entry], name))

    # --- Predicting ---------------------------------------------------------------------------------------------------

    def decision_function(self, X: Any) -> np.ndarray:
        """Returns the logits of ``X (N, D)``: (N, C), or (N,) of ``classes_[1]`` where there are two classes."""
        logits = self._logits(X).numpy()
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probabilities of the classes (N, C)."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Returns the logarithms of the probabilities (N, C), exact where those are too small for a number."""
        return log_probabilities(self._logits(X)).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable class of each sample, (N,)."""
        logits = self._logits(X)
        return self.classes_[decide(logits).numpy()]

    def _logits(self, X: Any) -> Tensor:
        """Returns logits (N, K) float64."""
        check_is_fitted(self, "path_")
        if not hasattr(self, "coef_"):
            raise InputError(
                f"LinearProbe: none of the {len(self.path_)} l2 values was chosen; accepted are cv=5, say, or one l2"
            )
        x = tensor_of(validate_data(self, as_array(X), reset=False, dtype="numeric"))
        coef, intercept = tensor_of(self.coef_), tensor_of(self.intercept_)
        logits = torch.empty(len(x), len(coef), dtype=torch.float64)
        rows = max(1, NUMBERS_AT_ONCE // x.shape[1])
        for first in range(0, len(x), rows):
            part = x[first : first + rows].double()
            part = to_length_one(part) if self.normalize == "l2" else part
            torch.addmm(intercept, part, coef.t(), out=logits[first : first + rows])
        return logits


def load(run: str | Path, l2: float | None = None) -> LinearProbe:
    """Returns the chosen classifier of a run's folder, or that of another of its l2 values, fitted.

    A softmax of two classes becomes the sigmoid that it is, at half of its l2 and the same C.

    Args:
        l2: as the run has it; None: the chosen one.

    Raises:
        InputError: it is no run, has not finished, is damaged, has no such ``l2``, or has several labels per sample.
    """
    from handgrad.classifier import classifier_of_run  # here: no fit needs what reads files

    if l2 is not None and not is_number(l2):
        raise InputError(f"l2={shown(l2)}: accepted are the l2 values of the run, and None for the chosen one")
    found = classifier_of_run(Path(run), l2)
    found.check_one_label("handgrad.load")
    weight, bias, l2 = found.weight.double(), found.bias.double(), found.l2
    if len(weight) == 2:
        weight, bias, l2 = weight[1:] - weight[:1], bias[1:] - bias[:1], l2 / 2
    probe = LinearProbe(l2, normalize="l2" if found.unit_rows else "none")
    probe.classes_, probe.n_features_in_ = np.array(found.classes), weight.shape[1]
    if found.feature_names is not None:
        probe.feature_names_in_ = np.array(found.feature_names, dtype=object)
    C = np.inf if found.C is None else found.C
    gap = np.nan if found.gap is None else found.gap
    probe.path_ = [Entry(l2, C, weight.numpy(), bias.numpy(), gap, 0)]
    probe._take(0)
    return probe


CHOSEN = ("coef_", "intercept_", "l2_", "C_", "gap_", "n_iter_")


class Samples(NamedTuple):
    """What ``fit`` was given: (N, D); classes (N,); what each weighs (N,), or None."""

    X: np.ndarray
    target: Tensor
    weight: Tensor | None


def as_array(values: Any) -> Any:
    """Returns a torch tensor as a NumPy array, numbers longer than float64 as those, and anything else as it is."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, np.ndarray) and is_long(values.dtype):
        with np.errstate(over="ignore"):  # what is infinite then is told as such
            return values.astype(np.float64)
    return values


def tensor_of(X: np.ndarray) -> Tensor:
    """Returns a tensor over the same memory, which is only read; a copy where torch does not know its dtype."""
    dtype = np.dtype(np.float64) if is_long(X.dtype) else X.dtype.newbyteorder("=")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(X, dtype))


def is_long(dtype: np.dtype) -> bool:
    return dtype.kind == "f" and dtype.itemsize > 8


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_) and math.isfinite(value)


def shown(value: Any) -> str:
    """Returns a value in one short line."""
    told = " ".join(repr(value).split())
    return told if len(told) <= 80 else told[:79] + "…"


# --- Folds ------------------------------------------------------------------------------------------------------------


def says_how_to_split(cv: Any) -> bool:
    """Tells whether ``cv`` is of a kind that is accepted."""
    if is_whole(cv):
        return bool(cv >= 2)
    if isinstance(cv, Real | str | bytes | type | np.bool_):
        return False
    if isinstance(cv, Sized) and not hasattr(cv, "split"):
        return len(cv) > 0
    return cv is None or hasattr(cv, "split") or isinstance(cv, Iterable)


def check_fold(number: int, weights: Tensor, names: Sequence[Any]) -> None:
    """Raises an InputError if a class has no ``weights (C,)`` among the samples that train."""
    if missing := [name for name, weight in zip(names, weights.tolist(), strict=True) if not weight]:
        told = f"cv: fold {number} has no sample that weighs anything of class {listed(missing)} to train on"
        raise InputError(f"{told}; accepted is one or more of each class")


def check_held(number: int, counts: Tensor, names: Sequence[Any], metric: str) -> None:
    """Raises an InputError if the metric is not defined on held out samples, ``counts (C,)`` of each class."""
    if not counts.any():
        raise InputError(f"cv: fold {number} holds out no sample; accepted is one or more")
    missing = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
    if metric == "auroc" and missing:
        told = f"cv: fold {number} holds out no sample of class {listed(missing)}, without which auroc is not defined"
        raise InputError(f"{told}; accepted are other metrics or fewer folds")
