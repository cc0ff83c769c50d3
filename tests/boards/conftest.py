"""One suite, four places: tests that request ``place`` run in each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

import pytest

from tests.boards.places import Place, memory_place, server_place, shared_place


@pytest.fixture(scope="session")
def valkey_place() -> Generator[Place]:
    with server_place("valkey") as place:
        yield place


@pytest.fixture(scope="session")
def redis_place() -> Generator[Place]:
    with server_place("redis") as place:
        yield place


@pytest.fixture(params=["memory", "shm", "valkey", "redis"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "memory":
        return memory_place()
    if request.param == "shm":
        return shared_place()
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture(autouse=True)
def loop_factory(
    request: pytest.FixtureRequest,
) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop of a test; see ``tests/conftest.py``."""
    if "place" not in request.fixturenames:
        return None
    found: Place = request.getfixturevalue("place")
    return found.loop_factory
