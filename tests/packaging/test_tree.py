"""The tree of the code: one name for one class."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _sources() -> list[Path]:
    found = {path for top in ("rxdispatch", "operators") for path in (ROOT / top).rglob("*.py")}
    # A glob that follows the link would find the operators twice.
    return sorted(path for path in found if "rxdispatch/operators" not in path.as_posix())


def test_no_class_name_twice() -> None:
    """A name stands for one class in the whole project, private classes included."""
    places: dict[str, list[str]] = {}
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                where = path.relative_to(ROOT).as_posix()
                places.setdefault(node.name.lstrip("_"), []).append(where)
    assert {} == {name: where for name, where in places.items() if len(where) > 1}
