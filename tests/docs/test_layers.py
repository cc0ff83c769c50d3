"""The drawing of the layers equals the list that import-linter checks."""

from __future__ import annotations

import re
import tomllib

from tests.docs.examples import ROOT

LIST = ROOT / "pyproject.toml"
DRAWING = ROOT / "docs" / "explanation" / "architecture.md"


def test_the_drawing_is_true() -> None:
    """The drawing has one line per layer, from the top; indented text belongs to the line above."""
    contracts = tomllib.loads(LIST.read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [re.sub(r"[()]", "", layer) for layer in contracts[0]["layers"]]
    section = DRAWING.read_text("utf-8").partition("\n## Layers\n")[2]
    drawing = section.split("```text\n")[1].partition("```")[0].splitlines()
    assert layers == [re.split(r"  +", line)[0] for line in drawing if not line.startswith(" ")]
