"""Many clients at once, in one process: as threads where the library's client blocks, as tasks where it is asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable

WARM_UP = 5


def by_threads(submitters: list[Callable[[], object]], each: int, limit_s: float) -> tuple[list[float], float]:
    """Seconds of every submit, and of all."""
    times: list[float] = []
    problems: list[BaseException] = []
    gate = threading.Barrier(len(submitters) + 1)

    def run(submit: Callable[[], object]) -> None:
        taken = []
        try:
            for _ in range(WARM_UP):
                submit()
            gate.wait()
            until = time.perf_counter() + limit_s
            begin = time.perf_counter()
            for _ in range(each):
                submit()
                end = time.perf_counter()
                taken.append(end - begin)
                begin = end
                if end > until:
                    break
        except BaseException as error:
            problems.append(error)
            gate.abort()
        times.extend(taken)

    threads = [threading.Thread(target=run, args=(submit,), daemon=True) for submit in submitters]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        gate.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begin
    if problems:
        raise problems[0]
    return times, elapsed


async def by_tasks(submitters: list[Callable[[], Awaitable[object]]], each: int, limit_s: float) -> tuple[list[float], float]:
    """Seconds of every submit, and of all."""
    for submit in submitters:
        for _ in range(WARM_UP):
            await submit()
    until = time.perf_counter() + limit_s

    async def run(submit: Callable[[], Awaitable[object]]) -> list[float]:
        taken = []
        begin = time.perf_counter()
        for _ in range(each):
            await submit()
            end = time.perf_counter()
            taken.append(end - begin)
            begin = end
            if end > until:
                break
        return taken

    begin = time.perf_counter()
    times = await asyncio.gather(*map(run, submitters))
    elapsed = time.perf_counter() - begin
    return [taken for client in times for taken in client], elapsed
