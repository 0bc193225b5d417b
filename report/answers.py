"""The answers to the assignment's questions: what the seed said, what is right, and the numbers that show it.

What the seed says is told in our words; every number in what is right comes from the runs (``facts.py``).
"""

from typing import NamedTuple

from report.facts import Facts, standard_error


class Answer(NamedTuple):
    """One question; ``right`` is a list of HTML paragraphs."""

    task: str
    question: str
    seed: str
    right: list[str]


def answers(report: Facts, course: Facts, small: Facts) -> dict[str, Answer]:
    """Returns the answers by task."""
    found = (
        early_stopping(report, course),
        shuffling(report, course),
        overfitting(report, course),
        gradient(),
        weights(report, course),
        accuracy(report),
        regularization(report, course, small),
        norms(report, course),
    )
    return {answer.task: answer for answer in found}


def early_stopping(r: Facts, c: Facts) -> Answer:
    return Answer(
        "2d",
        "When does early stopping stop?",
        "In “19 of 500 epochs”, at “global step 15”: two numbers that come from two different rules.",
        [
            f"On the report’s split, after <b>{r['stop_steps']} updates</b>, in epoch {r['stop_epoch']} of "
            f"{r['stop_epochs']}; the validation loss had been smallest ({r['stop_best_loss']:.4f}) after "
            f"{r['stop_best_step']}, ten checks earlier. On <code>course</code>: {c['stop_steps']} updates, epoch "
            f"{c['stop_epoch']}, best after {c['stop_best_step']} ({c['stop_best_loss']:.4f}).",
            f"The rule is the course’s: ten checks in a row, one every {r['check_interval']} updates here, without a "
            "smaller loss. The course checks after updates 1, 1 + k, …, ours after k, 2k, …; its own positions give "
            "545 updates, which is the 20th epoch, or 19 when epochs count from 0. No rule of this kind can stop at "
            f"step 15, since ten checks alone take {10 * r['check_interval']} updates.",
            f"Patience is a bet. On <code>course</code> the 50-epoch run goes on to a smaller validation loss, "
            f"{c['logistic_best_val_loss']:.4f} after {c['logistic_best_step']} updates.",
        ],
    )


def shuffling(r: Facts, c: Facts) -> Answer:
    low, high = min(r["shuffled_late"]), max(r["shuffled_late"])
    return Answer(
        "2e",
        "What does shuffling change?",
        "It makes the gradient of a mini-batch more accurate, so that the model follows the way to local minima "
        "better.",
        [
            "The loss is convex: there are no local minima to miss. And shuffling makes no single gradient better; "
            "it stops the same mini-batches from coming back in the same order.",
            f"Where the order matters, that shows. On <code>course</code> an epoch has {c['batches']} batches and a "
            f"check comes every {c['check_interval']}, so a check falls right behind batch {c['spike_batch']} of the "
            f"epoch every lcm({c['batches']}, {c['check_interval']}) = <b>{c['spike_period']} updates</b>: after "
            f"{listed(c['spikes'])}. There the accuracy drops by {c['spike_drop']:.3f} on average, against "
            f"{c['typical_move']:.3f} between two checks otherwise, because that batch throws the weights off for a "
            "moment. Shuffled, no batch comes back, and the spikes are gone.",
            "The report’s own split is in random order already. There shuffling has no visible effect: "
            f"{r['unshuffled_late']:.4f} without it, {low:.4f} to {high:.4f} with it ({r['seeds']} seeds, mean of the "
            f"last 25 checks), while a standard error on {r['val_images_binary']} images is "
            f"{standard_error(r['unshuffled_late'], r['val_images_binary']):.4f}.",
            f"Which run stops earlier is chance: {listed(r['shuffled_stops'])} updates over the seeds, "
            f"{r['stop_steps']} unshuffled; on <code>course</code> {listed(c['shuffled_stops'])}, and "
            f"{c['stop_steps']} unshuffled.",
        ],
    )


def overfitting(r: Facts, c: Facts) -> Answer:
    error = standard_error(r["softmax_val_accuracy"], r["val_images"])
    large = standard_error(c["softmax_val_accuracy"], c["val_images"])
    return Answer(
        "3d",
        "Is there overfitting?",
        "None to be seen, for the training accuracy is not above the validation accuracy.",
        [
            f"The validation accuracy lies {r['softmax_late_gap']:.4f} above the training accuracy (mean of the last "
            f"25 checks), and its standard error on {r['val_images']:,} images is <b>{error:.4f}</b>: "
            f"{abs(r['softmax_late_gap']) / error:.1f} standard errors, which is sampling noise and says nothing "
            "either way.",
            f"On <code>course</code>, with {c['val_images']:,} validation images and a standard error of {large:.4f}, "
            f"the training accuracy is {-c['softmax_late_gap']:.4f} higher and the loss gap is "
            f"{signed(c['softmax_val_loss'] - c['softmax_train_loss'])}. The model overfits a little, but the "
            f"validation loss is still at its smallest near the end (update {c['softmax_best_step']} of "
            f"{c['softmax_steps']}).",
        ],
    )


def gradient() -> Answer:
    return Answer(
        "4a",
        "What is the gradient with L2 regularization?",
        "The gradient of the penalty alone; the sum is never stated, and R is written as both ‖w‖² and ½ Σ w².",
        [
            "R = ½ ‖w‖² = ½ Σ w², hence <b>∂J/∂w = ∂C/∂w + λw</b>. The <a href='#derivation'>derivation</a> has all "
            "of it."
        ],
    )


def weights(r: Facts, c: Facts) -> Answer:
    first, last, own = c["l2"][0], c["l2"][-1], (r["l2"][0], r["l2"][-1])
    return Answer(
        "4b",
        "Why are the weights less noisy with l2 = 2?",
        "Because the penalty limits how complex the weight matrices can be (said of figure 7, meant of figure 6).",
        [
            "The number of parameters does not change. A large penalty keeps the weights near zero, where all "
            "outputs are nearly equal and the gradient pulls each class towards its mean image minus the mean of "
            f"all: a smooth picture. The correlation with that picture is <b>{first['correlation']:.2f} at l2 = 0 and "
            f"{last['correlation']:.2f} at l2 = 2</b> on <code>course</code>, {own[0]['correlation']:.2f} and "
            f"{own[1]['correlation']:.2f} on the report’s split.",
            f"The scales differ, too: ‖w‖ is {first['norm']:.2f} and {last['norm']:.2f}, so each row has a colour "
            "scale of its own.",
        ],
    )


def accuracy(r: Facts) -> Answer:
    rows = "".join(
        f"<tr><td>{x['l2']:g}</td><td><b>{x['late_accuracy']:.3f}</b></td><td>{x['val_accuracy']:.3f}</td>"
        f"<td>{x['rounded_share']:.3f}</td></tr>"
        for x in r["l2"]
    )
    table = (
        "<div class='scroll'><table><thead><tr><th>l2</th><th>accuracy by argmax, late mean</th><th>at the last "
        f"update</th><th>the report’s metric, reproduced</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
    return Answer(
        "4c",
        "What is the validation accuracy for each l2?",
        "Figure 7 is called validation accuracy, but draws the share of one-hot entries that equal the rounded output.",
        [
            "That share counts ten entries per image and rewards saying nothing: outputs that are all below ½ round "
            "to zeros and score 0.90. Accuracy by argmax on the report’s split, beside that metric at the final "
            "weights:",
            table,
            f"At l2 = 2 the report’s metric gives {r['l2'][-1]['rounded_share']:.3f} where "
            f"{r['l2'][-1]['late_accuracy']:.3f} of the images are classified rightly. That run’s end point is noisy; "
            "the late mean is over the last 25 checks.",
        ],
    )


def regularization(r: Facts, c: Facts, small: Facts) -> Answer:
    first, last, none, some = c["l2"][0], c["l2"][-1], small["none"], small["some"]
    gaps = ", ".join(f"{signed(x['gap'])} at {x['l2']:g}" for x in c["l2"])
    return Answer(
        "4d",
        "Why is the validation accuracy lower with regularization?",
        "The model may not fit as well; a larger validation set would probably favour it; or it overfits more.",
        [
            f"It underfits. From l2 = 0 to 2 the training loss rises from {first['train_loss']:.3f} to "
            f"{last['train_loss']:.3f} and the validation loss from {first['val_loss']:.3f} to "
            f"{last['val_loss']:.3f}, while the gap between them closes and turns round (validation − training: "
            f"{gaps}). Overfitting would widen it. On the report’s split: {signed(r['l2'][0]['gap'])} at 0, "
            f"{signed(r['l2'][-1]['gap'])} at 2.",
            "A larger validation set measures the same thing more precisely. It is little <em>training</em> data "
            f"that L2 helps with: on {small['images']} training images the validation loss ends at "
            f"<b>{none['val_loss']:.3f} without and {some['val_loss']:.3f} with l2 = {some['l2']:g}</b>, though not "
            f"the accuracy ({none['val_accuracy']:.3f} and {some['val_accuracy']:.3f}), and stopping early does as "
            f"well there: the smallest validation losses on the way are {none['best_val_loss']:.3f} and "
            f"{some['best_val_loss']:.3f}.",
        ],
    )


def norms(r: Facts, c: Facts) -> Answer:
    norm = ", ".join(f"{x['norm']:.2f}" for x in r["l2"])
    squared = ", ".join(f"{x['norm_squared']:.2f}" for x in r["l2"])
    l2 = ", ".join(f"{x['l2']:g}" for x in r["l2"])
    return Answer(
        "4e",
        "How does the norm of the weights depend on l2?",
        "It falls as l2 grows, since the weights are limited in size and complexity.",
        [
            f"It falls, in size; “complexity” is not measured here. ‖w‖ = <b>{norm}</b> and ‖w‖² = {squared} for "
            f"l2 = {l2} on the report’s split. The two look different, so both are drawn and named, on "
            "a logarithmic l2 axis with 0 set apart. The bias counts as a part of w, as in the course.",
        ],
    )


def listed(values) -> str:
    """Returns numbers as ``1, 2 and 3``."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last


def signed(value: float) -> str:
    """Returns a difference as text, with its sign."""
    return f"{value:+.4f}".replace("-", "−")
