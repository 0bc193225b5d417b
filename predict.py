"""Predicts by a run's classifier: ``python predict.py run=outputs/<run> features=new.npz out=predictions.csv``.

Each word is explained by ``--help``. Neither Lightning nor Hydra is imported.
"""

from pathlib import Path
from typing import Any

import src  # noqa: F401
from handgrad.cli.streams import terminal_width
from handgrad.cli.words import PREDICT, command

USAGE = """
Predicts the classes of new features by a run's classifier, for features as they are.

  python predict.py run=outputs/<run> features=new.npz out=predictions.csv
  python predict.py run=outputs/<run> 'features=new/*.npy' labels=labels.txt out=predictions.parquet l2=0.01

Where there are labels, accuracy, log loss, a table of the classes and the confusion matrix are printed, and written
into <out>.metrics.json; of task=multilabel the mean average precision in place of the matrix, and prediction has the
names of all labels above 1/2, like cat;dog. A file that is there already is replaced with overwrite=true alone.
"""


def main(given: dict[str, Any]) -> None:
    """Predicts what the words ask for, and tells what came of it."""
    from handgrad.classifier import classifier_of_run  # torch is imported from here on
    from handgrad.prediction import metrics_file, predict, told

    out = Path(given["out"])
    classifier = classifier_of_run(given["run"], given["l2"])
    x, y = (given[key][0] if given[key] and len(given[key]) == 1 else given[key] for key in ("x", "y"))
    names = {"labels": given["labels"], "x": x, "y": y}
    rows, measures = predict(classifier, given["features"], out, **names, overwrite=bool(given["overwrite"]))
    if measures:
        print(told(measures, terminal_width()), "\n")
    if classifier.scaling:
        print(f"Features are taken to be {classifier.scaling}, as in training.")
    print(f"{rows} rows, l2={classifier.l2:g}. Files: {out}" + (f", {metrics_file(out)}" if measures else ""))


if __name__ == "__main__":
    with command(USAGE, PREDICT) as given:
        main(given)
