"""The tree of the code: small files and folders, no import cycle, one name for one class."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LINES = {"rxdispatch": 400, "operators": 400, "benchmarks": 400, "tests": 700}
MODULES = 12


def _files(top: str, *endings: str) -> list[Path]:
    found = {path for ending in endings for path in (ROOT / top).rglob(f"*{ending}")}
    # A glob that follows the link would find the operators twice.
    return sorted(path for path in found if "rxdispatch/operators" not in path.as_posix())


def _where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


SOURCES = [*_files("rxdispatch", ".py"), *_files("operators", ".py")]


@pytest.mark.parametrize("top", LINES)
def test_no_long_file(top: str) -> None:
    """A file holds one noun or verb, so it stays short."""
    lengths = {
        _where(path): len(path.read_text("utf-8").splitlines())
        for path in _files(top, ".py", ".lua")
    }
    assert {} == {where: many for where, many in lengths.items() if many > LINES[top]}


def test_no_large_folder() -> None:
    """A folder holds one feature. The root and the folders of operators are exempt."""
    many: dict[str, int] = {}
    for path in SOURCES:
        where = _where(path.parent)
        if path.name != "__init__.py" and where != "rxdispatch" and "operators" not in where:
            many[where] = many.get(where, 0) + 1
    assert {} == {where: count for where, count in many.items() if count > MODULES}


def test_no_import_cycle() -> None:
    """Imports that only type checkers follow count too."""
    modules: dict[str, Path] = {}
    for path in SOURCES:
        name = _where(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        modules[name if name.startswith("rxdispatch") else f"rxdispatch.{name}"] = path
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        imported = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= inner & modules.keys() or {node.module}
    # Raises CycleError, which names the modules.
    assert len(graph) == len(list(TopologicalSorter(graph).static_order()))


def test_no_class_name_twice() -> None:
    """A name stands for one class in the whole project, private classes included."""
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(_where(path))
    assert {} == {name: where for name, where in places.items() if len(where) > 1}
