"""Folders of the package are small enough to read, and say what is private."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EXPORTING = ("operators", "streams", "testing")
"""Packages from which names are imported, so their modules begin with an underscore."""


def _packages() -> list[Path]:
    tops = (ROOT / "rxdispatch", ROOT / "operators")
    found = {init.parent for top in tops for init in top.rglob("__init__.py")}
    # A glob that follows the link would find the operators twice.
    return sorted(path for path in found if "rxdispatch/operators" not in path.as_posix())


def _name(package: Path) -> str:
    return package.relative_to(ROOT).as_posix()


def _modules(package: Path) -> list[str]:
    return sorted(path.stem for path in package.glob("*.py") if path.stem != "__init__")


INSIDE = [package for package in _packages() if _name(package) != "rxdispatch"]
PUBLIC = [package for package in INSIDE if set(EXPORTING) & set(package.parts)]
INTERNAL = [package for package in INSIDE if package not in PUBLIC]


@pytest.mark.parametrize("package", PUBLIC, ids=_name)
def test_packages_that_export_underscore_their_modules(package: Path) -> None:
    """A module never hides the function of its name. pytest loads the plugin by its module."""
    assert [] == [name for name in _modules(package) if name[0] != "_" and name != "plugin"]


@pytest.mark.parametrize("package", INTERNAL, ids=_name)
def test_all_others_say_that_they_are_internal(package: Path) -> None:
    """Their modules have plain names, so the docstring of the package says it."""
    tree = ast.parse((package / "__init__.py").read_text("utf-8"))
    assert "Internal" in (ast.get_docstring(tree) or "")
    assert 1 == len(tree.body)
