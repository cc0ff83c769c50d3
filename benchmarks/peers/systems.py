"""The task systems that are measured, and the settings of each."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import attrs

__all__ = ["ROOT", "SYSTEMS", "System"]

ROOT: Final = Path(__file__).parents[2]
NODE: Final = Path(__file__).with_name("node")

Kind = Literal["ours", "asyncio", "threads", "node"]


@attrs.frozen(kw_only=True)
class System:
    """
    A task system with its settings.

    Attributes:
        name: Its name for ``--only``, and the name of its driver unless *driver* is given.
        title: The case of its rows.
        kind: How its worker runs tasks concurrently.
        left: Commands whose answers add up to the tasks that wait or run.
        settings: The settings besides the concurrency, in words.
        driver: The module of ``drivers`` that runs it, without ``_driver``, if it is not *name*.
        env: More environment variables for its driver.
        unix: Whether it connects over the unix socket instead of TCP.
        drains: Whether bulk submit and drain are measured, or only latency.
    """

    name: str
    title: str
    kind: Kind
    left: tuple[str, ...]
    settings: str
    driver: str = ""
    env: Mapping[str, str] = attrs.field(factory=dict[str, str])
    unix: bool = False
    drains: bool = True

    def command(self) -> list[str]:
        """
        Return the command that starts its driver.

        Raises:
            LookupError: If the runtime that it needs is missing.
        """
        if self.kind == "node":
            node = shutil.which("node")
            if node is None:
                raise LookupError("node is not on the PATH")
            if not (NODE / "node_modules").is_dir():
                raise LookupError("npm install was not run in benchmarks/peers/node")
            return [node, str(NODE / "bullmq.mjs")]
        # A system that cannot share its dependencies has an environment inside the peers' own.
        own = Path(sys.prefix) / self.name / "bin" / "python"
        python = str(own) if own.exists() else sys.executable
        return [python, "-m", f"benchmarks.peers.drivers.{self.driver or self.name}_driver"]


_BOARD: Final = tuple(f"ZCARD {{rxd:peers}}:{key}" for key in ("ready", "sched", "leases"))
_OURS: Final = "claims(prefetch=1024) | execute | settle, as in the README"

SYSTEMS: Final = (
    System(
        name="bullmq",
        title="BullMQ",
        kind="node",
        left=("LLEN bull:peers:wait", "LLEN bull:peers:active"),
        settings="addBulk of 1,000, removeOnComplete",
    ),
    System(
        name="arq",
        title="arq",
        kind="asyncio",
        left=("ZCARD arq:queue",),
        settings="poll_delay 10 ms, keep_result 0, no logging of results; redis < 6",
    ),
    System(
        name="saq",
        title="saq",
        kind="asyncio",
        left=("LLEN saq:default:queued", "LLEN saq:default:active"),
        settings="ttl -1: jobs are not kept",
    ),
    System(
        name="taskiq-list",
        title="taskiq-redis, list",
        kind="asyncio",
        left=("LLEN taskiq",),
        settings="ListQueueBroker, no results, max_prefetch as concurrency, parameters unchecked",
        driver="taskiq",
    ),
    System(
        name="taskiq-stream",
        title="taskiq-redis, stream",
        kind="asyncio",
        left=("XPENDING taskiq taskiq",),
        settings="RedisStreamBroker, no results, max_prefetch as concurrency, unchecked",
        driver="taskiq",
        env={"TASKIQ_BROKER": "stream"},
    ),
    System(
        name="streaq",
        title="streaq",
        kind="asyncio",
        left=("XPENDING streaq:default:queues:normal workers",),
        settings="enqueue_many of 1,000, ttl 0: no results, silent",
    ),
    System(
        name="dramatiq",
        title="dramatiq, threads",
        kind="threads",
        left=("HLEN dramatiq:default.msgs",),
        settings="worker_timeout 10 ms, default middleware and prefetch, no results",
    ),
    System(
        name="huey",
        title="huey, threads",
        kind="threads",
        left=("LLEN huey.redis.peers",),
        settings="blocking pop, no results, no periodic tasks",
    ),
    System(
        name="rq",
        title="rq, SimpleWorker: one at a time",
        kind="threads",
        left=("LLEN rq:queue:peers", "ZCARD rq:wip:peers"),
        settings="enqueue_many of 1,000, result_ttl 0, no forks, no logging; concurrency 1",
    ),
    System(
        name="celery",
        title="celery, threads",
        kind="threads",
        left=("LLEN celery", "HLEN unacked"),
        settings="no results, no events, no gossip, mingle, heartbeat or remote control",
    ),
    System(
        name="rxdispatch",
        title="rxdispatch",
        kind="ours",
        left=_BOARD,
        settings=_OURS,
        driver="rxdispatch",
    ),
    System(
        name="rxdispatch-stream",
        title="rxdispatch, submit as a stream",
        kind="ours",
        left=_BOARD,
        settings=f"{_OURS}; Ingress(1024) | submit",
        driver="rxdispatch",
        env={"RXDISPATCH_STREAM": "1"},
        drains=False,
    ),
    System(
        name="rxdispatch-unix",
        title="rxdispatch, unix socket",
        kind="ours",
        left=_BOARD,
        settings=f"{_OURS}; over the unix socket, as its embedded server",
        driver="rxdispatch",
        unix=True,
    ),
)
