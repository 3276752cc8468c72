"""Threads that work ahead: in order, no further than they should, errors in their place."""

import threading

import pytest

from pipeline.data.formats import prefetch


def test_work_ahead_comes_in_order_and_no_further_ahead_than_there_are_threads(monkeypatch):
    monkeypatch.setattr(prefetch, "threads", lambda: 3)
    begun, lock = [], threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        return item * item

    results = prefetch.prefetch(work, range(50))
    for expected in range(10):
        assert next(results) == expected**2
        assert len(begun) <= expected + 5  # three in threads, one waiting, and the one handed out
    results.close()
    assert len(begun) <= 14


def test_an_error_comes_where_its_result_would():
    def work(item: int) -> float:
        return 1 / (2 - item)

    results = prefetch.prefetch(work, range(9))
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
