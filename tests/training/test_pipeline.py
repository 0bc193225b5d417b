"""Training ahead, in whatever threads and parts, changes no bit, whatever stops in between."""

import threading
import weakref
from functools import partial

import pytest
import torch

from handgrad.data.rows import Rows
from handgrad.solvers.sgd import SGD
from handgrad.training.pipeline import Part, Pipeline
from tests.conftest import results
from tests.test_resume import WORDS, assert_same_state


@pytest.fixture
def valid(monkeypatch) -> list[bool]:
    """Tells of each block whether the model took over what was trained ahead."""
    valid: list[bool] = []
    is_valid = Part.is_valid

    def watched(self, active):
        valid.append(is_valid(self, active))
        return valid[-1]

    monkeypatch.setattr(Part, "is_valid", watched)
    return valid


def test_results_of_parts_and_rows_from_disk_are_kept_by_nobody(monkeypatch):
    """Else a set of 20 GB would leave its holes in the heap."""
    monkeypatch.setattr("handgrad.training.pipeline.READ_AT_ONCE", 30)
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    found, most, places = [], 0, set()

    def sums(input, _):
        nonlocal most
        found.append(weakref.ref(result := input.sum(0)))
        most = max(most, sum(each() is not None for each in found))
        places.add(input.data_ptr())
        return result

    rows = Rows([x], index=torch.arange(0, 1000, 2))
    with Pipeline(SGD(lr=0.1), 1) as pipeline:
        (whole,) = pipeline.sums(1, (sums, (rows, torch.zeros(len(rows)))))
    assert len(found) == 50
    assert (most, len(places)) == (2, 1), "that of all so far and the latest; one place that all are read into"
    expected = torch.zeros(3)
    for part in rows.in_memory().split(10):
        expected += part.sum(0)
    assert torch.equal(whole, expected.double())


@pytest.mark.parametrize(("threads", "told"), [("auto", 0), (2, 0), (3, 1), (100, 1)])
def test_more_threads_than_cores_are_told(threads, told, monkeypatch, caplog):
    monkeypatch.setattr("handgrad.training.pipeline.cores", lambda local: 2 // local)
    assert Pipeline(None, threads).threads == (2 if threads == "auto" else threads)
    assert caplog.text.count(f"threads={threads}: this process may use 2; more only wait for one another") == told


@pytest.fixture
def plain(run, monkeypatch):
    """Runs without training ahead: the model makes all updates itself."""

    def plain(*words, name):
        with monkeypatch.context() as context:
            context.setattr("handgrad.fit.pipeline", lambda solver, *_: Pipeline(solver, 1, side_by_side=False))
            return run(*words, name=name)

    return plain


def test_no_thread_is_started_that_has_nothing_to_do():
    before = threading.active_count()
    with Pipeline(SGD(lr=0.1), 20_000) as pipeline:
        assert pipeline.run([partial(abs, -number) for number in range(3)]) == [0, 1, 2]
        assert threading.active_count() <= before + 2


ADAM = ("optimizer=adam", "lr=0.0005")


@pytest.mark.parametrize(("optimizer", "threads"), [((), 1), ((), 3), (ADAM, 2)])
def test_ahead_gives_the_bits_of_the_plain_loop(optimizer, threads, run, plain, valid):
    words = [word for word in WORDS if not (optimizer and word.startswith(("optimizer", "lr")))]
    words.append("data.train_size=6000")
    expected = plain(*words, *optimizer, name="plain")
    assert not valid
    found = run(*words, *optimizer, f"threads={threads}", name="found")
    assert_same_state(found, expected)
    stops = {row["steps"] for row in results(found)}
    assert len(stops) > 1  # classifiers stopped while others went on: then the next block is made anew
    made_ahead = len(valid) - len(stops) if threads > 1 else 0
    assert valid.count(True) == made_ahead  # all but the first block, and the one after each stop but the last


def test_the_parts_of_a_path_train_what_the_whole_does(run, plain, monkeypatch):
    """To rounding only: how a sum in a matrix product is split follows from its shape."""
    monkeypatch.setattr("handgrad.training.pipeline.OUTPUTS_OF_A_PART", 20)  # two classifiers and one
    for name, optimizer in (("sgd", ()), ("adam", ("optimizer=adam", "lr=0.0005"))):
        words = [word for word in WORDS if not (optimizer and word.startswith(("optimizer", "lr")))]
        words += [*optimizer, "data.train_size=4000", "trainer.precision=64-true", "epochs=5", "patience=2"]
        expected, found = plain(*words, name=f"plain_{name}"), run(*words, "threads=2", name=f"parts_{name}")
        assert len({row["steps"] for row in results(found)}) > 1
        assert_same_state(run(*words, "threads=1", name=f"one_{name}"), found)
        for row, wanted in zip(results(found), results(expected), strict=True):
            assert row["steps"] == wanted["steps"]
            for key in ("last_train_loss", "val_loss", "weight_norm_squared"):
                assert float(row[key]) == pytest.approx(float(wanted[key]), rel=1e-11)


def test_in_every_precision(run):
    for precision in ("64-true", "bf16-true", "bf16-mixed"):
        words = ("experiment=report_logistic", "epochs=1", f"trainer.precision={precision}")
        one, two = (run(*words, f"threads={n}", name=f"{precision}_{n}") for n in (1, 2))
        assert_same_state(two, one)


def test_what_fails_ahead_fails_the_run(run, monkeypatch):
    from handgrad.data.blocks import BlockLoader

    minibatch = BlockLoader.minibatch

    def failing(self, update):
        if update == 20:
            raise OSError("gone")
        return minibatch(self, update)

    monkeypatch.setattr(BlockLoader, "minibatch", failing)
    with pytest.raises(OSError, match="gone"):
        run("experiment=report_logistic", "epochs=2", "threads=2")
