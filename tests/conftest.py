"""Settings of all tests: one thread, examples that repeat in CI, and who runs what under xdist."""

import os
from pathlib import Path

from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Before torch is imported: on small tensors a second thread costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("dev", max_examples=30, deadline=None)
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Each of pytest-xdist's processes builds a module's fixtures for itself, and some are whole graphs.
SHARED = {
    file.name
    for file in Path(__file__).parent.glob("test_*.py")
    if 'scope="module"' in file.read_text()
}


class Scheduler(LoadScopeScheduling):
    """Sends the tests of a file with fixtures to one process, and all others one by one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if Path(file).name in SHARED else nodeid


def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # the order is that of the tests below
    return Scheduler(config, log)


def pytest_collection_modifyitems(config, items):
    """Begin with the slow tests where several processes run them: so all end at about one time."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
