"""Pytest plugin: coverage's context is the running test, and for shared fixtures its file.

A fixture of a module runs in the setup of the first test that uses it, and any test of the file may
see its effect, so the lines of setup and teardown count for the whole file.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest


def _switch(context: str) -> None:
    current = coverage.Coverage.current()
    if current is not None:
        current.switch_context(context)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    _switch(item.nodeid.partition("::")[0])
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    _switch(item.nodeid)
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    _switch(item.nodeid.partition("::")[0])
    yield


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Durations(), "durations of tests")


class Durations:
    """Writes the seconds of each passed test, without fixtures, to the file MUTANTS_DURATIONS."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = round(report.duration, 3)

    def pytest_sessionfinish(self) -> None:
        Path(os.environ["MUTANTS_DURATIONS"]).write_text(json.dumps(self.seconds, indent=0))
