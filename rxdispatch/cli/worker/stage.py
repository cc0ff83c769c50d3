"""``work_stage``: runs a stage of a pipeline until a signal."""

from __future__ import annotations

import asyncio
from typing import Any

from reactivex import operators as rx

from rxdispatch.cli.worker.run import OutcomeCounts
from rxdispatch.hub import Hub
from rxdispatch.pipelines.stages.pipeline import Pipeline
from rxdispatch.streams import run

__all__ = ["work_stage"]


async def work_stage(
    hub: Hub,
    pipeline: Pipeline,
    stage: str,
    lease: float,
    stop: asyncio.Event,
    settled: OutcomeCounts,
) -> None:
    """
    Run *stage*, and the stages after it up to the next board, until *stop* is set.

    Running tasks then end within the grace of *hub*, which this function opens and closes.
    """
    stopping = asyncio.ensure_future(stop.wait())
    tasks: set[asyncio.Future[Any]] = {stopping}
    try:
        async with hub:
            stream = pipeline.worker(stage, hub.board, lease=lease)
            working = asyncio.ensure_future(run(stream.pipe(rx.do_action(settled.count))))
            tasks.add(working)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if not working.cancelled():
        working.result()
