"""The nox sessions: each check in an environment of its own. ``nox -s tests-3.12`` runs one."""

from __future__ import annotations

import nox

nox.needs_version = ">= 2024.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
# If only one Python is installed, the sessions for that Python still run.
nox.options.error_on_missing_interpreters = False


LOCK = "requirements-dev.txt"


def install(session: nox.Session) -> None:
    """Install the locked packages, and the project."""
    session.install("--require-hashes", "-r", LOCK)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    install(session)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that setup.cfg allows, and the locked tools."""
    install(session)
    found = session.run(
        *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
        *("--resolution", "lowest-direct", "--python", "python", "setup.cfg"),
        *(f"--extra={extra}" for extra in ("cli", "embedded", "http", "metrics", "shm", "tracing")),
        silent=True,
    )
    lowest = str(found).split()
    # The tests use the SDK of OpenTelemetry, which works with one version of the API only.
    sdk = [pin.replace("-api==", "-sdk==") for pin in lowest if pin.startswith("opentelemetry-api")]
    session.install(*lowest, *sdk)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def newest(session: nox.Session) -> None:
    """Run the tests with the newest version of every dependency and tool."""
    session.install("--upgrade", "--editable", ".[dev,bench]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and layers."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and with pyright, which find different mistakes."""
    install(session)
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    install(session)
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "docs", "docs/_build/html")
