"""Draws the experiments of a soak: its seed and the number of an experiment determine it."""

import random
from dataclasses import dataclass

METHODS = ("sms", "imp", "imp_mx", "imp_reprune")
SEEDS, MOST = 12, 3  # seeds and candidates are drawn below and up to these
BY_EXP_RUN = 0.2  # the part through `dvc exp run`
INTERRUPTED, CONTINUED = 0.5, 0.5  # the parts of all, and of those
INTERRUPTIONS = (  # signal and process, the group as of ^C
    ("SIGINT", "group"),
    ("SIGTERM", "dvc"),
    ("SIGKILL", "dvc"),
    ("SIGTERM", "driver"),
    ("SIGKILL", "driver"),
)


@dataclass(frozen=True)
class Experiment:
    """Settings of an experiment, how it is run, and how it is interrupted."""

    m: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    phases: int
    by_exp_run: bool = False
    interruption: tuple[str, str] | None = None
    at: float = 0.0  # the time of the interruption, as a part of the expected time
    continued: bool = False

    def settings(self) -> dict[str, str]:
        """Return the values of params.yaml, as YAML and as ``-S`` takes them."""
        lists = {"seeds": map(str, self.seeds), "methods": self.methods}
        texts = {key: f"[{','.join(values)}]" for key, values in lists.items()}
        return {"m": str(self.m), "phases": str(self.phases), **texts}


def draw(seed: int, number: int) -> Experiment:
    """Return an experiment of a soak."""
    numbers = random.Random(f"{seed} {number}")
    interrupted = numbers.random() < INTERRUPTED
    return Experiment(
        m=numbers.randint(2, MOST),
        seeds=tuple(sorted(numbers.sample(range(SEEDS), numbers.choice((1, 1, 1, 2))))),
        methods=tuple(sorted(numbers.sample(METHODS, numbers.choice((1, 2))))),
        phases=numbers.choice((1, 1, 1, 2)),
        by_exp_run=numbers.random() < BY_EXP_RUN,
        interruption=numbers.choice(INTERRUPTIONS) if interrupted else None,
        at=numbers.random(),
        continued=interrupted and numbers.random() < CONTINUED,
    )


def fresh(number: int) -> Experiment:
    """Return an experiment of fixed size of which nothing is cached."""
    return Experiment(m=2, seeds=(1000 + number,), methods=("sms",), phases=1)
