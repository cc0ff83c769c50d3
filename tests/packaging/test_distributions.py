"""The distributions: wheel, sdist, the wheel made from the sdist, an editable install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = Path("rxdispatch", "operators")

# Neither folder is part of the project, and a stale build/ would hide missing files.
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".nox", "build", "dist", "*.egg-info", "_build", "__pycache__", ".*_cache"
)


def _run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run *command* without this checkout on the module path; return its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def _build(what: str, source: Path, out: Path) -> Path:
    """Build one distribution of *source* without the network."""
    _run(
        *(sys.executable, "-m", "build", "--no-isolation", f"--{what}", "--outdir", out, source),
        cwd=out.parent,
    )
    (built,) = out.iterdir()
    return built


def _expected(source: Path) -> set[str]:
    """Return every file that an installation of *source* must have, by its installed path."""
    expected: set[str] = set()
    for top, name in (("rxdispatch", "rxdispatch"), ("operators", "rxdispatch/operators")):
        for directory, _, files in os.walk(source / top):
            place = Path(name) / Path(directory).relative_to(source / top)
            expected.update(
                (place / file).as_posix()
                for file in files
                if file.endswith((".py", ".lua", ".typed"))
            )
    return expected


def _holds(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module", params=["link kept", "link lost"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the project, once as committed and once as on a system without links."""
    copy = tmp_path_factory.mktemp("source") / "rxdispatch"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=_LEFT_OUT)
    if request.param == "link lost":
        # If git may not make a link, it writes a file that contains the target.
        (copy / LINK).unlink(missing_ok=True)
        (copy / LINK).write_text("../operators", encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    return _build("sdist", source, tmp_path_factory.mktemp("sdist") / "dist")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    directory = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        # This is an attribute, as Python before 3.11.4 does not know the argument.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(directory)
    (top,) = directory.iterdir()
    return top


@pytest.fixture(scope="module", params=["tree", "sdist"])
def wheel(
    request: pytest.FixtureRequest,
    source: Path,
    unpacked: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The wheel, built from the tree and from the unpacked source distribution."""
    origin = source if request.param == "tree" else unpacked
    return _build("wheel", origin, tmp_path_factory.mktemp("wheel") / "dist")


def test_the_sdist_holds_the_operators_once(unpacked: Path) -> None:
    """The sdist has them only in ``operators/``, as the link is not followed."""
    assert (unpacked / "operators" / "__init__.py").is_file()
    assert not (unpacked / LINK / "__init__.py").exists()


def test_the_wheel_holds_every_module_and_its_data(source: Path, wheel: Path) -> None:
    """The wheel has modules, ``py.typed`` and Lua scripts, and no top-level ``operators``."""
    assert _expected(source) == _holds(wheel)


def test_the_wheel_has_the_command_and_the_licence(wheel: Path) -> None:
    """The wheel has the entry point and the licence."""
    with zipfile.ZipFile(wheel) as archive:
        text = {Path(n).name: archive.read(n) for n in archive.namelist() if ".dist-info/" in n}

    assert b"rxdispatch = rxdispatch.cli.main:main" in text["entry_points.txt"]
    assert b"License-Expression: MIT" in text["METADATA"]
    assert "LICENSE" in text


def test_the_installed_wheel_imports_its_operators(wheel: Path, tmp_path: Path) -> None:
    """The operators are imported from the installation, under the name of the package."""
    target = tmp_path / "target"
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
        *("--target", target, wheel),
        cwd=tmp_path,
    )

    code = "import rxdispatch.operators.flow, rxdispatch.operators as o; print(o.__file__)"
    printed = _run(sys.executable, "-c", code, cwd=tmp_path, path=target)

    assert str(target / LINK / "__init__.py") == printed.strip()


def test_an_editable_install_imports_its_operators(source: Path, tmp_path: Path) -> None:
    """The link is not needed, and edits under ``operators/`` take effect."""
    # This environment borrows the packages of the current one, so that nothing is downloaded.
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = _run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path)
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    Path(site.strip(), "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    _run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
        *("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"),
        *("--editable", source),
        cwd=tmp_path,
    )

    code = "import rxdispatch.operators.flow, rxdispatch.operators as o; print(o.__file__)"
    printed = _run(python, "-c", code, cwd=tmp_path).strip()

    assert Path(printed).samefile(source / "operators" / "__init__.py")
