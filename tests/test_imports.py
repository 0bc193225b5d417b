"""Imports point one way, from the command line down to pure mathematics, and no two modules have one name."""

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "handgrad"
# Each room, and those that it may look into.
MATHS = {"functions", "compat", "errors"}
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "compat": set(),
    "files": {"errors"},
    "metrics": set(),
    "tables": set(),
    "functions": {"compat", "errors"},
    "diagnosis": MATHS,
    "solvers": MATHS,
    "data": {"errors", "files", "functions"},
    "models": MATHS | {"data", "metrics"},
    "runs": {"errors", "files", "tables"},
    "loggers": {"errors", "runs"},
    "plots": {"errors", "evaluation", "files", "loggers", "metrics", "runs", "selection"},
    "training": MATHS | {"data", "files", "models", "runs", "solvers"},
    "evaluation": MATHS | {"data", "metrics", "models"},
    "selection": {"errors", "metrics", "solvers"},
    "resampling": MATHS
    | {"cross_validation", "data", "files", "metrics", "models", "runs", "selection", "solvers", "tables"},
    "choice": MATHS
    | {"data", "resampling", "runs", "evaluation", "metrics", "models", "selection", "solvers", "training"},
    "callbacks": MATHS | {"choice", "data", "diagnosis", "files", "loggers", "metrics", "models", "plots", "runs"},
    "cross_validation": MATHS | {"data", "metrics", "solvers"},
    "estimator": MATHS | {"classifier", "cross_validation", "data", "metrics", "selection", "solvers", "training"},
    "classifier": {"data", "errors", "files", "metrics", "runs"},
    "prediction": {"classifier", "data", "errors", "files", "metrics", "tables"},
    "fit": MATHS
    | {
        "resampling",
        "callbacks",
        "choice",
        "classifier",
        "data",
        "files",
        "loggers",
        "models",
        "runs",
        "selection",
        "solvers",
    }
    | {"training"},
    "cli": {"compat", "errors", "files", "fit", "plots", "runs", "selection"},
    "export": {"classifier", "cli", "errors", "files"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def room(module: str) -> str:
    """Returns the room of a module that is named from the package down."""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> set[str]:
    """Returns the rooms that a file imports from, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are named from the package down"
            whole = node.module == "handgrad"
            names = [f"handgrad.{name.name}" for name in node.names] if whole else [str(node.module)]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        found |= {room(name) for name in names if name.split(".")[0] == "handgrad"}
    return found - {"", "__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imported(path) <= BELOW[here] | {here}


def test_the_mathematics_needs_torch_alone():
    for path in (PACKAGE / "functions").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            third_party = {name.split(".")[0] for name in names} - {"handgrad", "torch"}
            assert third_party <= {"collections", "dataclasses", "functools", "threading", "typing"}, path


def test_no_two_modules_have_one_name():
    names = Counter(path.stem for path in FILES)
    assert [name for name, count in names.items() if count > 1] == []


def test_each_module_has_its_test_file():
    tests = Path(__file__).parent
    for path in FILES:
        place = path.relative_to(PACKAGE)
        assert (tests / place.parent / f"test_{place.name}").is_file(), f"no tests/{place.parent}/test_{place.name}"
