"""The table of what the seed states or draws against what the runs give, also as ``numbers.csv``."""

import csv
import io
import statistics
from typing import NamedTuple

from report.facts import Facts, inside, standard_error


class Number(NamedTuple):
    """A row: what the seed has is typed from its report; ``ours`` always comes from a run on ``split``."""

    figure_or_task: str
    quantity: str
    split: str
    seed: str
    ours: str
    note: str = ""


# What a plain loop of the same updates gives in float64; tests/torture/test_report_numbers.py runs it again.
NUMPY = "numpy_run of tests/test_train.py, a NumPy loop in float64"
NUMPY_ACCURACY = {0.0: "0.9260", 0.002: "0.9250", 0.02: "0.9200", 0.2: "0.8940", 2.0: "0.8050"}
NUMPY_SMALL = ("1.2620", "1.0453")  # without a penalty, and with l2 = 0.02
METRIC = "share of one-hot entries that equal the rounded output"


def numbers(report: Facts, course: Facts, small: Facts) -> list[Number]:
    """Returns the whole table: the seed's own split first, then what only ``course`` shows."""
    rows = [*sizes(report), *settings(report), *curve_rows(report), *stop_rows(report), *shuffle_rows(report)]
    rows += [*softmax_rows(report), *l2_rows(report)]
    rows += [*sizes(course), *curve_rows(course), *stop_rows(course), *shuffle_rows(course), *softmax_rows(course)]
    return [*rows, *l2_rows(course), *small_rows(small)]


def seeds(facts: Facts, value: str) -> str:
    """Returns what the seed has, which holds for its own split only."""
    return value if facts["split"] == "report" else ""


def sizes(f: Facts) -> list[Number]:
    stated = {"train_images": "18000", "val_images": "2000", "train_images_binary": "3596", "val_images_binary": "403"}
    names = {"train_images": "training images", "val_images": "validation images"}
    names |= {f"{key}_binary": f"{name}, digits 2 and 3" for key, name in names.items()}
    return [Number("data", names[key], f["split"], seeds(f, stated[key]), str(f[key])) for key in stated]


def settings(f: Facts) -> list[Number]:
    stated = {"logistic": ("0.05", "128", "50"), "softmax": ("0.01", "128", "50")}
    keys = (("lr", "learning rate"), ("batch_size", "batch size"), ("epochs", "epochs"))
    return [
        Number("settings", f"{task}: {name}", f["split"], seed, str(f[f"{task}_{key}"]))
        for task, values in stated.items()
        for (key, name), seed in zip(keys, values, strict=True)
    ]


def curve_rows(f: Facts) -> list[Number]:
    """The ranges of the seed's figures 1, 2, 4 and 5, and how much of our curves lies in them."""
    figures = (("1 (2b)", "logistic", "losses", 0, 0.2), ("2 (2c)", "logistic", "accuracies", 0.93, 0.99))
    figures += (("4 (3b)", "softmax", "losses", 0.2, 0.6), ("5 (3c)", "softmax", "accuracies", 0.89, 0.93))
    rows = []
    for figure, task, kind, low, high in figures:
        for name, values in zip(("training", "validation"), f[f"{task}_{kind}"], strict=True):
            note = f"{inside(values, low, high):.0%} of the curve lies in the range of the report's axis"
            what = f"{task}, {name} {'loss' if kind == 'losses' else 'accuracy'}"
            what += ", last 10-step mean" if (kind, name) == ("losses", "training") else ", last check"
            rows.append(
                Number(figure, what, f["split"], seeds(f, f"drawn from {low} to {high}"), f"{values[-1]:.4f}", note)
            )
    return rows


def stop_rows(f: Facts) -> list[Number]:
    epochs = f"in epoch {f['stop_epoch']} of {f['stop_epochs']}"
    rule = "the report counts epochs from 0 and checks after updates 1, 1 + k, ...; ours checks after k, 2k, ..."
    steps = str(f["stop_steps"])
    rows = [Number("2d", "epoch of the early stop", f["split"], seeds(f, "19 of 500"), epochs, rule)]
    if f["split"] == "report":
        rows.append(Number("2d", "global step of the early stop", "report", "15", steps, "15 belongs to another rule"))
    rows.append(
        Number("2d", "updates at the early stop", f["split"], seeds(f, "545"), steps, f"k = {f['check_interval']}")
    )
    return [*rows, Number("2d", "updates at the best validation loss", f["split"], "", str(f["stop_best_step"]))]


def shuffle_rows(f: Facts) -> list[Number]:
    stops, late = over_seeds(f["shuffled_stops"], ".0f"), over_seeds(f["shuffled_late"], ".4f")
    note = "mean of the last 25 checks before the stop"
    drawn = seeds(f, "drawn from 0.93 to 0.99")
    rows = [
        Number("3 (2e)", "validation accuracy, not shuffled", f["split"], drawn, f"{f['unshuffled_late']:.4f}", note),
        Number("3 (2e)", f"validation accuracy, shuffled, {f['seeds']} seeds", f["split"], drawn, late, note),
        Number("3 (2e)", f"updates at the stop, shuffled, {f['seeds']} seeds", f["split"], "", stops),
        *order_rows(f["split"], f["orders"]),
    ]
    spikes = " ".join(map(str, f["spikes"])) or "none"
    return [*rows, Number("3 (2e)", "updates after which the unshuffled accuracy drops", f["split"], "", spikes)]


def order_rows(split: str, orders: Facts) -> list[Number]:
    """Many orders of the training set, by the loop in ``stops.py``."""
    names = {"reshuffled": "drawn anew in every epoch", "kept": "drawn once"}
    return [
        Number(
            "3 (2e)",
            f"updates at the stop, order {said}, {orders['count']} seeds",
            split,
            "",
            over_seeds(orders[name], ".0f"),
            f"python -m report.stops; {orders[f'{name}_earlier']} earlier than the data's own order, {orders['given']}",
        )
        for name, said in names.items()
    ]


def over_seeds(values: list[float], spec: str) -> str:
    """Returns mean, standard deviation and range of what several seeds give, as text."""
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    return f"{mean:{spec}} ± {deviation:{spec}} ({min(values):{spec}} to {max(values):{spec}})"


def softmax_rows(f: Facts) -> list[Number]:
    error = standard_error(f["softmax_val_accuracy"], f["val_images"])
    said = seeds(f, "not above 0")
    return [
        Number(
            "3d", "training minus validation accuracy", f["split"], said, f"{-f['softmax_late_gap']:+.4f}", "late mean"
        ),
        Number("3d", "standard error of the validation accuracy", f["split"], "", f"{error:.4f}"),
    ]


def l2_rows(f: Facts) -> list[Number]:
    rows = []
    for x in f["l2"]:
        at = f"l2 = {x['l2']:g}"
        known = f["split"] == "report" and x["l2"] in NUMPY_ACCURACY
        note = f"{NUMPY}, not shuffled, after the last update: {NUMPY_ACCURACY[x['l2']]}" if known else ""
        metric = seeds(f, "drawn in place of the accuracy; 0.90 for an all-zero output")
        rows += [
            Number(
                "6 (4b)", f"correlation of weights and class means, {at}", f["split"], "", f"{x['correlation']:.3f}"
            ),
            Number("7 (4c)", f"validation accuracy by argmax, {at}", f["split"], "", f"{x['late_accuracy']:.4f}", note),
            Number("7 (4c)", f"{METRIC}, {at}", f["split"], metric, f"{x['rounded_share']:.4f}", "final weights"),
            Number("4d", f"final training loss, {at}", f["split"], "", f"{x['train_loss']:.4f}"),
            Number("4d", f"final validation loss, {at}", f["split"], "", f"{x['val_loss']:.4f}"),
            Number("8 (4e)", f"‖w‖, {at}", f["split"], seeds(f, "falls as l2 grows"), f"{x['norm']:.4f}"),
            Number("8 (4e)", f"‖w‖², {at}", f["split"], "", f"{x['norm_squared']:.4f}"),
            Number("4d", f"objective after the last update, {at}", f["split"], "", f"{x['objective']:.6f}"),
            *optimum_rows(x["optimum"], at, f["split"]),
        ]
    return rows


def optimum_rows(optimum: Facts | None, at: str, split: str) -> list[Number]:
    """The certified optimum of one l2, and what SGD's last weights leave; nothing where no optimum is proven."""
    if optimum is None:
        return []
    certified = f"its proven gap: {optimum['gap']:.1e}"
    own = own_bound(optimum["proven_left"])
    return [
        Number("4 (3b)", f"training loss at the optimum, {at}", split, "", f"{optimum['train_loss']:.4f}"),
        Number("4 (3b)", f"validation loss at the optimum, {at}", split, "", f"{optimum['val_loss']:.4f}"),
        Number("7 (4c)", f"validation accuracy at the optimum, {at}", split, "", f"{optimum['val_accuracy']:.4f}"),
        Number("4d", f"objective at the optimum, {at}", split, "", f"{optimum['objective']:.6f}", certified),
        Number("4d", f"share of the objective that SGD leaves, {at}", split, "", f"{optimum['left']:.2%}", own),
    ]


def own_bound(gap: float | None) -> str:
    """Says what SGD's own ``last_gap`` proves; it may be larger than the objective, which is never below 0."""
    if gap is None:
        return ""
    return f"SGD's own last_gap: {gap:.4g}" + ("; 1 says nothing" if gap >= 1 else "")


def small_rows(small: Facts) -> list[Number]:
    rows = []
    for x, expected in zip((small["none"], small["some"]), NUMPY_SMALL, strict=True):
        at = f"{small['images']} training images, l2 = {x['l2']:g}"
        note = f"{NUMPY}: {expected}; {x['steps']} updates of lr {small['lr']} on all {small['images']} images at once"
        rows.append(Number("4d", f"final validation loss, {at}", "course", "", f"{x['val_loss']:.4f}", note))
        note = f"after {x['best_step']} updates"
        rows.append(Number("4d", f"smallest validation loss, {at}", "course", "", f"{x['best_val_loss']:.4f}", note))
    return rows


def as_csv(rows: list[Number]) -> str:
    """Returns the table as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Number._fields)
    writer.writerows(rows)
    return text.getvalue()
