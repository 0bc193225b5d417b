import numpy as np
import pytest

from report.events import Curve
from report.facts import find_spikes, inside, optimum_facts, small_facts, split_facts, standard_error


def test_spikes_are_found_where_they_were_put(splits):
    course, report = split_facts(splits["course"]), split_facts(splits["report"])
    assert course["spikes"].tolist() == list(range(36, 240, 24))
    assert (course["spike_period"], course["spike_batch"]) == (24, 4)
    assert course["spike_drop"] == pytest.approx(0.03, abs=1e-3)
    assert report["spikes"].tolist() == []


def test_noise_has_no_spikes():
    step = np.arange(5, 1000, 5)
    assert find_spikes(Curve(step, np.random.default_rng(0).normal(size=len(step))), 28).tolist() == []
    assert find_spikes(Curve(np.array([5]), np.array([0.5])), 28).tolist() == []


def test_standard_error_of_two_thousand_images():
    assert standard_error(0.92, 2000) == pytest.approx(0.0060663, abs=1e-7)


def test_ends_are_those_of_the_result_tables(splits, small):
    facts = split_facts(splits["report"])
    assert (facts["stop_steps"], facts["stop_epoch"], facts["stop_best_step"]) == (240, 30, 210)
    assert (facts["check_interval"], facts["batches"]) == (3, 8)
    assert facts["train_images_binary"] == 3600
    last = facts["l2"][-1]
    assert last["gap"] == pytest.approx(0.01)
    assert last["norm"] == pytest.approx(2 / 3)
    assert last["norm_squared"] == pytest.approx(4 / 9)
    few = small_facts(small)
    assert (few["images"], few["some"]["l2"], few["some"]["val_loss"]) == (100, 0.02, pytest.approx(0.33))


def test_what_sgd_leaves_is_the_share_of_its_objective_above_the_optimum(splits):
    found = optimum_facts(splits["course"], 0.2)
    assert found["objective"] == pytest.approx(0.5 + 0.1 * 4 / 1.44)
    assert found["optimum"] == {
        "objective": pytest.approx(found["objective"] - 0.05),
        "gap": 1e-7,
        "train_loss": pytest.approx(0.45),
        "val_loss": pytest.approx(0.46),
        "val_accuracy": pytest.approx(0.87),
        "left": pytest.approx(0.05 / found["objective"]),
        "proven_left": 0.25,
    }


def test_no_optimum_stands_where_none_is_proven(splits):
    assert list(splits["course"].certified()) == [0.002, 0.02, 0.2], "the made-up run has not converged at l2 = 2"
    assert optimum_facts(splits["course"], 0.0) == {"objective": pytest.approx(0.3), "optimum": None}
    assert optimum_facts(splits["course"], 2.0)["optimum"] is None


def test_a_run_without_a_certificate_of_its_own_is_compared_all_the_same(splits, monkeypatch):
    row = splits["report"].path.row(0.02)
    monkeypatch.delitem(row, "last_gap")
    optimum = optimum_facts(splits["report"], 0.02)["optimum"]
    assert optimum["proven_left"] is None
    assert optimum["left"] > 0


def test_inside():
    assert inside(np.array([0.0, 0.1, 0.2, 0.3]), 0.0, 0.2) == 0.75
