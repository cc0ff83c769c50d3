"""Every example of the README and the documentation does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.examples import ROOT, Page, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.path.relative_to(ROOT)))
def test_page(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run its blocks in order, in a directory with three files, one of which is no text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RXDISPATCH_URL", raising=False)
    Path("good.py").write_text("print('hello')\n", "utf-8")
    Path("long.py").write_text("x = 1\n" * 100, "utf-8")
    Path("broken.py").write_bytes(b"\xff\xfe\xfa")
    page.run()
