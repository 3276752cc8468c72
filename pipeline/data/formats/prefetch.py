"""Work done by threads before its result is asked for, and handed out in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def threads() -> int:
    """Return this process's share of the machine's cores, of which `torchrun` starts several."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def prefetch(work: Callable[[T], R], items: Iterable[T], depth: int | None = None) -> Iterator[R]:
    """Yield work(item) of each item in order, with up to ``depth`` of them begun in advance.

    Without a ``depth`` as many as there are threads, so that few results are in memory. Items are
    drawn by the caller's thread, in order. An exception comes where its result would.
    """
    waiting: deque[Future[R]] = deque()
    workers = threads()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > (depth or workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
