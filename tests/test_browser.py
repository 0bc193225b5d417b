"""What a person sees: TensorBoard on a run and on a path, asked over HTTP and opened in a real browser."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

SCALARS = {"accuracy/train", "accuracy/val", "loss/train", "loss/val", "penalty", "weight_norm"}
needs_chromium = pytest.mark.skipif(not shutil.which("chromedriver"), reason="Chromium is not installed")


@pytest.fixture
def tensorboard(run, tmp_path) -> Iterator[str]:
    """Serves a finished run and a finished path; yields the address."""
    run("experiment=report_logistic", "epochs=1", name="single")
    run("experiment=report_l2", "l2=[0,2]", "epochs=1", name="path")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "outputs"), "--port", "0"]
    command += ["--host", "localhost", "--load_fast", "false", "--reload_interval", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = next(found[0] for line in process.stderr if (found := re.search(r"http://localhost:\d+/", line)))
    while len(ask(address + "data/runs")) < 4:  # it reads the runs while it serves
        pass
    yield address
    process.terminate()
    process.communicate()


def ask(address: str, body: dict | None = None):
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(address, data, headers)) as answer:
        return json.load(answer)


def test_tensorboard_serves_what_the_runs_wrote(tensorboard):
    assert set(ask(tensorboard + "data/runs")) == {"path", "path/l2=0.0", "path/l2=2.0", "single"}
    scalars = ask(tensorboard + "data/plugin/scalars/tags")
    for name in ("single", "path/l2=0.0", "path/l2=2.0"):
        assert scalars[name].keys() >= SCALARS
    images = ask(tensorboard + "data/plugin/images/tags")
    assert {name for name, tags in images.items() if "weights" in tags} == {"single", "path"}
    layout = ask(tensorboard + "data/plugin/custom_scalars/layout")
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in layout["category"][0]["chart"]}
    assert charts == {"loss": ["loss/train", "loss/val"], "accuracy": ["accuracy/train", "accuracy/val"]}
    groups = ask(
        tensorboard + "data/plugin/hparams/session_groups",
        {
            "experimentName": "",
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS"],
            "colParams": [],
            "sliceSize": 9,
        },
    )
    assert {group["name"] for group in groups["sessionGroups"]} >= {"single", "path/l2=0.0", "path/l2=2.0"}


# Elements are sought through shadow roots too, which TensorBoard's older tabs consist of.
FIND = """
const found = [];
const walk = (node) => {
    found.push(...node.querySelectorAll(arguments[0]));
    node.querySelectorAll('*').forEach((child) => child.shadowRoot && walk(child.shadowRoot));
};
walk(document);
return found.filter((e) => e.getBoundingClientRect().width > 0).map((e) => e.naturalWidth || e.innerText?.trim() || 1);
"""


def wait_for(browser, selector: str, test=bool) -> list:
    """Returns what is visible of ``selector`` once ``test`` holds for it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(
        lambda driver: (found := driver.execute_script(FIND, selector)) and test(found) and found
    )


def errors(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@needs_chromium
def test_tensorboards_tabs_show_the_runs(tensorboard, browser):
    browser.get(tensorboard + "#scalars")
    names = wait_for(browser, ".heading, tf-category-paginated-view .name", lambda found: "weight_norm" in found)
    assert any(str(name).startswith("loss") for name in names)
    assert wait_for(browser, "vz-line-chart2")
    browser.get(tensorboard + "#images")
    browser.refresh()
    widths = wait_for(browser, "img", lambda found: len(found) == 2 and all(w != 1 for w in found))
    assert sorted(widths) == [60, 600], "one tile of the logistic weights, ten of the softmax weights"
    browser.get(tensorboard + "#hparams")
    browser.refresh()
    cells = wait_for(browser, "vaadin-grid-cell-content, th", lambda found: "path/l2=2.0" in found)
    # Of the settings TensorBoard shows the first five by name; the others at a tick.
    assert {"data.digits", "data.split", "final/val_accuracy", "final/val_loss"} <= {str(cell) for cell in cells}
    assert not errors(browser)
