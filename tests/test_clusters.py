"""What docs/clusters.md shows is so: its files as they are in docs/clusters/, and its commands accepted."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from handgrad.cli import names
from handgrad.cli.command_line import check_arguments

PAGE = Path(__file__).parents[1] / "docs" / "clusters.md"
EXAMPLES = PAGE.with_suffix("")
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
FILES = sorted(EXAMPLES.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".sbatch"]


def words_of(text: str) -> list[list[str]]:
    """Returns the words of each command with ``train.py`` in a text, whose lines may go on behind a backslash."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line.partition("train.py")[2], comments=True) for line in lines if "train.py " in line]


COMMANDS = [words for _, block in BLOCKS for words in words_of(block)]


def test_each_file_is_shown_as_it_is():
    shown = {block for _, block in BLOCKS}
    for path in FILES:
        assert path.read_text(encoding="utf-8") in shown, path.name
        assert f"](clusters/{path.name})" in TEXT


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_is_accepted(words, monkeypatch, tmp_path):
    monkeypatch.setattr(names, "which", str)  # of SLURM's commands
    monkeypatch.chdir(tmp_path)
    check_arguments([word.replace("$JOB_COMPLETION_INDEX", "0") for word in words])


def test_the_page_has_the_commands_that_it_is_about():
    assert len(COMMANDS) >= 9
    assert any("hydra/launcher=submitit_slurm" in words for words in COMMANDS)
    assert TEXT.count("torchrun --nnodes 2") == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_batch_file_runs_what_it_says_and_can_be_queued_again(script):
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    asked = dict(line.partition("=")[::2] for line in re.findall(r"^#SBATCH --(.*)$", text, re.MULTILINE))
    assert {"signal": "USR1@300", "requeue": "", "open-mode": "append"}.items() <= asked.items()
    (words,) = words_of(text)
    assert any(word.startswith("hydra.run.dir=outputs/") for word in words), "without it it would begin anew"


def test_a_pod_runs_one_of_the_jobs():
    job = yaml.safe_load((EXAMPLES / "job.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    assert (job["kind"], job["spec"]["completionMode"], pod["restartPolicy"]) == ("Job", "Indexed", "OnFailure")
    assert container["workingDir"].startswith(mount["mountPath"])
    assert mount["name"] == volume["name"]
    (line,) = container["args"]
    said = subprocess.run(
        ["sh", "-c", line.replace("exec python", "exec echo python")],
        env={"JOB_COMPLETION_INDEX": "3"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == "python train.py task=softmax seed=3 hydra.run.dir=outputs/seed3\n"


@pytest.mark.parametrize("code", [1, -9])
def test_rays_tasks_run_each_its_command(code, monkeypatch, tmp_path):
    """Ray stands for itself by what the example uses of it: a task is a call."""
    ran = []

    def run(command: list[str], cwd: str, check: bool) -> SimpleNamespace:
        ran.append(command)
        return SimpleNamespace(returncode=code if "seed=2" in command else 0)

    ray = SimpleNamespace(
        remote=lambda **_: lambda function: SimpleNamespace(remote=function), init=lambda address: None, get=list
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(sys, "argv", ["ray_runs.py", "/work"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / "ray_runs.py"), run_name="__main__")
    assert end.value.code == 1
    assert len({words[-1] for words in ran}) == len(ran) == 4
    for _, program, *words in ran:
        assert program == "train.py"
        check_arguments(words)
