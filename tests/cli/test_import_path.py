"""The import path of ``rxdispatch worker``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import LIMIT
from tests.cli.test_worker import environment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module, a module with the name of an installed one, and a folder."""
    for name in ("mine", "wave"):
        (tmp_path / f"{name}.py").write_text(f"print('{name} of the folder')\nhandler = 3\n")
    (tmp_path / "apps").mkdir(mode=0o755)
    (tmp_path / "apps" / "wave.py").write_text("print('wave of apps')\nhandler = 3\n")
    # A script is installed elsewhere, so Python searches its folder first, not the current one.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "run.py").write_text("from rxdispatch.cli.main import main\nmain()\n")
    tmp_path.chmod(0o755)
    return tmp_path


def worker(folder: Path, module: str, *arguments: str, flags: tuple[str, ...] = ()) -> list[str]:
    """Run a worker with a handler that cannot be called; return what it printed."""
    done = subprocess.run(
        [
            *(sys.executable, *flags, "bin/run.py", "worker", f"{module}:handler"),
            *("--board", "b", "--url", "redis://127.0.0.1:1", *arguments),
        ],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return done.stdout.splitlines()


def test_the_current_directory_is_looked_at(folder: Path) -> None:
    """The current directory is searched even if it is not named."""
    assert "mine of the folder" == worker(folder, "mine")[0]


def test_it_comes_last(folder: Path) -> None:
    """A file in the current directory does not replace an installed module."""
    assert ["Error: handler must be in module wave, got 'handler'"] == worker(folder, "wave")


@pytest.mark.parametrize(("name", "whose"), [(".", "of the folder"), ("apps", "of apps")])
def test_a_folder_that_is_named_comes_first(folder: Path, name: str, whose: str) -> None:
    """The folder is searched before installed modules, as the user has named it."""
    assert f"wave {whose}" == worker(folder, "wave", "--app-dir", name)[0]


def test_a_safe_path_is_heeded(folder: Path) -> None:
    """With ``-P``, the current directory is searched only if it is named."""
    assert worker(folder, "mine", flags=("-P",))[0].startswith(
        "Error: module mine must import (ModuleNotFoundError: "
    )
    assert "mine of the folder" == worker(folder, "mine", "--app-dir", ".", flags=("-P",))[0]


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_folder_that_others_can_write(folder: Path, mode: int) -> None:
    """A warning is printed, because code in the folder runs as this user."""
    folder.chmod(mode)
    assert (
        f"Warning: other users can write {folder}, and modules are imported from it."
        == worker(folder, "mine")[0]
    )


def test_a_folder_that_is_none(folder: Path) -> None:
    """The path is refused before anything is imported."""
    for name in ("mine.py", "nowhere"):
        rule = f"Error: --app-dir must be a folder, got '{name}'"
        assert [rule] == worker(folder, "mine", "--app-dir", name)
