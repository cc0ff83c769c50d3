"""Scripts are read once, and identified by their hash."""

from __future__ import annotations

import re
from hashlib import sha1
from importlib.resources import files

import pytest

from rxdispatch.store.scripts import Script, load_script

BOARDS = "rxdispatch.boards.redis"
SCRIPTS = sorted(
    path.name.removesuffix(".lua")
    for path in files(BOARDS).joinpath("lua").iterdir()
    if path.name.endswith(".lua")
)


def test_the_hash_is_the_servers() -> None:
    """EVALSHA finds a script by the SHA-1 of its text."""
    assert sha1(b"return 1").hexdigest() == Script("return 1").sha


def test_files_are_put_together_once() -> None:
    """Files are joined in the given order, and the same names give the same object."""
    both = load_script("rxdispatch.nodes", "prelude", "lookup")
    parts = (load_script("rxdispatch.nodes", name).text for name in ("prelude", "lookup"))
    assert "\n".join(parts) == both.text
    assert both is load_script("rxdispatch.nodes", "prelude", "lookup")


def test_parts_come_first_and_once() -> None:
    """A part stands before the file that names it, however many files name it."""
    text = load_script(BOARDS, "cancel").text
    assert 1 == text.count("local function tries(id)")
    assert text.index("local function tries(id)") < text.index("local function bury(")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_declares_what_it_touches(name: str) -> None:
    """Each variable of a key is declared, and each declared key is used."""
    script = load_script(BOARDS, name)
    declaration, _, body = script.text.partition("\n")
    declared = re.findall(r"[A-Z]+(?=[,\s])", declaration.partition("=")[0])
    assert [key.upper() for key in script.keys] == declared
    code = re.sub(r"--[^\n]*|'[^']*'", "", body)
    used = set(re.findall(r"(?<=call\()?\b([A-Z]{4,})\b(?!\[)", code))
    constants = set(re.findall(r"local ([\w, ]+)[ \n]", code))
    names = {part.strip() for group in constants for part in group.split(",")}
    assert set(declared) <= used
    assert used - names <= {*declared, "ARGV"}


def test_a_missing_file() -> None:
    """The error names the file."""
    with pytest.raises(FileNotFoundError, match=r"missing\.lua"):
        load_script(BOARDS, "missing")


@pytest.mark.parametrize("name", SCRIPTS)
def test_events_are_collected_in_one_place(name: str) -> None:
    """A part that is inserted into a branch has no list of events of its own."""
    assert load_script(BOARDS, name).text.count("local log, CODES") <= 1
