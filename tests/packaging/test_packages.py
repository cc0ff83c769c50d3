"""The list of packages in setup.cfg equals the packages on disk."""

from __future__ import annotations

import os
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config() -> ConfigParser:
    """Return the parsed ``setup.cfg``."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _lines(config: ConfigParser, section: str, key: str) -> list[str]:
    return config[section][key].split("\n")[1:]


def _on_disk(top: str, name: str) -> set[str]:
    """Return the dotted names of the packages below *top*, which is installed as *name*."""
    found: set[str] = set()
    for directory, _, files in os.walk(ROOT / top):
        if "__init__.py" in files:
            parts = Path(directory).relative_to(ROOT / top).parts
            found.add(".".join((name, *parts)))
    return found


def test_every_package_on_disk_is_listed(config: ConfigParser) -> None:
    """A package that is not listed would be missing from the wheel without a warning."""
    on_disk = _on_disk("rxdispatch", "rxdispatch") | _on_disk("operators", "rxdispatch.operators")

    assert sorted(on_disk) == sorted(_lines(config, "options", "packages"))


def test_every_operator_package_is_mapped_to_its_directory(config: ConfigParser) -> None:
    """The operators are beside the package, and only this mapping says where."""
    expected = {
        f"{name} = {name.removeprefix('rxdispatch.').replace('.', '/')}"
        for name in _on_disk("operators", "rxdispatch.operators")
    }

    assert expected == set(_lines(config, "options", "package_dir"))


def test_directories_that_hold_modules_are_packages() -> None:
    """Neither the list nor the tests above would find a directory without ``__init__.py``."""
    without = {
        module.parent.relative_to(ROOT).as_posix()
        for top in ("rxdispatch", "operators")
        for module in (ROOT / top).rglob("*.py")
        if not (module.parent / "__init__.py").exists()
    }

    assert set() == without


def test_the_link_lets_tools_see_the_operators() -> None:
    """If the file system keeps links, both paths lead to the same files."""
    link = ROOT / "rxdispatch" / "operators"
    if not link.is_symlink():
        pytest.skip("this file system or archive did not keep the link")

    assert "../operators" == os.readlink(link)  # noqa: PTH115 - a Path would drop what is tested
    assert (link / "__init__.py").samefile(ROOT / "operators" / "__init__.py")
