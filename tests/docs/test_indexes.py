"""Each page is in the list of its index, in the order of the sidebar, and no link is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.examples import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + [
    page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts
]
INDEXES = [
    page for page in PAGES if page.name == "index.md" and "{toctree}" in page.read_text("utf-8")
]

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_TOCTREE = re.compile(r"^```\{toctree\}\n(?:(?::[^\n]*)?\n)*(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]*)(#[^)\s]*)?\)")


def name_of(page: Path) -> str:
    """Return the path of *page* in the repository."""
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors that Sphinx and code hosts make for the headings of *page*."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("index", INDEXES, ids=name_of)
def test_the_list_is_the_sidebar(index: Path) -> None:
    """A code host shows only the list, and Sphinx follows only the directives."""
    text = index.read_text("utf-8")
    sidebar = [name for tree in _TOCTREE.findall(text) for name in tree.split()]
    links = [path for path, _ in _LINK.findall(_FENCE.sub("", text)) if path.endswith(".md")]
    listed = [path.removesuffix(".md") for path in links if not path.startswith("..")]
    assert sidebar == list(dict.fromkeys(listed))


@pytest.mark.parametrize("index", INDEXES, ids=name_of)
def test_no_page_is_missing(index: Path) -> None:
    """Each page of a folder is in the index of the folder."""
    if index.parent == DOCS:
        return
    sidebar = {name for tree in _TOCTREE.findall(index.read_text("utf-8")) for name in tree.split()}
    assert {page.stem for page in index.parent.glob("*.md")} - {"index"} == sidebar


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_has_an_end(page: Path) -> None:
    """A link to a page or a heading must be changed when its target is renamed."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    links = [(path, part) for path, part in _LINK.findall(text) if "://" not in path]
    assert [] == [path for path, _ in links if not (page.parent / path).exists()]
    ends = {(page.parent / path if path else page, part) for path, part in links if part}
    assert [] == [(end.name, part) for end, part in ends if part[1:] not in anchors(end)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_has_a_text(page: Path) -> None:
    """Sphinx fills in an empty text, but a code host shows nothing."""
    text = page.read_text("utf-8")
    assert [] == re.findall(r"(?<!\w)\[\]\([^)]*\)|\{\w+\}`[^`]*`", _FENCE.sub("", text))


def test_figures_fill_one_page() -> None:
    """The page of figures stays short; the rest is built from what was measured."""
    page = (ROOT / "docs" / "explanation" / "performance.md").read_text("utf-8")
    assert page.count("\n") <= 150
