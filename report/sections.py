"""What stands on the page and in which order: headings, captions, alternative texts."""

from report.answers import Answer
from report.facts import Facts
from report.page import Picture, Section
from report.runs import COMMANDS

LABELS = {"report": "report: the report’s own split", "course": "course: the assignment’s split"}
BAND = "Training loss: mean over 10 steps, in a band of one standard deviation."


def pair(number: str, heading: str, caption: str, alts: dict[str, str]) -> Picture:
    """Returns a figure that is drawn once per split; ``alts`` has a text for each."""
    images = [(f"figure-{number}-{split}", LABELS[split], alts[split]) for split in LABELS]
    return Picture(heading, caption, images)


def each(facts: dict[str, Facts], text) -> dict[str, str]:
    """Returns ``text(facts of the split)`` for each split."""
    return {split: text(found) for split, found in facts.items()}


def sections(facts: dict[str, Facts], small: Facts, answers: dict[str, Answer]) -> list[Section]:
    """Returns the sections with the figures in the seed's order, each answer beside its figure."""
    return [
        Section("logistic", "Logistic regression: 2 or 3?", LOGISTIC, [*logistic(facts, answers)]),
        Section("softmax", "Softmax regression: ten digits", SOFTMAX, [*softmax(facts), answers["3d"]]),
        Section("l2", "L2 regularization", L2, [*regularization(facts, small, answers)]),
    ]


LOGISTIC = "<p>Digits 2 and 3, no penalty, mini-batches of 128 in the order of the data unless it says shuffled.</p>"
SOFTMAX = "<p>All digits, no penalty, shuffled: the classifier at l2 = 0 of the path that is trained for task 4.</p>"
L2 = "<p>Five classifiers, one per l2, trained side by side on the same mini-batches.</p>"


def logistic(facts: dict[str, Facts], answers: dict[str, Answer]) -> list[Picture | Answer]:
    losses = each(facts, lambda f: alt("Losses", f, "logistic", "loss"))
    accuracies = each(facts, lambda f: alt("Accuracies", f, "logistic", "accuracy"))
    return [
        pair("1", "Figure 1 (2b).", f"Logistic regression: training and validation loss. {BAND}", losses),
        pair("2", "Figure 2 (2c).", "Logistic regression: training and validation accuracy.", accuracies),
        answers["2d"],
        pair("3", "Figure 3 (2e).", SHUFFLED, each(facts, alt_shuffled)),
        answers["2e"],
    ]


SHUFFLED = (
    "Validation accuracy with early stopping, without and with shuffling; a dot where a run stopped. Triangles mark "
    "the checks right behind the batch that throws the weights off; at the lower edge, the value lies below the "
    "picture."
)


def softmax(facts: dict[str, Facts]) -> list[Picture]:
    losses = each(facts, lambda f: alt("Losses", f, "softmax", "loss"))
    accuracies = each(facts, lambda f: alt("Accuracies", f, "softmax", "accuracy"))
    return [
        pair("4", "Figure 4 (3b).", f"Softmax regression: training and validation loss. {BAND}", losses),
        pair("5", "Figure 5 (3c).", "Softmax regression: training and validation accuracy.", accuracies),
    ]


def regularization(facts: dict[str, Facts], small: Facts, answers: dict[str, Answer]) -> list[Picture | Answer]:
    return [
        answers["4a"],
        *[weight_images(facts[split], split) for split in LABELS],
        answers["4b"],
        pair("7", "Figure 7 (4c).", "Validation accuracy, by argmax, for each l2.", each(facts, alt_l2)),
        answers["4c"],
        pair("gap", "Task 4d.", "Both losses after the last update, and the gap between them.", each(facts, alt_gap)),
        few_images(small),
        answers["4d"],
        pair(
            "8", "Figure 8 (4e).", "The norm of the final weights, and its square, against l2.", each(facts, alt_norm)
        ),
        answers["4e"],
    ]


def weight_images(f: Facts, split: str) -> Picture:
    first, last = f["l2"][0], f["l2"][-1]
    text = (
        f"Three rows of ten digit images: weights at l2 = {first['l2']:g} are speckled, weights at l2 = "
        f"{last['l2']:g} are smooth and look like the class means below them; correlations {first['correlation']:.2f} "
        f"and {last['correlation']:.2f}"
    )
    caption = (
        f"Split <code>{split}</code>: final weights, red positive and blue negative, each row on a scale of its own, "
        "and each class’s mean image minus the mean of all. The correlation with the latter is the mean over the ten "
        "classes."
    )
    return Picture("Figure 6 (4b).", caption, [(f"figure-6-{split}", LABELS[split], text)])


def few_images(small: Facts) -> Picture:
    none, some = small["none"], small["some"]
    text = (
        f"Validation loss against updates on a log axis, {small['images']} training images: without penalty it rises "
        f"to {none['val_loss']:.2f}, with l2 = {some['l2']:g} it levels off at {some['val_loss']:.2f}"
    )
    caption = (
        f"The first {small['images']} training images of <code>course</code>, all in one batch, lr {small['lr']}, "
        f"{none['steps']} updates; this step length makes the first ones oscillate. Without a penalty the loss has not "
        "finished rising."
    )
    return Picture("Task 4d, with little data.", caption, [("figure-small", "", text)])


def alt(kind: str, f: Facts, task: str, measure: str) -> str:
    steps, train, val = f[f"{task}_steps"], f[f"{task}_train_{measure}"], f[f"{task}_val_{measure}"]
    return f"{kind} over {steps} updates; at the end training {train:.3f}, validation {val:.3f}"


def alt_shuffled(f: Facts) -> str:
    spikes = f"drops sharply every {f['spike_period']} updates" if len(f["spikes"]) else "shows no regular drops"
    return (
        f"Validation accuracy until early stopping: unshuffled it {spikes} and stops after {f['stop_steps']} updates; "
        f"{f['seeds']} shuffled runs stop after {min(f['shuffled_stops'])} to {max(f['shuffled_stops'])}"
    )


def alt_l2(f: Facts) -> str:
    ends = ", ".join(f"{x['late_accuracy']:.3f} at l2 = {x['l2']:g}" for x in f["l2"])
    return f"Validation accuracy over {f['softmax_steps']} updates, a line per l2; late means {ends}"


def alt_gap(f: Facts) -> str:
    first, last = f["l2"][0], f["l2"][-1]
    return (
        f"Final losses against l2: training rises from {first['train_loss']:.2f} to {last['train_loss']:.2f}, "
        f"validation from {first['val_loss']:.2f} to {last['val_loss']:.2f}; their gap falls from {first['gap']:+.3f} "
        f"to {last['gap']:+.3f}"
    )


def alt_norm(f: Facts) -> str:
    first, last = f["l2"][0], f["l2"][-1]
    return (
        f"Norm of w falls from {first['norm']:.2f} at l2 = 0 to {last['norm']:.2f} at l2 = {last['l2']:g}; its square "
        f"from {first['norm_squared']:.1f} to {last['norm_squared']:.2f}"
    )


def hero(facts: dict[str, Facts]) -> dict[str, str | Picture]:
    """Returns what the first screen holds: what this is, the main result, one figure."""
    r, c = facts["report"], facts["course"]
    last = r["l2"][-1]
    tiles = (
        (
            f"{last['late_accuracy']:.2f}, not {last['rounded_share']:.2f}",
            f"of the images are right at l2 = {last['l2']:g}; figure 7 drew another metric",
        ),
        (
            f"every {c['spike_period']}",
            "updates the unshuffled accuracy drops: the order of the batches, no local minimum",
        ),
        (
            f"{c['l2'][0]['correlation']:.2f} → {c['l2'][-1]['correlation']:.2f}",
            f"correlation of weights and class means from l2 = 0 to {last['l2']:g}: why large l2 looks clean",
        ),
    )
    lead = (
        "<p>A course report on linear classifiers (logistic regression on MNIST’s 2 and 3, softmax regression on all "
        "digits, early stopping, shuffling, L2 regularization), every figure drawn anew from runs whose gradients "
        "are derived by hand and proven before they train.</p><p><b>The main result:</b> softmax regression reaches "
        f"{r['softmax_late_val_accuracy']:.1%} validation accuracy on the report’s own split, and every penalty that "
        "was tried lowers it or changes nothing: L2 underfits here. Several of the report’s explanations do not "
        "hold; the right ones stand beside their figures with the number that shows it.</p>"
    )
    return {
        "lead": lead,
        "tiles": "".join(f"<li><b>{number}</b>{text}</li>" for number, text in tiles),
        "picture": Picture(
            "Figure 7, drawn right.", "Validation accuracy by argmax for each l2.", [("figure-7-report", "", alt_l2(r))]
        ),
    }


def made(r: Facts) -> str:
    """Returns how the runs came about, for the foot of the page."""
    commands = "\n".join(
        f"python train.py {' '.join(command.arguments(f'outputs/report/runs/{command.name}'))}" for command in COMMANDS
    )
    return (
        "<p><code>make report</code> trains what is not finished, two processes of one thread each, and draws the "
        "figures from the event files and result tables that the runs wrote. These are the "
        f"runs:</p><pre><code>{commands}</code></pre><p>All start at zero; plain SGD, batches of "
        f"{r['logistic_batch_size']}, the last partial batch of an epoch dropped; lr {r['logistic_lr']} (logistic) "
        f"and {r['softmax_lr']} (softmax). Validation comes every fifth of an epoch. Weights are compared after the "
        "last update; the <code>best</code> ones, by validation loss, are what early stopping keeps. Pixels lie in "
        "[−1, 1]; the penalty includes the bias.</p>"
    )
