import csv

import pytest

from report import stops
from report.facts import order_facts
from tests.conftest import DATA


@pytest.mark.slow
@pytest.mark.parametrize("split", stops.SPLITS)
def test_the_table_is_what_the_loop_gives(split):
    """The data's own order stops where the project's own run does: after 882 and 630 updates."""
    with open(stops.FILE, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    assert len(rows) == 81
    found = stops.stops(split, stops.load(split, DATA), range(1))
    assert [(row["order"], int(row["steps"])) for row in rows[:3]] == [(stop.order, stop.steps) for stop in found]
    assert found[0].steps == {"course": 882, "report": 630}[split]


def test_reshuffled_runs_stop_earlier_on_average():
    for split in stops.SPLITS:
        facts = order_facts(split)
        assert (len(facts["reshuffled"]), len(facts["kept"])) == (40, 40)
        assert facts["errors"] > 2.5
        assert facts["count"] / 2 < facts["reshuffled_earlier"] < facts["count"]
