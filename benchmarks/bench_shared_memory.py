"""
A board in shared memory beside ``multiprocessing.Queue`` and ``Lock``, several processes each.

Run ``python -m benchmarks.bench_shared_memory [tasks] [processes]``. Prints tasks a second of all
processes together, from the first claim to the last, and how often one was claimed twice.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from typing import Any

import msgspec

from rxdispatch import SharedMemoryBoard, Task
from rxdispatch.boards.shm import layout as lay

PAYLOAD = "twenty bytes of text"
CONTEXT = multiprocessing.get_context("fork")


def public(name: str, index: int, start: Any, out: Any) -> None:
    """Claim and settle by the public methods until nothing is left."""
    board = SharedMemoryBoard[Any].attach(name)

    async def work() -> tuple[float, float, bytes]:
        tokens = bytearray()
        start.wait()
        begun = time.monotonic()
        while claims := await board.claim(256):
            await board.settle([claim.done() for claim in claims])
            for claim in claims:
                tokens += int(claim.task.payload[20:]).to_bytes(4, "little")
        return begun, time.monotonic(), bytes(tokens)

    out.put((index, *asyncio.run(work())))
    board.close()


def queue(source: Any, index: int, start: Any, out: Any) -> None:
    """Take encoded payloads from a queue and decode them."""
    decode = msgspec.msgpack.Decoder().decode
    start.wait()
    begun, seen = time.monotonic(), bytearray()
    while (item := source.get()) is not None:
        seen += int(decode(item)[0][20:]).to_bytes(4, "little")
    out.put((index, begun, time.monotonic(), bytes(seen)))


def marks(name: str, index: int, start: Any, out: Any) -> None:
    """Change marks alone: take a run of 256 by one addition, then each of its marks."""
    board = SharedMemoryBoard[Any].attach(name)
    memory = board._shared.memory
    cas, base = memory.cas, memory.layout.marks
    start.wait()
    begun, won, count = time.monotonic(), 0, memory.layout.capacity
    while (first := memory.add(lay.RING_HEAD, 256)) < count:
        for at in range(base + first * 8, base + min(first + 256, count) * 8, 8):
            if cas(at, 0, 1) == 0:
                won += 1
    out.put((index, begun, time.monotonic(), won.to_bytes(4, "little")))
    board.close()


def lock(shared: Any, index: int, start: Any, out: Any) -> None:
    """Take the same number of items under a lock."""
    mutex, left = shared
    start.wait()
    begun, won = time.monotonic(), 0
    while True:
        with mutex:
            if left.value == 0:
                break
            left.value -= 1
        won += 1
    out.put((index, begun, time.monotonic(), won.to_bytes(4, "little")))


def measure(target: Any, source: Any, processes: int, before: Any = None) -> tuple[float, bytes]:
    """Return the seconds it took, and what was taken."""
    start, out = CONTEXT.Event(), CONTEXT.Queue()
    workers = [
        CONTEXT.Process(target=target, args=(source, i, start, out)) for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    time.sleep(0.3)
    start.set()
    if before is not None:
        before()
    results = [out.get() for _ in workers]
    for worker in workers:
        worker.join()
    seconds = max(r[2] for r in results) - min(r[1] for r in results)
    return seconds, b"".join(r[3] for r in results)


def main() -> None:
    """Print the figures."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    name = f"bench-{os.getpid()}"
    with SharedMemoryBoard[Any].create(name, capacity=tasks) as board:
        begun = time.monotonic()
        asyncio.run(board.submit(Task(f"{PAYLOAD}{n:08d}") for n in range(tasks)))
        print(f"submit, one process       {tasks / (time.monotonic() - begun):12,.0f}/s")
        print(f"bytes of file a task      {board._shared.memory.layout.size / tasks:12,.0f}")
        seconds, taken = measure(public, name, processes)
        ours = tasks / seconds
        numbers = {taken[i : i + 4] for i in range(0, len(taken), 4)}
        print(
            f"public claim + settle     {ours:12,.0f}/s, {len(taken) // 4 - len(numbers)} twice,"
            f" {tasks - len(numbers)} missing"
        )

        async def single() -> float:
            await board.submit(Task(n) for n in range(5000))
            engine: Any = board._shared
            begun = time.perf_counter()
            for _ in range(5000):
                await engine.claim(1, None, "w", 30.0)
            return (time.perf_counter() - begun) / 5000

        print(f"claim of one, engine      {asyncio.run(single()) * 1e6:12.1f} us")
        board.unlink()
    source = CONTEXT.Queue()
    encode = msgspec.msgpack.Encoder().encode

    def fill() -> None:
        for n in range(tasks):
            source.put(encode((f"{PAYLOAD}{n:08d}", n)))
        for _ in range(processes):
            source.put(None)

    seconds, _ = measure(queue, source, processes, fill)
    theirs = tasks / seconds
    print(f"multiprocessing.Queue     {theirs:12,.0f}/s, ours is {ours / theirs:.1f} x")
    with SharedMemoryBoard[Any].create(name, capacity=tasks) as board:
        seconds, won = measure(marks, name, processes)
        total = sum(int.from_bytes(won[i : i + 4], "little") for i in range(0, len(won), 4))
        assert total == tasks
        alone = tasks / seconds
        board.unlink()
    print(f"marks alone               {alone:12,.0f}/s, {alone / theirs:.1f} x the queue")
    seconds, _ = measure(lock, (CONTEXT.Lock(), CONTEXT.RawValue("q", tasks)), processes)
    locked = tasks / seconds
    print(f"multiprocessing.Lock      {locked:12,.0f}/s, marks {alone / locked:.1f} x")


if __name__ == "__main__":
    main()
