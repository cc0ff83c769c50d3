"""What holds in every state."""

from __future__ import annotations

from tests.boards.hand_over.rules import Scenario
from tests.boards.hand_over.world import World

__all__ = ["is_idle_beside_work", "is_over", "violation"]


def violation(scenario: Scenario, world: World) -> str:
    """Return what is wrong with a state, or nothing."""
    for at in range(len(world.workers)):
        wrong = _of_worker(scenario, world, at)
        if wrong:
            return wrong
    # No lease can stop a handler whose worker is frozen.
    running = [
        hold.task
        for worker in world.workers
        if worker.life not in ("frozen", "dead")
        for hold in worker.holds
        if hold.stage == "running"
    ]
    if len(running) > len(set(running)):
        return "a task runs twice"
    if any((task.state == "claimed") != (task.number > 0 <= task.holder) for task in world.tasks):
        return "a task is in no range"
    if world.kills > scenario.max_crashes + 1:
        return "a task killed one worker too many"
    return world.wrong


def _of_worker(scenario: Scenario, world: World, at: int) -> str:
    worker, mine = world.workers[at], world.held_by(at)
    if worker.life == "dead":
        return ""
    # What is old may have lapsed, and does not start before its renewal is answered.
    sure = [hold.task for hold in worker.holds if not hold.old and hold.stage != "doubtful"]
    if max(len(mine), len(sure)) > scenario.places:
        return "a worker holds more than its places"
    if len(sure) > len(set(sure)):
        return "a worker holds a task twice"
    held = {(hold.task, hold.number) for hold in worker.holds}
    unknown = [task for i in mine if (i, (task := world.tasks[i]).number) not in held]
    if worker.life == "left" and (worker.room or unknown):
        return "something is handed to a worker that has left"
    if any(task.lease != "asked" and task.number <= worker.read for task in unknown):
        return "a worker says that it has read what it has not"
    return ""


def is_over(world: World) -> bool:
    """Say whether all tasks have ended, or no worker is left for them."""
    return all(task.state == "ended" for task in world.tasks) or not any(
        worker.life in ("live", "frozen") for worker in world.workers
    )


def is_idle_beside_work(world: World) -> bool:
    """Say whether a task is ready while a live worker is parked."""
    return bool(world.ready()) and any(
        worker.life == "live" and worker.listens and worker.room for worker in world.workers
    )
