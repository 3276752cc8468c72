"""What all tests share: one thread, and hypothesis that repeats its examples in CI."""

import os

from hypothesis import settings

# Before torch is imported: on small tensors a second thread costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("dev", max_examples=30, deadline=None)
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
