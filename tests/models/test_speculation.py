"""Training ahead in another thread changes no bit, whatever stops in between."""

import pytest

from src.models.speculation import Speculation
from tests.conftest import results
from tests.test_resume import WORDS, assert_same_state


@pytest.fixture
def taken(monkeypatch) -> list[bool]:
    """Tells of each block whether the model took over what was trained ahead."""
    taken: list[bool] = []
    take = Speculation.take

    def watched(self, *args):
        losses = take(self, *args)
        taken.append(losses is not None)
        return losses

    monkeypatch.setattr(Speculation, "take", watched)
    return taken


@pytest.mark.parametrize("optimizer", [(), ("optimizer=adam", "lr=0.0005")])
def test_two_threads_give_the_bits_of_one(optimizer, run, taken):
    words = [word for word in WORDS if not (optimizer and word.startswith(("optimizer", "lr")))]
    one = run(*words, *optimizer, "threads=1", name="one")
    assert not taken
    two = run(*words, *optimizer, "threads=2", name="two")
    assert_same_state(two, one)
    stops = {row["steps"] for row in results(one)}
    assert len(stops) > 1  # classifiers stopped while others went on: then the next block is made anew
    assert taken.count(False) == len(stops)  # the first block, and the one after each stop but the last


def test_in_every_precision(run):
    for precision in ("64-true", "bf16-true", "bf16-mixed"):
        words = ("experiment=report_logistic", "epochs=1", f"trainer.precision={precision}")
        one, two = (run(*words, f"threads={n}", name=f"{precision}_{n}") for n in (1, 2))
        assert_same_state(two, one)


def test_what_fails_ahead_fails_the_run(run, monkeypatch):
    from src.data.blocks import BlockLoader

    minibatch = BlockLoader.minibatch

    def failing(self, update):
        if update == 20:
            raise OSError("gone")
        return minibatch(self, update)

    monkeypatch.setattr(BlockLoader, "minibatch", failing)
    with pytest.raises(OSError, match="gone"):
        run("experiment=report_logistic", "epochs=2", "threads=2")
