"""Predictions for new features: right in every format, told where they cannot be made, and measured."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

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
    assert json.loads((here / "p.csv.metrics.json").read_text()) == found


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


# --- several labels ---------------------------------------------------------------------------------------------------


PETS = ["cat", "do,g", "night"]
ANY = classifier_of(PETS, 13, task="multilabel")
WEIGHT = ANY.weight / torch.from_numpy(FEATURES.std(0))
OF_PETS = replace(ANY, weight=WEIGHT, bias=ANY.bias - WEIGHT @ torch.from_numpy(FEATURES.mean(0)))
P_PETS = torch.sigmoid(OF_PETS.logits(torch.from_numpy(FEATURES))).numpy()
GIVEN = P_PETS > 0.5
HAS = (np.random.default_rng(0).random((178, 3)) < 0.2 + 0.5 * GIVEN).astype(np.int64)
SAID = [";".join(name for name, has in zip(PETS, row, strict=True) if has) for row in GIVEN]
TRUE = [";".join(name for name, has in zip(PETS, row, strict=True) if has) for row in HAS]


def test_a_sample_is_given_the_names_of_all_its_labels():
    assert predict(OF_PETS, "new.npy", Path("p.csv")) == (178, None)
    header, names, p = read_csv(Path("p.csv"))
    assert header == ["prediction", "p_cat", "p_do,g", "p_night"]
    assert names == SAID
    assert {0, 1, 2} <= {row.sum() for row in GIVEN.astype(int)}, "some have none, and some have two"
    assert np.abs(p - P_PETS).max() < 1e-9


@pytest.mark.parametrize("classes", [PETS, [0, 1, 2]], ids=["names", "numbers"])
def test_several_labels_in_parquet_and_numpy(classes):
    for kind in (".parquet", ".npy", ".npz"):
        predict(replace(OF_PETS, classes=classes), "new.npy", Path(f"p{kind}"))
    table = pyarrow.parquet.read_table("p.parquet").to_pydict()
    assert list(table) == ["prediction", *(f"p_{name}" for name in classes)]
    joined = [";".join(str(name) for name, has in zip(classes, row, strict=True) if has) for row in GIVEN]
    assert table["prediction"] == joined
    assert np.abs(np.load("p.npy") - P_PETS).max() < 1e-15
    with np.load("p.npz") as found:
        assert np.array_equal(found["probabilities"], np.load("p.npy"))
        assert found["prediction"].dtype == bool
        assert np.array_equal(found["prediction"], GIVEN)
        assert found["classes"].tolist() == classes


def check_measures_of_labels(found: dict) -> None:
    """Compares measures of several labels with scikit-learn's."""
    assert list(found) == ["samples", "accuracy", "loss", "mean_average_precision", "labels"]
    assert found["samples"] == 178
    assert found["accuracy"] == pytest.approx(accuracy_score(HAS, GIVEN), rel=1e-12)
    assert found["loss"] == pytest.approx(-np.log(np.where(HAS, P_PETS, 1 - P_PETS)).sum(1).mean(), rel=1e-9)
    assert found["mean_average_precision"] == pytest.approx(average_precision_score(HAS, P_PETS), rel=1e-12)
    table = precision_recall_fscore_support(HAS, GIVEN, zero_division=np.nan)
    for place, row in enumerate(found["labels"]):
        assert (row["label"], row["samples"]) == (PETS[place], HAS[:, place].sum())
        for name, column in zip(("precision", "recall", "f1"), table, strict=False):
            assert row[name] == pytest.approx(column[place], rel=1e-12)


def columns_of_labels(names: list[str], order: list[int]) -> Path:
    arrays = {name: HAS[:, place] for name, place in zip(names, order, strict=True)}
    features = {f"x{i}": FEATURES[:, i] for i in range(13)}
    pyarrow.parquet.write_table(pyarrow.table(features | arrays), "t.parquet")
    return Path("t.parquet")


def test_several_labels_are_measured_as_scikit_learn_does(here):
    np.savez("y.npz", x=FEATURES, y=HAS)
    found = predict(OF_PETS, "y.npz", Path("p.csv"))[1]
    check_measures_of_labels(found)
    assert json.loads((here / "p.csv.metrics.json").read_text()) == found
    lines = told(found).splitlines()
    assert lines[0] == (
        f"samples 178, accuracy {found['accuracy']:.4f}, loss {found['loss']:.4f}, "
        f"mean average precision {found['mean_average_precision']:.4f}"
    )
    assert lines[2].split() == ["label", "samples", "recall", "precision", "f1"]
    assert lines[3].split()[:2] == ["cat", str(HAS[:, 0].sum())]
    assert len(lines) == 6


def test_each_form_of_several_labels_gives_the_same(here):
    (here / "labels.txt").write_text("\n".join(TRUE) + "\n")
    check_measures_of_labels(predict(OF_PETS, "new.npy", Path("a.npy"), labels="labels.txt")[1])
    np.save("y.npy", HAS.astype(bool))
    check_measures_of_labels(predict(OF_PETS, "new.npy", Path("b.npy"), labels="y.npy")[1])
    lists = [row.split(";") if row else [] for row in TRUE]
    for name, column in {"text": TRUE, "lists": lists, "matrix": HAS.tolist()}.items():
        pyarrow.parquet.write_table(pyarrow.table({"x": FEATURES.tolist(), "y": column}), f"{name}.parquet")
        check_measures_of_labels(predict(OF_PETS, f"{name}.parquet", Path(f"{name}.npy"))[1])
    assert predict(OF_PETS, "text.parquet", Path("c.npy"), x="x", y="null")[1] is None


def test_columns_of_labels_are_found_by_their_names_in_any_order():
    table = columns_of_labels(["night", "cat", "do,g"], [2, 0, 1])
    check_measures_of_labels(predict(OF_PETS, table, Path("a.npy"), y=["night", "cat", "do,g"])[1])
    table = columns_of_labels(["a", "b", "c"], [0, 1, 2])
    check_measures_of_labels(predict(OF_PETS, table, Path("b.npy"), y=["a", "b", "c"])[1])


def test_a_label_that_no_sample_has_is_measured_as_nothing():
    np.savez("y.npz", x=FEATURES, y=HAS * [1, 1, 0])
    found = predict(OF_PETS, "y.npz", Path("p.npy"))[1]
    assert found["labels"][2]["recall"] is None
    assert found["labels"][2]["precision"] == 0
    assert found["mean_average_precision"] == pytest.approx(average_precision_score(HAS[:, :2], P_PETS[:, :2]))
    np.savez("y.npz", x=FEATURES, y=HAS * 0)
    none = predict(OF_PETS, "y.npz", Path("q.npy"))[1]
    assert none["mean_average_precision"] is None
    assert "mean average precision \n" in told(none)


def test_several_labels_that_are_none(here):
    def refused(**given) -> str:
        return refusal("new.npy", classifier=OF_PETS, **given)

    for name, y in {"wide": np.ones((178, 4)), "two": 2 * HAS, "short": HAS[1:], "classes": LABELS}.items():
        np.save(f"{name}.npy", y)
    (here / "strange.txt").write_text("cat;nigth\n" * 178)
    assert refused(labels="wide.npy") == "wide.npy: 4 labels; accepted are 3, as in the training set"
    assert "is 2; accepted are 0 and 1" in refused(labels="two.npy")
    assert "short.npy: 177 labels, and 178 rows of features in new.npy" in refused(labels="short.npy")
    assert refused(labels="classes.npy").startswith("classes.npy: labels of type int64 and shape (178,); accepted")
    assert refused(labels="strange.txt").startswith("strange.txt: unknown labels 'nigth'; accepted are 'cat', 'do,g',")
    table = columns_of_labels(["cat", "a", "b"], [0, 1, 2])
    assert refusal(table, classifier=OF_PETS, y=["cat", "a", "b"]) == (
        "y=[cat,a,b]: accepted are all of 'cat', 'do,g', 'night', or as many columns of other names"
    )
    one = "accepted with one label per sample is one name; task=multilabel has several"
    assert refusal(table, y=["a", "b"]) == f"y=[a,b]: {one}"


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
    np.savez("other.npz", x=FEATURES, y=np.array([*NAMES[:-1], "merlot"]))
    assert refusal("other.npz").endswith("'grignolino'; y=null measures nothing")
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
    (here / "p.csv.metrics.json").write_text("mine")
    np.savez("y.npz", x=FEATURES, y=NAMES)
    assert "out=p.csv.metrics.json: it is there already" in refusal("y.npz")
    predict(WINE_ONES, "y.npz", Path("p.csv"), overwrite=True)
    check_measures(json.loads((here / "p.csv.metrics.json").read_text()))


def test_measures_of_each_file_have_a_file_of_their_own(here):
    np.savez("y.npz", x=FEATURES, y=NAMES)
    for name in ("p.csv", "p.npz", "p.x.npy"):
        predict(WINE_ONES, "y.npz", Path(name))
    assert {path.name for path in here.glob("*.metrics.json")} == {
        f"{name}.metrics.json" for name in ("p.csv", "p.npz", "p.x.npy")
    }


def test_a_file_that_changes_meanwhile_is_told(monkeypatch):
    logits = type(WINE_ONES).logits

    def changing(self, x):
        Path("new.npy").touch()
        return logits(self, x)

    monkeypatch.setattr(type(WINE_ONES), "logits", changing)
    assert "new.npy: it changed while it was read" in refusal("new.npy")
