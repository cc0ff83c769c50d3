"""The reference has every public name, and the README lists as missing only what is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rxdispatch
from rxdispatch import operators
from tests.docs.examples import ROOT
from tests.docs.signatures import PAGES, generate

REFERENCE = ROOT / "docs" / "reference"


def _text(*path: str) -> str:
    return Path(ROOT, *path).read_text("utf-8")


def test_every_public_name() -> None:
    """Each name is documented once."""
    pages = "".join(page.read_text("utf-8") for page in REFERENCE.glob("*.md"))
    found = re.findall(r"\.\. auto\w+:: rxdispatch\.([A-Za-z_]\w*)(?![\w.])", pages)
    modules = {"testing", "errors", "operators"}
    assert sorted(rxdispatch.__all__) == sorted(name for name in found if name not in modules)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_signatures(page: Path) -> None:
    """The signatures are those of the code, and valid Python; ``make reference`` writes them."""
    text = page.read_text("utf-8")
    assert text == generate(text)
    for block in re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        ast.parse(block)


def test_every_operator() -> None:
    """The table has one row for each operator, and no other rows."""
    table = _text("docs", "reference", "operators.md").partition("Errors that come from")[0]
    assert operators.__all__ == sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_every_log_event() -> None:
    """Each log event has a row in the table."""
    sources = [*(ROOT / "rxdispatch").rglob("*.py"), *(ROOT / "operators").rglob("*.py")]
    code = "".join(path.read_text("utf-8") for path in sources)
    logged = set(re.findall(r"\blog\.\w+\(\s*\"(\w+)\"", code))
    rows = re.findall(r"^\| (`.*?) \|", _text("docs", "reference", "logs.md"), re.MULTILINE)
    assert set() == logged - set(re.findall(r"`(\w+)`", " ".join(rows)))


@pytest.mark.parametrize("module", [rxdispatch, operators], ids=lambda module: module.__name__)
def test_what_is_missing(module: object) -> None:
    """The README does not list an existing name as missing."""
    section = _text("README.md").partition("## What it does not do yet")[2].partition("\n## ")[0]
    assert set() == set(re.findall(r"`(\w+)`", section)) & set(getattr(module, "__all__", ()))
