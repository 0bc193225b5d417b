"""scikit-learn's ``LogisticRegressionCV`` as it comes, and whether its optima and its choice are ``LinearProbe``'s.

``python -m benchmarks.estimator_peers`` reads a request and prints a result, both in JSON, in a process of its own.
"""

import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import probe_data, probe_ours, probe_peers

PRECISE = {"tol": 1e-8, "max_iter": 5000}


def penalties(l2s: Sequence[float], splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Returns C for each l2 value: ``1 / (l2 N)``, with N the mean number of training samples in a fold."""
    samples = np.mean([len(train) for train, _ in splits])
    return [1 / (l2 * samples) for l2 in l2s]


def model(l2s: Sequence[float], splits: Any, scoring: str, **options: Any) -> Any:
    """Returns a ``LogisticRegressionCV`` for a path of l2 values and given folds."""
    from sklearn.linear_model import LogisticRegressionCV

    plain = {"l1_ratios": (0,), "use_legacy_attributes": False}
    return LogisticRegressionCV(Cs=penalties(l2s, splits), cv=splits, scoring=scoring, **plain, **options)


def as_it_comes(name: str, l2s: Sequence[float], references: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Returns the seconds of ``LogisticRegressionCV.fit`` with its own solver and tolerance, and where it ends.

    Args:
        references: the smallest objective of each l2 value in each fold.

    Returns:
        ``cpu``, ``wall``; the largest relative ``gap`` to these; ``within``: how many reach ``TOLERANCE``, of ``fits``;
        the l2 that is ``chosen``.
    """
    x, y = probe_data.get(name)
    x = x - x.mean(0, dtype=np.float64).astype(x.dtype)
    splits = probe_data.folds(y, probe_data.FOLDS[name])
    fitted = model(l2s, splits, "neg_log_loss")
    took = probe_ours.timed(lambda: fitted.fit(x, y))
    gaps = []
    for (train, _), paths, best in zip(splits, fitted.coefs_paths_[:, 0], references, strict=True):
        for l2, parameters, least in zip(l2s, paths, best, strict=True):
            weights = parameters[:, :-1], parameters[:, -1]
            gaps.append((probe_peers.objective(x[train], y[train], *weights, l2) - least) / least)
    within = sum(gap <= probe_peers.TOLERANCE for gap in gaps)
    chosen = l2s[int(np.argmin(np.abs(np.log(fitted.Cs_) - np.log(fitted.C_))))]
    return {**took, "gap": max(gaps), "within": within, "fits": len(gaps), "chosen": chosen}


def agreement(name: str, l2s: Sequence[float], folds: int, standardize: bool) -> dict[str, Any]:
    """Compares ``LinearProbe`` with scikit-learn, run to a tolerance of 1e-8, on a set.

    Args:
        folds: of the cross-validation that chooses by accuracy and by loss; 0: none.

    Returns:
        ``coefficients``: the largest difference of one, over the largest of that l2; ``probability``: the largest
        difference; ``gap``: the largest of ours; ``chosen``: for each metric the number of the l2 value, ours and
        scikit-learn's.
    """
    from sklearn.linear_model import LogisticRegression

    from handgrad import LinearProbe

    x, y = probe_data.get(name)
    x = probe_data.standardized(x) if standardize else x
    ours = LinearProbe(list(l2s)).fit(x, y)
    found: dict[str, Any] = {"coefficients": 0.0, "gap": max(entry.gap_ for entry in ours.path_), "chosen": {}}
    solver = "newton-cg" if len(y) > 5000 else "newton-cholesky"
    for entry in ours.path_:
        theirs = LogisticRegression(C=entry.C_, solver=solver, **PRECISE).fit(x.astype(np.float64), y)
        apart = np.abs(theirs.coef_ - entry.coef_).max() / np.abs(theirs.coef_).max()
        found["coefficients"] = max(found["coefficients"], float(apart))
    for metric, scoring in (("accuracy", "accuracy"), ("loss", "neg_log_loss")) if folds else ():
        splits = probe_data.folds(y, folds)
        probe = LinearProbe(list(l2s), cv=splits, metric=metric).fit(x, y)
        peer = model(l2s, splits, scoring, solver=solver, **PRECISE).fit(x, y)
        found["chosen"][metric] = [list(l2s).index(probe.l2_), int(np.argmin(np.abs(peer.Cs_ / peer.C_ - 1)))]
    return found


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of the function that ``kind`` names."""
    functions = {"as_it_comes": as_it_comes, "agreement": agreement}
    return functions[request["kind"]](**{name: value for name, value in request.items() if name != "kind"})


def main() -> None:
    warnings.simplefilter("ignore")  # of fits that end at max_iter, which the gap tells
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
