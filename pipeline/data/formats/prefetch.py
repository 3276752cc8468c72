"""Prefetching: results computed ahead by threads, yielded in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def threads() -> int:
    """Return the number of cores for each of the processes that `torchrun` started, at least 1."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def prefetch(work: Callable[[T], R], items: Iterable[T], depth: int | None = None) -> Iterator[R]:
    """Yield work(item) of each item in order, with up to ``depth`` of them started ahead.

    The default is the number of threads, so that few results are in memory. Items are taken in the
    caller's thread, in order. An exception is raised in place of its result.
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
