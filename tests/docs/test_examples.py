"""Every example of the README and the documentation does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.examples import ROOT, Page, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.path.relative_to(ROOT)))
def test_page(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order, in an empty directory, and print what the page says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RXDISPATCH_URL", raising=False)
    page.run()
