"""The whole tree: short files, small folders, no cycles, and one class for each name."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MOST_LINES = 400
MOST_TEST_LINES = 700
MOST_MODULES = 12
"""The most modules in a folder, besides its ``__init__``."""

UNBOUNDED = ("rxdispatch", "operators/flow", "operators/tasks")
"""The root of the package, and the folders that have a file for each operator."""


def _sources() -> Iterator[Path]:
    """Yield the modules of the package, with the operators only once."""
    for top in ("rxdispatch", "operators"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if top == "operators" or (ROOT / "rxdispatch" / "operators") not in path.parents:
                yield path


SOURCES = list(_sources())
TREES = {path: ast.parse(path.read_text("utf-8")) for path in SOURCES}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(("rxdispatch", *parts) if parts[0] == "operators" else parts)


@pytest.mark.parametrize(
    ("tops", "pattern", "most"),
    [
        (("rxdispatch", "operators", "benchmarks"), "*.py", MOST_LINES),
        (("rxdispatch",), "*.lua", MOST_LINES),
        (("tests",), "*.py", MOST_TEST_LINES),
    ],
)
def test_no_file_is_long(tops: tuple[str, ...], pattern: str, most: int) -> None:
    """A longer file holds two nouns."""
    lines = {
        _name(path): path.read_text("utf-8").count("\n")
        for top in tops
        for path in (ROOT / top).rglob(pattern)
    }
    assert {} == {path: count for path, count in lines.items() if count > most}


def test_no_folder_is_large() -> None:
    """A folder with more than a dozen modules holds two features."""
    folders = Counter(_name(path.parent) for path in SOURCES if path.name != "__init__.py")
    large = {folder: count for folder, count in folders.items() if count > MOST_MODULES}
    assert {} == {folder: count for folder, count in large.items() if folder not in UNBOUNDED}


def test_a_class_has_its_name_to_itself() -> None:
    """Even a private name stands for one class in the whole package."""
    classes = [
        (node.name.lstrip("_"), _name(path))
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    count = Counter(name for name, _ in classes)
    assert [] == [one for one in sorted(classes) if count[one[0]] > 1]


def test_no_import_is_a_cycle() -> None:
    """Imports that are only for types count as well."""
    modules = {_module(path): tree for path, tree in TREES.items()}
    imports = {name: set(_imported(tree, modules)) - {name} for name, tree in modules.items()}
    TopologicalSorter(imports).prepare()


def _imported(tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in inner if name in modules]
            yield from found or [node.module]
