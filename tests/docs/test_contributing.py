"""The map in CONTRIBUTING leads to files that exist."""

from __future__ import annotations

import re

from tests.docs.examples import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_every_file_exists() -> None:
    """A file that is renamed must be renamed on the map too."""
    named = re.findall(r"`((?:rxdispatch|operators|tests|docs)/[\w./]*)`", TEXT)
    assert [] == [path for path in named if not (ROOT / path).exists()]


def test_the_routes_are_as_long_as_they_say() -> None:
    """A task passes seven files, and a node six."""
    routes = re.findall(r"^1\. .*?(?=\n\n)", TEXT, re.MULTILINE | re.DOTALL)
    assert [7, 6] == [len(re.findall(r"^\d+\. `", route, re.MULTILINE)) for route in routes]


def test_every_command_exists() -> None:
    """The commands are targets of the Makefile."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set() == set(re.findall(r"\bmake ([a-z][\w-]*)", TEXT)) - set(targets)
