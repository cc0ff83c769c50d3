# pyright: basic
# The types of redis-py commands are partial.
"""Measures the costs, on a real server of its own."""

from __future__ import annotations

import asyncio
import itertools
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs

import rxdispatch as rxd
from benchmarks.figures.record import Record
from benchmarks.growth.child import Child
from benchmarks.growth.costs import Costs, Line, fit
from benchmarks.nodes import fleet
from benchmarks.nodes.flood import to_sequencer
from rxdispatch.boards.redis.keys import BoardKeys
from rxdispatch.store.connections.wire import pack

__all__ = ["HERD", "HERDS", "US", "Server", "herd_pause", "measure"]

SIZES: Final = (1, 16, 64, 256, 1000)
CALLS: Final = {1: 150, 16: 50, 64: 20, 256: 8, 1000: 3}
ROUNDS: Final = 3
LISTENERS: Final = (0, 1, 10, 50, 200)
FEEDS: Final = (0, 1, 10, 50)
NODES: Final = 10_000
BEATERS: Final = 1_024
WAITING: Final = 100_000
REPLIES: Final = 20_000
HERDS: Final = (1, 50, 200)
HERD: Final = "one task among idle workers"
US: Final = 1e6

names = (f"growth-{number}" for number in itertools.count())


class Server:
    """What is asked of the server besides its work."""

    def __init__(self, hub: rxd.Hub) -> None:
        self.hub = hub
        self.redis: Any = hub.client.redis

    async def cpu(self) -> float:
        """Return its microseconds of CPU."""
        info = await self.redis.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"]) * US

    async def memory(self) -> int:
        """Return the bytes that it uses."""
        return int((await self.redis.info("memory"))["used_memory"])

    async def scripts(self) -> int:
        """Return how many scripts were called."""
        stats = await self.redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))

    async def commands(self) -> int:
        """Return how many commands came."""
        return int((await self.redis.info("stats"))["total_commands_processed"])

    async def forget(self, board: rxd.Board[Any]) -> None:
        """Take away all that a board holds."""
        await self.redis.delete(*BoardKeys.of("rxd", board.name).keys)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"unix://{self.path}"

    @property
    def path(self) -> str:
        """Return its socket."""
        return str(self.hub.client.target.path)


class Points:
    """Figures of several rounds, by case and size."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, float], list[float]] = {}

    def add(self, case: str, x: float, value: float) -> None:
        """Keep one."""
        self._found.setdefault((case, x), []).append(value)

    def line(self, case: str) -> Line:
        """Return the line through the medians."""
        return Line.through(
            {x: statistics.median(v) for (c, x), v in self._found.items() if c == case}
        )

    def show(self, record: Record, group: str, unit: str = "us") -> None:
        """Keep medians with their spread, beside what the line says."""
        for (case, x), values in self._found.items():
            middle = statistics.median(values)
            record.add(
                case, middle, unit, group=group, x=x,
                low=min(values), high=max(values), line=self.line(case).at(x),
            )  # fmt: skip


async def measure(server: Server, record: Record) -> Costs:
    """Measure everything."""
    found: dict[str, Any] = {}
    found |= await _quiet(server)
    found |= await _calls(server, record)
    found |= await _nothing(server, record)
    found |= await _hints(server, record)
    found |= await _handlers(server, record, found)
    found |= await _idle_workers(server, record, found)
    found |= await _beats(server, record)
    found |= await _applying(server, record)
    found |= await _memory(server, record)
    found |= await _following(server, record, found)
    found |= await _replies(server, record, found.pop("quiet"))
    return Costs(**found)


async def _spent(server: Server, steps: Sequence[Awaitable[Any]]) -> tuple[float, float, list[Any]]:
    """Return the server's and our own CPU of each step, and what they returned."""
    before, own = await server.cpu(), time.process_time()
    results = [await step for step in steps]
    own = (time.process_time() - own) * US
    count = len(steps)
    return (await server.cpu() - before) / count, own / count, results


# -- boards ----------------------------------------------------------------------------------


async def _quiet(server: Server) -> dict[str, Any]:
    """Return the CPU of a second in which nothing is asked, and the way to the server."""
    before = await server.cpu()
    await asyncio.sleep(1)
    quiet = await server.cpu() - before
    calls, least = 50, 1e9
    for _ in range(10):
        cpu, own, start = await server.cpu(), time.process_time(), time.perf_counter()
        for _ in range(calls):
            await server.redis.ping()
        took = time.perf_counter() - start - (time.process_time() - own)
        worked = await server.cpu() - cpu
        least = min(least, (took * US - worked) / calls)
    # Who else is on the machine is none of its doing, so the best of them.
    return {"quiet": quiet, "wire": max(5.0, least / 2)}


async def _calls(server: Server, record: Record) -> dict[str, Any]:
    """Measure the calls of a board by the number of tasks."""
    board = server.hub.board(next(names))
    points, own = Points(), Points()
    for number, size in itertools.product(range(-1, ROUNDS), SIZES):
        calls = CALLS[size] if number >= 0 else 2
        made = [[rxd.Task("x" * 20) for _ in range(size)] for _ in range(calls)]
        steps: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "submit": board.submit,
            "claim": lambda tasks: board.claim(len(tasks)),
            "renew": lambda claims: board.renew(claims, 30.0),
            "settle": lambda claims: board.settle([claim.done() for claim in claims]),
        }
        inputs: list[Any] = made
        for name, step in steps.items():
            cpu, ours, results = await _spent(server, [step(given) for given in inputs])
            inputs = results if name == "claim" else inputs
            if number >= 0:
                points.add(name, size, cpu)
                own.add(name, size, ours)
    counts = await board.counts()
    record.control("every measured task was settled", counts == rxd.Counts(0, 0, 0, counts.done, 0))
    points.show(record, "server CPU a call, by tasks in it")
    own.show(record, "client CPU a call, by tasks in it")
    lines = {name: points.line(name) for name in ("submit", "claim", "settle", "renew")}
    return lines | {f"own_{name}": own.line(name) for name in ("submit", "claim", "settle")}


async def _nothing(server: Server, record: Record) -> dict[str, Any]:
    """Measure claims that find nothing: one by one, and many that have come at once."""
    board = server.hub.board(next(names))
    alone: list[float] = []
    for _ in range(ROUNDS):
        cpu, _, _ = await _spent(server, [board.claim(1) for _ in range(200)])
        alone.append(cpu)
    together = await asyncio.to_thread(_pings, server.path)
    nothing = statistics.median(alone)
    group = "server CPU of calls that find nothing"
    record.add("a claim", nothing, "us", group=group, low=min(alone), high=max(alone))
    one, crowd = together
    record.add("PING, one by one", one, "us", group=group)
    record.add("PING, 200 at once", crowd, "us", group=group, base="PING, one by one")
    return {"nothing": nothing, "wake": max(0.0, one - crowd)}


def _pings(path: str) -> tuple[float, float]:
    """Return the server's CPU of a PING: one by one, and of 200 that come while it is busy."""
    width, rounds = 200, 4
    sockets = []
    for _ in range(width):
        one = socket.socket(socket.AF_UNIX)
        one.connect(path)
        sockets.append(one)
    busy = pack((b"EVAL", b"local x = 0 for i = 1, 2000000 do x = x + i end", 0))
    ping = b"PING\r\n"

    def cpu() -> float:
        sockets[0].sendall(b"INFO cpu\r\n")
        text = sockets[0].recv(65536).decode()
        lines = dict(line.split(":") for line in text.splitlines() if line.startswith("used_cpu"))
        return (float(lines["used_cpu_user"]) + float(lines["used_cpu_sys"])) * US

    def spent(crowd: bool) -> float:
        before = cpu()
        sockets[0].sendall(busy)
        time.sleep(0.002)
        for one in sockets[1:] if crowd else ():
            one.sendall(ping)
        for one in sockets if crowd else sockets[:1]:
            one.recv(64)
        return cpu() - before

    together = statistics.median(spent(True) - spent(False) for _ in range(rounds)) / (width - 1)
    before = cpu()
    for one in sockets:
        one.sendall(ping)
        one.recv(64)
        time.sleep(0.0005)
    alone = (cpu() - before) / width
    for one in sockets:
        one.close()
    return alone, max(1.0, together)


async def _hints(server: Server, record: Record) -> dict[str, Any]:
    """Measure what a wake-up costs by the number of who listens."""
    points = Points()
    with Child("listen", server.path, "hints") as child:
        await child.ready()
        for count in LISTENERS:
            await child.ask(count)
            for number in range(ROUNDS):
                steps = [server.redis.publish("hints", b"r") for _ in range(60 if number else 5)]
                cpu, _, results = await _spent(server, steps)
                assert results[-1] == count
                if number:
                    points.add("PUBLISH", count, cpu)
    points.show(record, "server CPU of a wake-up, by listeners")
    return {"hint": points.line("PUBLISH")}


async def _handlers(server: Server, record: Record, found: dict[str, Any]) -> dict[str, Any]:
    """Measure what a task costs a worker besides its calls, whose cost is known."""
    handlers: dict[str, float] = {}
    claim, settle = found["own_claim"], found["own_settle"]
    group = "client CPU a task"
    cases = {"own_handler": ("no-op", 0.0, 64, 12_000), "own_waiting": ("10 ms", 0.01, 64, 3_000)}
    with Child("work", server.url) as child:
        await child.ready()
        for name, (title, duration, slots, tasks) in cases.items():
            whole: list[float] = []
            rest: list[float] = []
            for number in range(3):
                board = server.hub.board(next(names))
                await board.submit(rxd.Task("x" * 20) for _ in range(tasks))
                start = await child.ask("go", board.name, duration, slots)
                await board.join()
                end = await child.ask("stop")
                own = (end["cpu"] - start["cpu"]) * US
                calls = claim.a * end["claims"] + settle.a * end["settles"]
                if number:
                    whole.append(own / tasks)
                    rest.append(max(1.0, (own - calls) / tasks - claim.b - settle.b))
            handlers[name] = statistics.median(rest)
            for what, each in (("pipeline", whole), ("handler and what is around it", rest)):
                record.add(f"{what}, {title}", statistics.median(each), "us",
                           group=group, low=min(each), high=max(each))  # fmt: skip
    return handlers


async def _idle_workers(server: Server, record: Record, found: dict[str, Any]) -> dict[str, Any]:
    """Measure what workers cost that have nothing to do, and what one task costs then."""
    own_hint = 0.0
    idle: dict[str, float] = {}
    for workers in HERDS:
        name = next(names)
        with Child("idle", server.url, name, workers) as child:
            await child.ready()
            if workers == HERDS[-2]:
                idle = await _idle(server, record, workers, found["quiet"])
            board = server.hub.board(name)
            own_hint = await _herd(
                server, record, child, board, workers, found["quiet"], found["own_claim"]
            )
    return idle | {"own_hint": own_hint}


async def _idle(server: Server, record: Record, workers: int, quiet: float) -> dict[str, float]:
    seconds = 3.0
    before, scripts = await server.cpu(), await server.scripts()
    await asyncio.sleep(seconds)
    worked = (await server.cpu() - before) / seconds
    claims = (await server.scripts() - scripts) / seconds / workers
    each = max(0.0, worked - quiet) / workers
    group = f"{workers} idle workers, each"
    record.add("claims", claims, "1/s", group=group, budget="<= 2 commands a second")
    record.add("server CPU a second", each, "us", group=group)
    return {"idle_claims": claims, "idle_worker": each}


def herd_pause(workers: int) -> float:
    """Return the seconds between single tasks in which so many workers become idle again."""
    return 0.2 + 0.003 * workers


async def _herd(
    server: Server,
    record: Record,
    child: Child,
    board: rxd.Board[str],
    workers: int,
    quiet: float,
    own_claim: Line,
) -> float:
    """Measure what a task costs that finds all workers idle; returns their CPU for a message."""
    tasks, pause = 6, herd_pause(workers)
    channel = BoardKeys.of("rxd", board.name).hints
    while (await server.redis.pubsub_numsub(channel))[0][1] < workers:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await asyncio.sleep(pause)
    own = (await child.ask("cpu"))["cpu"]
    cpu, scripts, start = await server.cpu(), await server.scripts(), time.perf_counter()
    for _ in range(tasks):
        await board.submit(rxd.Task("x" * 20))
        await asyncio.sleep(pause)
    quiet *= time.perf_counter() - start
    cpu, scripts = await server.cpu() - cpu - quiet, await server.scripts() - scripts
    own = ((await child.ask("cpu"))["cpu"] - own) * US
    record.control("a task among idle workers is done", (await board.counts()).done == tasks)
    group = HERD
    # Who has just claimed does not poll for a second, so all the rest are claims for this task.
    claims = max(1.0, scripts / tasks - 2)
    record.add("claims, measured", claims, "", group=group, x=workers)
    record.add("server CPU, measured", cpu / tasks, "us", group=group, x=workers)
    record.add("CPU of the workers, measured", own / tasks, "us", group=group, x=workers)
    # Each hears that there is something, that there is nothing left, and that all is done.
    calls = claims * own_claim.at(0)
    return max(1.0, (own / tasks - calls) / 3 / workers)


# -- fleets ----------------------------------------------------------------------------------


async def _beats(server: Server, record: Record) -> dict[str, Any]:
    """Measure heartbeats by nodes in a call and by feeds that listen."""
    nodes = server.hub.nodes
    await fleet.register(server.hub, BEATERS)
    channel = server.hub._fleet.keys.changes.decode()  # type: ignore[union-attr]
    rows: dict[str, list[tuple[tuple[float, ...], float]]] = {"news": [], "touch": []}
    beat = itertools.count()
    sizes = {1: 60, 64: 6, 256: 3}
    with Child("listen", server.path, channel) as child:
        await child.ready()
        for feeds in FEEDS:
            await child.ask(feeds)
            points = Points()
            for number, (size, calls) in itertools.product(range(3), sizes.items()):
                for name, measured in rows.items():
                    given: list[dict[str, Any]] = []
                    for _ in range(calls):
                        at = next(beat)
                        ids = [(at * size + n) % BEATERS for n in range(size)]
                        given.append(
                            {
                                f"node-{n:06}": fleet.state(n, at) if name == "news" else None
                                for n in ids
                            }
                        )
                    cpu, _, _ = await _spent(server, [nodes.heartbeats(g) for g in given])
                    if number:
                        points.add(f"{feeds} feeds, {name}", size, cpu)
                        measured.append(((1.0, size, feeds, feeds * size), cpu))
            points.show(record, "server CPU of heartbeats, by nodes in a call")
    found: dict[str, Any] = {}
    for name, fitted in rows.items():
        a, b, to, each = fit(fitted)
        found |= {name: Line(a, b), f"to_feed_{name}": Line(to, each)}
    return found


async def _applying(server: Server, record: Record) -> dict[str, Any]:
    """Measure what a feed does with messages, by the nodes in them."""
    hub = server.hub
    with fleet.recorded(hub) as first:
        await fleet.register(hub, BEATERS)
    points = Points()
    beat = itertools.count(1)
    for size, calls in {1: 600, 64: 24, 256: 8}.items():
        recorded: dict[str, list[bytes]] = {}
        with fleet.recorded(hub) as recorded["news"]:
            for n in range(calls):
                at = next(beat)
                await fleet.change(hub, [(n * size + i) % BEATERS for i in range(size)], at)
        with fleet.recorded(hub) as recorded["touch"]:
            for n in range(calls):
                ids = [f"node-{(n * size + i) % BEATERS:06}" for i in range(size)]
                await hub.nodes.heartbeats(dict.fromkeys(ids))
        # In the order in which they came, or it would be gaps that are measured.
        for _ in range(3):
            heard = to_sequencer(first)
            for name, messages in recorded.items():
                own = time.process_time()
                for data in messages:
                    heard(data)
                points.add(name, size, (time.process_time() - own) * US / calls)
        with fleet.recorded(hub) as first:
            await fleet.register(hub, BEATERS)
    points.show(record, "CPU of a feed for a message, by nodes in it")
    return {f"apply_{name}": points.line(name) for name in ("news", "touch")}


async def _following(server: Server, record: Record, found: dict[str, Any]) -> dict[str, Any]:
    """Measure a feed that starts on a large fleet, and then has nothing to do."""
    space = "large"
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=30.0))
    async with AsyncExitStack() as stack:
        child = await stack.enter_context(Child("follow", server.url, space)).ready()
        hub = await stack.enter_async_context(
            rxd.connect(server.url, namespace=space, settings=settings)
        )
        before = await server.memory()
        await fleet.register(hub, NODES)
        node_bytes = (await server.memory() - before) / NODES
        cpu = await server.cpu()
        start = await child.ask("go")
        listed = (await server.cpu() - cpu) / NODES
        record.control("a feed reads the whole fleet", start["nodes"] == NODES)
        beats = 1_500
        own = (await child.ask("cpu"))["cpu"]
        for number in range(0, beats, 30):
            # Many at once, as where there is much to hear: alone each would wake the feed.
            some = range(number, number + 30)
            await asyncio.gather(
                *(hub.nodes.heartbeat(f"node-{n:06}", fleet.state(n, 1)) for n in some)
            )
        await asyncio.sleep(0.2)
        heard = ((await child.ask("cpu"))["cpu"] - own) * US / beats
        scripts, seconds = await server.scripts(), 2.5
        await asyncio.sleep(seconds)
        pulses = (await server.scripts() - scripts) / seconds
    fleet_store: Any = server.hub._fleet
    pulse, _, _ = await _spent(server, [fleet_store.pulse() for _ in range(100)])
    ping, _, _ = await _spent(server, [server.redis.ping() for _ in range(100)])
    idle = pulses * (pulse + ping)
    own = start["cpu"] * US / NODES
    # What it takes to get a message at all, beside what is done with it.
    hear = max(0.0, heard - found["apply_news"].at(1))
    applying = {
        n: attrs.evolve(found[n], a=found[n].a + hear) for n in ("apply_news", "apply_touch")
    }
    group = f"a feed of {NODES:,} nodes"
    record.add("server CPU to list a node", listed, "us", group=group)
    record.add("CPU of the feed for it", own, "us", group=group, seconds=start["seconds"])
    record.add("bytes a node in the feed's process", start["bytes"] / NODES, "B", group=group)
    record.add("bytes a node in the server", node_bytes, "B", group=group)
    record.add("CPU of the feed for a message of one node", heard, "us", group=group, hear=hear)
    record.add("pulses", pulses, "1/s", group=group)
    record.add("server CPU of a pulse", pulse, "us", group=group, ping=ping)
    return applying | {
        "list_server": listed, "list_feed": own, "node_bytes": node_bytes,
        "feed_bytes": start["bytes"] / NODES, "pulse": pulse + ping, "idle_feed": idle,
    }  # fmt: skip


# -- memory ----------------------------------------------------------------------------------


async def _memory(server: Server, record: Record) -> dict[str, Any]:
    """Measure the bytes of tasks that wait, and whether they make a claim dearer."""
    board = server.hub.board(next(names))
    reply = await _reply_bytes(server)
    group = "server CPU to claim 64, by tasks that wait"
    before = await server.memory()
    kept = await server.redis.dbsize()
    depth = 0
    for target in (1_000, 10_000, WAITING):
        while depth < target:
            step = min(10_000, target - depth)
            await board.submit([rxd.Task("x" * 20) for _ in range(step)])
            depth += step
        waiting = await server.memory() - before
        found: list[float] = []
        for _ in range(ROUNDS):
            cpu, _, results = await _spent(server, [board.claim(64) for _ in range(4)])
            found.append(cpu)
            await board.settle([claim.done() for claims in results for claim in claims])
            depth -= sum(map(len, results))
        record.add(
            "claim",
            statistics.median(found),
            "us",
            group=group,
            x=target,
            low=min(found),
            high=max(found),
        )
    grown = await server.redis.dbsize() - kept
    await server.forget(board)
    bytes_each = (waiting - reply * grown) / WAITING
    group = "memory of the server"
    record.add("a waiting task", bytes_each, "B", group=group, budget="<= 240 B")
    record.add("a reply that is kept for a minute", reply, "B", group=group)
    return {"task_bytes": bytes_each, "reply_bytes": reply}


async def _reply_bytes(server: Server) -> float:
    """Return what an empty claim leaves behind for a minute."""
    board = server.hub.board(next(names))
    calls = 2_000
    await board.claim(0)
    before = await server.memory()
    for _ in range(calls):
        await board.claim(0)
    return (await server.memory() - before) / calls


async def _replies(server: Server, record: Record, quiet: float) -> dict[str, Any]:
    """Measure what it costs to let go of kept replies."""
    pipe = server.redis.pipeline(transaction=False)
    for number in range(REPLIES):
        pipe.set(f"{{rxd:board}}:reply:0123456789:{number}", b"x" * 20, px=1_000)
    await pipe.execute()
    stats = await server.redis.info("stats")
    before, start = await server.cpu(), time.perf_counter()
    await asyncio.sleep(2.5)
    spent = await server.cpu() - before - quiet * (time.perf_counter() - start)
    expired = (await server.redis.info("stats"))["expired_keys"] - stats["expired_keys"]
    each = max(0.0, spent) / max(1, expired)
    record.add(
        "to let go of a kept reply", each, "us", group="server CPU of calls that find nothing"
    )
    return {"expire": each}
