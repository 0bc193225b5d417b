"""``pip install .`` gives one importable package and nothing else, and importing it is light."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HEAVY = {"pytorch_lightning", "lightning_fabric", "hydra", "omegaconf", "torchvision", "matplotlib", "tensorboard"}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """The Python of an empty environment in which the package is installed; what it needs is lent by this one."""
    folder = tmp_path_factory.mktemp("fresh")
    source, wheels = folder / "source", folder / "wheels"
    shutil.copytree(REPOSITORY / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):  # a copy: a build leaves files beside its sources
        shutil.copy(REPOSITORY / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    return python


def ask(python: Path, code: str, *, dependencies: bool) -> str:
    """Returns what ``code`` prints in the fresh environment, in a folder without sources."""
    path = {"PYTHONPATH": sysconfig.get_path("purelib")} if dependencies else {}
    done = subprocess.run([python, "-c", code], cwd=python.parent, env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_installing_gives_one_top_level_name(fresh):
    site = Path(ask(fresh, "import sysconfig; print(sysconfig.get_path('purelib'))", dependencies=False))
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"handgrad"}
    assert ask(fresh, "import handgrad; print(handgrad.__version__)", dependencies=False) == "0.1.0"


def test_the_functions_work_from_there(fresh):
    code = "import torch, handgrad.functions as f; from handgrad.functions import linear_cross_entropy as loss; "
    code += "x, w = torch.ones(2, 3), torch.zeros(1, 4, 3, requires_grad=True); "
    code += "loss(x, w, torch.tensor([0, 1]))[0].sum().backward(); print(f.__file__, w.grad[0, :, 0].tolist())"
    file, gradient = ask(fresh, code, dependencies=True).split(" ", 1)
    assert Path(file).is_relative_to(fresh.parents[1])
    assert gradient == "[-0.25, -0.25, 0.25, 0.25]"


def test_importing_it_is_light(fresh):
    """The functions and the estimator."""
    code = "import sys, handgrad.functions; handgrad.LinearProbe; "
    code += "print(*{name.partition('.')[0] for name in sys.modules})"
    assert not HEAVY & set(ask(fresh, code, dependencies=True).split())
