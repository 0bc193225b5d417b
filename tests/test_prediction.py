"""Predictions for new features: right in every format, told where they cannot be made, and measured."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from handgrad import prediction
from handgrad.errors import InputError
from handgrad.prediction import WRITERS, predict, told
from tests.data.feature_samples import FEATURES, LABELS, NAMES, WINE
from tests.data.feature_samples import WRITERS as FILES
from tests.finished import classifier_of

CLASSES = sorted(set(NAMES.tolist()))
WINE_ONES = replace(classifier_of(CLASSES, 13, unit_rows=True), feature_names=WINE.feature_names)
P = WINE_ONES.probabilities(WINE_ONES.logits(torch.from_numpy(FEATURES))).numpy()
PREDICTED = np.array(CLASSES)[P.argmax(1)]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """The current folder has ``new.npy``; chunks are small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prediction, "CHUNK_NUMBERS", 13 * 50)  # the last one is not full
    np.save("new.npy", FEATURES)
    return tmp_path


def refusal(*arguments, classifier=WINE_ONES, out="p.csv", **more) -> str:
    before = sorted(Path().iterdir())
    with pytest.raises(InputError) as error:
        predict(classifier, *arguments, Path(out), **more)
    assert sorted(Path().iterdir()) == before, "nothing half-written is left"
    return str(error.value)


# --- what is written --------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    return header, [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=float)


def test_a_table_as_text():
    assert predict(WINE_ONES, "new.npy", Path("p.csv")) == (178, None)
    header, names, p = read_csv(Path("p.csv"))
    assert header == ["prediction", "p_barbera", "p_barolo", "p_grignolino"]
    assert names == PREDICTED.tolist()
    assert np.abs(p - P).max() < 1e-9


@pytest.mark.parametrize("classes", [CLASSES, [7, 8, 9]], ids=["text", "numbers"])
def test_parquet_and_numpy(classes):
    classifier, names = replace(WINE_ONES, classes=classes), np.array(classes)[P.argmax(1)]
    for kind in (".parquet", ".npy", ".npz"):
        predict(classifier, "new.npy", Path(f"p{kind}"))
    table = pyarrow.parquet.read_table("p.parquet").to_pydict()
    assert list(table) == ["prediction", *(f"p_{name}" for name in classes)]
    assert table["prediction"] == names.tolist()
    assert np.abs(np.array(list(table.values())[1:]).T - P).max() < 1e-15
    assert np.abs(np.load("p.npy") - P).max() < 1e-15
    with np.load("p.npz") as found:
        assert np.array_equal(found["probabilities"], np.load("p.npy"))
        assert found["prediction"].tolist() == names.tolist()
        assert found["classes"].tolist() == classes


def test_names_of_classes_that_text_has_to_quote(here):
    predict(replace(WINE_ONES, classes=['a,"b"', "two\nlines", "é"]), "new.npy", Path("p.csv"))
    header, names, _ = read_csv(here / "p.csv")
    assert header[1:3] == ['p_a,"b"', "p_two\nlines"]
    assert set(names) <= {'a,"b"', "two\nlines", "é"}


@pytest.mark.parametrize("kind", FILES)
def test_each_kind_of_file_gives_the_same(kind):
    files = FILES[kind](Path("wine"), FEATURES, NAMES if kind != ".safetensors" and kind != ".pt" else LABELS)
    assert predict(WINE_ONES, files["train"], Path("p.npy"), y="null") == (178, None)
    assert np.abs(np.load("p.npy") - P).max() < 1e-14


def test_shards_of_a_pattern(here):
    (here / "parts").mkdir()
    for number, part in enumerate(np.array_split(FEATURES, 3)):
        np.save(f"parts/{number}.npy", part)
    predict(WINE_ONES, ["parts/*.npy"], Path("p.npy"))
    assert np.abs(np.load("p.npy") - P).max() < 1e-14


def test_a_table_may_have_other_columns_in_another_order(here):
    order = [*range(12, -1, -1)]
    rows = [",".join(["note", *(WINE.feature_names[i] for i in order)])]
    rows += [",".join(["fine", *(repr(float(sample[i])) for i in order)]) for sample in FEATURES[:9]]
    (here / "new.csv").write_text("\n".join(rows))
    predict(WINE_ONES, "new.csv", Path("p.npy"))
    assert np.abs(np.load("p.npy") - P[:9]).max() < 1e-12


def test_chunks_are_small_whatever_there_is_more_of(monkeypatch):
    seen = []
    logits = type(WINE_ONES).logits
    monkeypatch.setattr(type(WINE_ONES), "logits", lambda self, x: (seen.append(len(x)), logits(self, x))[1])
    predict(WINE_ONES, "new.npy", Path("p.npy"))
    assert seen == [50, 50, 50, 28]
    seen.clear()
    predict(classifier_of(list(range(65)), 13), "new.npy", Path("q.npy"))
    assert seen[:2] == [10, 10]


# --- measures ---------------------------------------------------------------------------------------------------------


def check_measures(found: dict) -> None:
    """Compares measures with scikit-learn's."""
    assert found["samples"] == 178
    assert found["accuracy"] == pytest.approx(accuracy_score(NAMES, PREDICTED), rel=1e-12)
    assert found["loss"] == pytest.approx(log_loss(NAMES, P, labels=CLASSES), rel=1e-9)
    assert found["confusion"] == confusion_matrix(NAMES, PREDICTED, labels=CLASSES).tolist()
    precision, recall, _, samples = precision_recall_fscore_support(NAMES, PREDICTED, zero_division=np.nan)
    for place, row in enumerate(found["classes"]):
        assert (row["class"], row["samples"]) == (CLASSES[place], samples[place])
        for name, value in {"precision": precision[place], "recall": recall[place]}.items():
            assert row[name] == (None if np.isnan(value) else pytest.approx(value))
    assert found["mean_per_class"] == pytest.approx(recall.mean())


def test_labels_in_a_file_of_their_own(here):
    (here / "labels.txt").write_text("\n".join(NAMES))
    rows, found = predict(WINE_ONES, "new.npy", Path("p.csv"), labels="labels.txt")
    assert rows == 178
    check_measures(found)
    assert json.loads((here / "p.metrics.json").read_text()) == found


def test_labels_beside_the_features_are_found_by_their_usual_name_or_are_named():
    np.savez("y.npz", x=FEATURES, y=NAMES)
    np.savez("kind.npz", x=FEATURES, kind=NAMES)
    check_measures(predict(WINE_ONES, "y.npz", Path("a.npy"))[1])
    assert predict(WINE_ONES, "y.npz", Path("b.npy"), y="null")[1] is None
    assert predict(WINE_ONES, "kind.npz", Path("c.npy"))[1] is None
    check_measures(predict(WINE_ONES, "kind.npz", Path("d.npy"), y="kind")[1])


def test_people_see_a_row_per_class_and_who_was_taken_for_whom():
    np.savez("y.npz", x=FEATURES, y=NAMES)
    found = predict(WINE_ONES, "y.npz", Path("p.npy"))[1]
    lines = told(found).splitlines()
    assert lines[0].startswith(f"samples 178, accuracy {found['accuracy']:.4f}, loss {found['loss']:.4f}")
    assert lines[2].split() == ["class", "samples", "recall", "precision", "f1"]
    assert lines[3].split()[:2] == ["barbera", "48"]
    assert lines[7:9] == ["true \\ predicted", "            barbera  barolo  grignolino"]
    assert lines[9].split() == ["barbera", *map(str, found["confusion"][0])]


def test_many_classes_are_told_in_fewer_tables():
    def lines(count: int) -> int:
        rows = [{"class": k, "samples": 1, "recall": None, "precision": 0.5, "f1": 0.5} for k in range(count)]
        whole = dict.fromkeys(("samples", "accuracy", "loss", "mean_per_class", "f1_macro"), 0.5)
        return len(told(whole | {"classes": rows, "confusion": np.eye(count, dtype=int).tolist()}).splitlines())

    assert [lines(count) for count in (20, 21, 100, 101)] == [46, 24, 103, 1]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_features_that_are_none_of_the_runs(here):
    np.save("narrow.npy", FEATURES[:, :12])
    np.save("text.npy", NAMES[:, None])
    assert refusal("narrow.npy") == "narrow.npy: 12 features; accepted are 13, as the run has them"
    assert refusal("text.npy") == "text.npy holds text; accepted in features are integers and floating-point numbers"
    assert refusal("old.npy").startswith("old.npy: no such file")
    (here / "new.csv").write_text("alcohol,b\n1,2\n")
    assert "new.csv: no column 'malic_acid'; it has alcohol, b; accepted is x=<one of them>" in refusal("new.csv")
    named = ",".join(reversed(WINE.feature_names))
    (here / "new.csv").write_text(f"{named}\n{','.join('1' * 13)}\n")
    told = refusal("new.csv", x=list(reversed(WINE.feature_names)))
    assert told == "new.csv: column 'proline'; accepted is 'alcohol', as in the training set"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_number_that_is_none_is_told_with_its_place(value, kind):
    x = FEATURES.copy()
    x[170, 3] = value
    np.save("bad.npy", x)
    line = f"bad.npy: row 170, column 3: found {value}; accepted are finite numbers"
    assert refusal("bad.npy", out=f"p{kind}") == line


def test_numbers_beyond_what_is_computed_with():
    np.save("huge.npy", np.full((2, 13), 1e308))
    classifier = classifier_of(CLASSES, 13)
    line = "huge.npy: numbers are too large for this classifier; accepted are smaller ones"
    assert refusal("huge.npy", classifier=replace(classifier, weight=classifier.weight.abs() + 9)) == line


def test_labels_that_are_none(here):
    np.save("y.npy", np.array([*NAMES[:-1], "merlot"]))
    np.save("short.npy", NAMES[:-1])
    told = refusal("new.npy", labels="y.npy")
    assert told.startswith("y.npy: labels that the training set does not have: 'merlot'; accepted are 'barbera',")
    assert "short.npy: 177 labels, and 178 rows of features in new.npy" in refusal("new.npy", labels="short.npy")
    assert "no labels beside the features; accepted is labels=<file>" in refusal("new.npy", y="kind")
    np.savez("new.npz", x=FEATURES, kind=NAMES)
    assert "accepted is y=<one of them> or labels=<file>; did you mean 'kind'?" in refusal("new.npz", y="kinds")


def test_files_that_are_not_to_be_written(here):
    assert refusal("new.npy", out="p.cvs") == (
        "out=p.cvs: a .cvs; accepted are .csv, .parquet, .npy, .npz; did you mean '.csv'?"
    )
    assert "out=p: a file without an ending; accepted are .csv" in refusal("new.npy", out="p")
    assert "out=a/p.csv: no folder a; accepted is a file in a folder" in refusal("new.npy", out="a/p.csv")
    (here / "d.csv").mkdir()
    assert refusal("new.npy", out="d.csv") == "out=d.csv: a folder; accepted is a file"
    told = refusal("new.npy", out="new.npy", overwrite=True)
    assert told == "out=new.npy: it is read from; accepted is another file"


def test_a_file_that_is_there_is_replaced_only_when_that_is_said(here):
    (here / "p.csv").write_text("mine")
    assert refusal("new.npy") == "out=p.csv: it is there already; accepted is another file, or overwrite=true"
    (here / "p.csv").unlink()
    (here / "p.metrics.json").write_text("mine")
    np.savez("y.npz", x=FEATURES, y=NAMES)
    assert "out=p.metrics.json: it is there already" in refusal("y.npz")
    predict(WINE_ONES, "y.npz", Path("p.csv"), overwrite=True)
    check_measures(json.loads((here / "p.metrics.json").read_text()))


def test_a_file_that_changes_meanwhile_is_told(monkeypatch):
    logits = type(WINE_ONES).logits

    def changing(self, x):
        Path("new.npy").touch()
        return logits(self, x)

    monkeypatch.setattr(type(WINE_ONES), "logits", changing)
    assert "new.npy: it changed while it was read" in refusal("new.npy")
