"""The files that the demo finds."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from rxdispatch.cli.demo.tree import find_files
from rxdispatch.errors import ConfigError


def test_finds_python_files_sorted(tmp_path: Path) -> None:
    """Files in subfolders and behind links are found, but no pipes, folders or other files."""
    (tmp_path / "b" / "x.py").mkdir(parents=True)
    for name in ("b/b.py", "a.py", "b/x.py/c.py", "b/notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "dangling.py").symlink_to("missing")
    (tmp_path / "again").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    found = find_files(tmp_path)
    names = ["a.py", "b/b.py", "b/x.py/c.py", "dangling.py"]
    assert names == list(found.files)
    assert [os.fsencode(tmp_path / name) for name in names] == list(found.files.values())


def test_default_is_the_standard_library() -> None:
    """The standard library has some thousand files, without the installed packages."""
    found = find_files(None)
    assert Path(sysconfig.get_path("stdlib")).resolve() == found.root
    assert {"ast.py", "json/decoder.py"} <= set(found.files)
    assert not any(name.startswith(("site-packages", "dist-packages")) for name in found.files)


def test_a_file_need_not_be_called_py(tmp_path: Path) -> None:
    """A single file may have any name."""
    script = tmp_path / "script"
    script.touch()
    assert {"script": os.fsencode(script)} == find_files(script).files


def test_refuses_what_is_no_place_for_files(tmp_path: Path) -> None:
    """A device is refused."""
    with pytest.raises(ConfigError, match="PATH must be a folder or a file"):
        find_files(Path(os.devnull))


def test_a_path_that_is_too_long_for_an_id(tmp_path: Path) -> None:
    """Both ends of the path are kept around a digest; a shorter path stays as it is."""
    short = tmp_path.joinpath(*(("d" * 200,) * 4))
    long = short.joinpath(*(("ä" * 100,) * 4))
    long.mkdir(parents=True)
    for folder in (short, long):
        for name in ("one.py", "two.py"):
            (folder / name).touch()
    found = find_files(tmp_path)
    assert 4 == len(found.files)
    plain = [str(path.relative_to(tmp_path)) for path in (short / "one.py", short / "two.py")]
    assert plain == [name for name in found.files if "..." not in name]
    for name, path in found.files.items():
        assert len(os.fsencode(name)) <= 1024
        assert name.endswith(Path(os.fsdecode(path)).name)
