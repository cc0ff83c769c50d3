"""
Random schedules of several workers at a board on a server, with all that can go wrong.

The workers follow the rules of waiting and confirming, and each of their requests can stop before
the server executes it and before the reply arrives. After every step, the keys of the board must
keep what the protocol promises.

Run as ``python -m tests.boards.schedules 10000 [first seed] [valkey or redis]``.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final, Literal

import attrs
from redis.exceptions import ResponseError

from rxdispatch.claim import Claim
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.task import Task
from tests.boards.places import Bench, Place, server_place
from tests.boards.waiting import Waiter, caught_up
from tests.servers import Kind

__all__ = ["Schedule", "run_schedules"]

STATES: Final = ("ready", "suspects", "sched", "claimed", "dead")
KINDS: Final = ("default", "x", "y")
LEASE: Final = 10.0
SLACK: Final = 1_000_000
"""Microseconds by which a slow machine may be later than a schedule means."""

_LOOK: Final = """
local call, out = redis.call, {}
for i = 1, 7 do out[i] = call('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES') end
for i = 8, 9 do out[i] = call('ZRANGE', KEYS[i], 0, -1) end
for i = 10, 13 do out[i] = call('HGETALL', KEYS[i]) end
local time = call('TIME')
out[14] = string.format('%.0f', time[1] * 1000000 + time[2])
return out
"""


# -- what is stored --------------------------------------------------------------------------


@attrs.frozen
class Mark:
    """A claimed task: its token, and what is stored of its range."""

    token: int
    worker: str
    handed: bool
    lapses: float


class Look:
    """The keys of a board at one moment."""

    def __init__(self, reply: list[Any]) -> None:
        def pairs(flat: list[bytes]) -> dict[bytes, bytes]:
            return dict(zip(flat[::2], flat[1::2], strict=True))

        self.marks: dict[str, set[str]] = {
            name: {member.decode() for member in flat[::2]}
            for name, flat in zip(STATES, reply, strict=False)
        }
        claimed = {member.decode(): int(float(at)) for member, at in pairs(reply[3]).items()}
        leases = {int(float(first)): float(at) for first, at in pairs(reply[5]).items()}
        self.aside = {m[2 + int.from_bytes(m[:2], "big") + 11 :].decode() for m in reply[7]}
        self.parked = {m[18:]: 65535 - int.from_bytes(m[8:10], "big") for m in reply[8]}
        self.kinds = {task_id.decode(): _kind_of(r) for task_id, r in pairs(reply[9]).items()}
        tries = {task_id.decode(): past for task_id, past in pairs(reply[10]).items()}
        self.crashes = {i: int.from_bytes(past[4:8], "big") for i, past in tries.items()}
        self.lapsed = {task_id for task_id, past in tries.items() if past[8] >= 2}
        self.inboxes = {
            name: int.from_bytes(stored[8:10], "big") for name, stored in pairs(reply[11]).items()
        }
        meta = pairs(reply[12])
        self.next = float(meta.get(b"next") or "inf")
        self.now = float(reply[13]) + float(meta.get(b"skew") or 0)
        ranges: list[tuple[int, int, bool, str]] = []
        for member in reply[6][::2]:
            first, count, handed, size, _ = struct.unpack_from(">dHBHB", member)
            ranges.append((int(first), count, bool(handed), member[14 : 14 + size].decode()))
        self.claimed: dict[str, Mark] = {}
        for task_id, token in claimed.items():
            (found,) = [one for one in ranges if one[0] <= token < one[0] + one[1]]
            self.claimed[task_id] = Mark(token, found[3], found[2], leases[found[0]])
        assert {one[0] for one in ranges} == set(leases)
        assert all(any(f <= t < f + n for t in claimed.values()) for f, n, *_ in ranges)
        assert len(set(claimed.values())) == len(claimed)
        assert all(self.next <= at for at in leases.values())

    @classmethod
    async def at(cls, bench: Bench) -> Look:
        """Look at a board now."""
        keys = [*STATES, "leases", "ranges", "aside", "parked", "tasks", "tries", "inboxes", "meta"]
        names = map(bench.key, keys)
        return cls(await bench.hub.client.call("look", "EVAL", _LOOK, 13, *names))

    def check(self, prefetch: dict[str, int]) -> None:
        """Check what holds at any moment; *prefetch* is by the names of workers."""
        states = [*self.marks.values(), self.aside]
        count = Counter(task_id for state in states for task_id in state)
        assert dict.fromkeys(self.kinds, 1) == count, "each task is in one place"
        assert self.parked == {i: room for i, room in self.inboxes.items() if room}, "inboxes"
        holds = Counter(mark.worker for mark in self.claimed.values())
        for worker, most in prefetch.items():
            assert holds[worker] <= most, f"{worker} holds {holds[worker]} of {most}"


def _kind_of(record: bytes) -> str:
    return record[2 : 2 + record[1]].decode() if record[0] <= 3 else "default"


# -- workers ---------------------------------------------------------------------------------

Where = Literal["none", "sent", "executed"]


class Worker(Waiter):
    """
    A worker of a schedule, which claims, confirms, starts and settles one step at a time.

    Its claim is first *sent*, then *executed*, and then there is none, or it waits to be repeated.
    """

    def __init__(self, bench: Bench, number: int, prefetch: int, kinds: list[str] | None) -> None:
        hub = (bench.hub, bench.other_hub)[number % 2]
        super().__init__(hub.board(bench.name), kinds, f"w{number}", LEASE)
        self.holding = True
        self.prefetch = prefetch
        self.waiting: dict[int, Claim[Any]] = {}
        self.started: dict[int, Claim[Any]] = {}
        self.where: Where = "none"
        self.late: list[Callable[[], Awaitable[Any]]] = []
        self.wants_claim = True
        self._claiming: asyncio.Task[None] | None = None
        self._gate: asyncio.Future[str] | None = None
        self._stopped = asyncio.Event()
        self._plain: Any = self.engine._calls.once
        calls: Any = self.engine._calls
        calls.once = self._once

    async def _once(self, operation: str, script: Any, args: Any, request: Any) -> Any:
        if operation != "claim":
            return await self._plain(operation, script, args, request)

        async def execute() -> Any:
            return await self._plain(operation, script, args, request)

        self.where = "sent"
        if await self._stop() == "lose":
            self.late.append(execute)
            raise StoreUnavailableError(operation, maybe_executed=True)
        reply = await execute()
        self.where = "executed"
        if await self._stop() == "lose":
            raise StoreUnavailableError(operation, maybe_executed=True)
        return reply

    async def _stop(self) -> str:
        self._gate = asyncio.get_running_loop().create_future()
        self._stopped.set()
        return await self._gate

    def woken(self) -> None:
        """Claim soon."""
        self.wants_claim = True

    def _take(self, found: Any, ids: list[str]) -> None:
        ids += (task.id for task in found)
        for claim in self.board._reader.read(list(found), self.worker, float("inf")):
            assert claim.token not in self.waiting, "a task is read twice"
            assert claim.token not in self.started, "a task is read twice"
            self.waiting[claim.token] = claim

    @property
    def holds(self) -> int:
        """How many claims it has."""
        return len(self.waiting) + len(self.started)

    async def begin(self, what: Callable[[], Awaitable[Any]] | None = None) -> None:
        """Send a claim, or what else claims."""
        self.wants_claim = False
        limit, read = max(0, self.prefetch - self.holds), self.inbox.read

        async def claim() -> None:
            reply = await self.inbox.claim(limit, None, limit, read)
            self._take(reply.found, self.claimed)
            self._take(reply.handed, self.handed)

        async def run() -> None:
            try:
                await (what or claim)()
            except StoreUnavailableError:
                self.wants_claim = True
            finally:
                self.where = "none"
                self._stopped.set()

        self._stopped.clear()
        self._claiming = asyncio.create_task(run())
        await self._stopped.wait()

    async def go_on(self, how: Literal["go", "lose"] = "go") -> None:
        """Let the server execute the claim, or let the reply arrive; or lose one or the other."""
        assert self._gate is not None
        self._stopped.clear()
        self._gate.set_result(how)
        await self._stopped.wait()
        if self.where == "none":
            assert self._claiming is not None
            await self._claiming

    async def finish(self) -> None:
        """Let the claim end."""
        while self.where != "none":
            await self.go_on()

    async def start(self, token: int, *, quick: bool) -> bool:
        """Confirm a task and start it; not *quick*, only if the answer is that it holds."""
        claim = self.waiting.pop(token)
        if (
            not quick
            and not (await self.inbox.confirm([(claim.task.id, token)], LEASE, _nothing))[0]
        ):
            return False
        self.started[token] = claim
        return True

    async def end(self, token: int, how: str) -> bool:
        """Settle a task that was started."""
        claim = self.started.pop(token)
        if how == "release":
            settlement = claim.release()
        else:
            settlement = claim.retry("no", 0.0) if how == "retry" else claim.done()
        return (await self.board.settle([settlement]))[0]

    async def give_back(self) -> None:
        """Release what was not started."""
        waiting, self.waiting = self.waiting, {}
        await self.board.settle([claim.release() for claim in waiting.values()])

    async def go(self) -> None:
        """Leave, and give back what was not started."""
        self._listening.dispose()
        self._subscription.dispose()
        self.letters.clear()
        await self.begin(self.inbox.leave)
        await self.finish()
        await self.give_back()

    def die(self) -> None:
        """Stop everything; a claim may be executed later, and nobody reads the reply."""
        self._listening.dispose()
        self._subscription.dispose()
        self.letters.clear()
        self.waiting.clear()
        self.started.clear()


def _nothing() -> None:
    pass


# -- schedules -------------------------------------------------------------------------------


class Schedule:
    """
    One random schedule.

    Args:
        bench: The board.
        seed: Chooses everything.
    """

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.random = Random(seed)
        #: Whether messages, replies and workers may be lost, and time passes.
        self.faults = seed % 3 > 0
        self.workers: list[Worker] = []
        self.gone: dict[str, int] = {}
        self.numbers = itertools.count()
        self.ids = itertools.count()
        self.submitted: set[str] = set()
        self.done: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.steps: list[str] = []
        self.paused: list[str | None] = []
        self.confirmed: set[int] = set()
        self.settled: set[int] = set()
        self.taken_back = False
        self.before: Look | None = None
        self.onlooker: Any = bench.board(max_crashes=50)

    async def join(self) -> None:
        """A worker comes."""
        kinds = self.random.choice((None, None, ["x"], ["default", "x"], ["y", "x"]))
        worker = Worker(self.bench, next(self.numbers), self.random.choice((1, 2, 3, 5)), kinds)
        self.workers.append(worker)
        await worker.engine._channels.confirmed(worker.channel)

    async def run(self) -> None:
        """Run all steps, and then until everything is done."""
        await self.onlooker.resume()
        for _ in range(self.random.choice((1, 2, 2, 3, 4))):
            await self.join()
        for _ in range(self.random.choice((15, 30, 60))):
            await self.step()
        await self.end()

    async def step(self) -> None:
        """Run one step, and check."""
        self.settled.clear()
        self.taken_back = False
        steps = self.possible()
        name, step = self.random.choices([s[1:] for s in steps], [s[0] for s in steps])[0]
        self.steps.append(name)
        await step()
        await self.check()

    async def check(self) -> None:
        """Look at the keys, and compare them with those before the step."""
        await caught_up(self.bench)
        look = await Look.at(self.bench)
        prefetch = {w.worker: w.prefetch for w in self.workers} | self.gone
        look.check(prefetch)
        holds = Counter(mark.worker for mark in look.claimed.values())
        for worker in self.workers:
            room = look.parked.get(worker.name, 0)
            assert room + holds[worker.worker] <= worker.prefetch, f"{worker} has room for more"
        before, self.before = self.before, look
        if before is None:
            return
        for task_id, mark in before.claimed.items():
            now = look.claimed.get(task_id)
            if now is not None and now.token == mark.token:
                assert now.handed == mark.handed or mark.token in self.confirmed, "handed"
                continue
            if mark.handed and task_id in look.kinds:
                more = look.crashes.get(task_id, 0) - before.crashes.get(task_id, 0)
                assert more <= 0, "a crash of a task that never started"
            over = mark.lapses <= look.now + SLACK
            known = [w for w in self.workers if mark.token in {*w.waiting, *w.started}]
            assert over or not known or task_id in self.cancelled, "a live claim was taken away"
            assert len(known) <= 1

    # -- what can happen ---------------------------------------------------------------------

    def possible(self) -> list[tuple[int, str, Callable[[], Awaitable[None]]]]:
        """Return what can happen now: weight, name, and the step."""
        found: list[tuple[int, str, Callable[[], Awaitable[None]]]] = [
            (8, "submit", self.submit),
            (1, "submit many", self.submit_many),
            (1, "cancel", self.cancel),
            (1, "pause", self.pause),
        ]
        if self.paused:
            found.append((3, "resume", self.resume))
        if len(self.workers) < 4:
            found.append((2, "join", self.join))
        if self.faults:
            found.append((3, "wait", self.wait))
            found.append((1, "sweep", self.sweep))
        for worker in self.workers:
            found += self.possible_of(worker)
        return found

    def possible_of(self, worker: Worker) -> list[tuple[int, str, Callable[[], Awaitable[None]]]]:
        """Return what can happen to one worker."""
        found: list[tuple[int, str, Callable[[], Awaitable[None]]]] = []

        def add(weight: int, name: str, step: Callable[[Worker], Awaitable[None]]) -> None:
            found.append((weight, f"{name} {worker.worker}", lambda: step(worker)))

        if worker.where == "none":
            add(12 if worker.wants_claim else 1, "claim", Worker.begin)
            add(1, "leave", self.leave)
        else:
            add(8, f"{worker.where} goes on", Worker.go_on)
        if worker.letters:
            add(10, "read", self.read)
        if worker.waiting:
            add(6, "start", self.start)
        if worker.started:
            add(6, "end", self.end_one)
        if self.faults:
            if worker.where != "none":
                add(2, f"lose {worker.where}", lambda w: w.go_on("lose"))
            if worker.late:
                add(4, "late", self.late)
            if worker.letters:
                add(2, "read any", self.read_any)
                add(2, "lose letter", self.lose_letter)
                add(2, "double letter", self.double_letter)
            if worker.where == "none":
                add(1, "die", self.die)
                add(1, "reconnect", self.reconnect)
        return found

    async def submit(self, count: int | None = None) -> None:
        """Submit a few tasks."""
        tasks: list[Task[Any]] = []
        for _ in range(count or self.random.choice((1, 1, 1, 2, 3, 6))):
            task_id = f"{next(self.ids)}"
            self.submitted.add(task_id)
            large = b"-" * 70_000 if self.random.random() < 0.01 else 0
            tasks.append(
                Task(
                    large,
                    id=task_id,
                    kind=self.random.choice(KINDS),
                    priority=self.random.choice((0, 0, 0, 1, -1)),
                    delay=self.random.choice((0, 0, 0, 0, 2)) if self.faults else 0,
                )
            )
        await self.onlooker.submit(tasks)

    async def submit_many(self) -> None:
        """Submit more than one script hands over."""
        await self.submit(self.random.choice((20, 80)))

    async def cancel(self) -> None:
        """Cancel one task."""
        if self.submitted:
            task_id = self.random.choice(sorted(self.submitted, key=int)[-10:])
            if (await self.onlooker.cancel([task_id]))[0]:
                self.cancelled.add(task_id)

    async def pause(self) -> None:
        """Pause the board, or a kind."""
        kind = self.random.choice((None, *KINDS))
        if kind not in self.paused:
            self.paused.append(kind)
            await self.onlooker.pause(kind=kind)

    async def resume(self) -> None:
        """Resume what was paused."""
        kind = self.paused.pop(self.random.randrange(len(self.paused)))
        await self.onlooker.resume(kind=kind)

    async def wait(self) -> None:
        """Let time pass."""
        seconds = self.random.choice((1, 1, 3, 12))
        await self.bench.later(seconds)

    async def sweep(self) -> None:
        """Sweep by a call of another process."""
        await self.onlooker._engine.tick(None)

    async def read(self, worker: Worker) -> None:
        """Read the next message."""
        worker.read(worker.letters.pop(0))

    async def read_any(self, worker: Worker) -> None:
        """Read a message out of order."""
        worker.read(worker.letters.pop(self.random.randrange(len(worker.letters))))

    async def lose_letter(self, worker: Worker) -> None:
        """A message is lost with its connection, and the worker subscribes again."""
        worker.letters.pop(self.random.randrange(len(worker.letters)))
        if self.random.random() < 0.5:
            worker.read(None)

    async def double_letter(self, worker: Worker) -> None:
        """Read a message that will come once more."""
        worker.read(self.random.choice(worker.letters))

    async def reconnect(self, worker: Worker) -> None:
        """All messages on their way are lost."""
        worker.letters.clear()
        worker.read(None)

    async def start(self, worker: Worker) -> None:
        """Start a task."""
        token = self.random.choice(sorted(worker.waiting))
        quick = self.random.random() < 0.3
        if not quick:
            self.confirmed.add(token)
        await worker.start(token, quick=quick)

    async def end_one(self, worker: Worker) -> None:
        """Settle a task."""
        token = self.random.choice(sorted(worker.started))
        task_id = worker.started[token].task.id
        how = self.random.choice(("done", "done", "done", "release", "retry"))
        if await worker.end(token, how) and how == "done":
            self.done[task_id] += 1

    async def late(self, worker: Worker) -> None:
        """A request that was given up arrives; the server must not claim for it."""
        execute = worker.late.pop()
        try:
            await execute()
        except ResponseError as error:
            # Its slot was used again.
            if "LATE" not in str(error):
                raise

    async def leave(self, worker: Worker) -> None:
        """A worker leaves; what it has started goes on, and ends later."""
        await worker.go()
        for token in list(worker.started):
            task_id = worker.started[token].task.id
            if await worker.end(token, "done"):
                self.done[task_id] += 1
        self.workers.remove(worker)
        self.gone[worker.worker] = 0 if not worker.late else worker.prefetch

    async def die(self, worker: Worker) -> None:
        """A worker is killed."""
        worker.die()
        self.workers.remove(worker)
        self.gone[worker.worker] = worker.prefetch

    # -- the end -----------------------------------------------------------------------------

    async def quiet(self) -> None:
        """Let everything arrive, and all claim that are told to."""
        for _ in range(400):
            await caught_up(self.bench)
            busy = False
            for worker in self.workers:
                if worker.where != "none":
                    await worker.finish()
                    busy = True
                while worker.letters:
                    worker.read(worker.letters.pop(0))
                    busy = True
                if worker.wants_claim:
                    await worker.begin()
                    await worker.finish()
                    busy = True
            if not busy:
                return
        raise AssertionError("the workers do not become quiet")

    async def end(self) -> None:
        """Without faults, nothing waits beside parked workers; then everything is done, once."""
        self.steps.append("end")
        while self.paused:
            await self.resume()
        await self.quiet()
        await self.check()
        look = self.before
        assert look is not None
        if not self.faults:
            for worker in self.workers:
                if worker.name in look.parked:
                    beside = {look.kinds[i] for i in look.marks["ready"] | look.aside}
                    takes = set(worker.kinds or KINDS)
                    assert not beside & takes, f"ready tasks beside {worker}: {beside & takes}"
        if not self.workers or all(worker.kinds for worker in self.workers):
            number = next(self.numbers)
            self.workers.append(Worker(self.bench, number, 5, None))
            last = self.workers[-1]
            await last.engine._channels.confirmed(last.channel)
        for _ in range(3 * len(self.submitted) + 100):
            for worker in self.workers:
                worker.wants_claim = True
            await self.quiet()
            for worker in self.workers:
                for token in list(worker.waiting):
                    self.confirmed.add(token)
                    await worker.start(token, quick=False)
                for token in list(worker.started):
                    await self.end_done(worker, token)
            await self.check()
            assert self.before is not None
            if not self.before.kinds.keys() - self.before.marks["dead"]:
                break
            if self.faults:
                await self.bench.later(3)
        assert self.before is not None
        assert not self.before.kinds.keys() - self.before.marks["dead"], "tasks are left"
        assert self.cancelled == self.before.marks["dead"], "tasks have died"
        assert dict.fromkeys(self.submitted - self.cancelled, 1) == self.done
        for worker in self.workers:
            await worker.go()
        # The inboxes of workers that were killed may still be parked.
        assert not {worker.name for worker in self.workers} & set(
            (await Look.at(self.bench)).parked
        )

    async def end_done(self, worker: Worker, token: int) -> None:
        task_id = worker.started[token].task.id
        if await worker.end(token, "done"):
            self.done[task_id] += 1


async def run_schedules(bench: Bench, seeds: range) -> None:
    """Run a schedule for each seed, each on a board of its own."""
    for seed in seeds:
        own = attrs.evolve(bench, name=f"{bench.name}-{seed}")
        schedule = Schedule(own, seed)
        try:
            async with asyncio.timeout(60):
                await schedule.run()
        except BaseException as error:
            error.add_note(f"seed {seed}: {', '.join(schedule.steps)}")
            raise


def main(count: int, first: int = 0, kind: Kind = "valkey") -> None:
    """Run *count* schedules on a server of their own."""

    async def some(place: Place, seeds: range) -> None:
        async with place.bench() as bench:
            await run_schedules(bench, seeds)
            await bench.hub.client.call("clean", "FLUSHALL")

    with server_place(kind) as place:
        for start in range(first, first + count, 100):
            seeds = range(start, min(start + 100, first + count))
            asyncio.run(some(place, seeds))
            sys.stdout.write(f"{seeds.stop - first} of {count}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    arguments: list[Any] = [*map(int, sys.argv[1:3]), *sys.argv[3:4]]
    main(*arguments)
