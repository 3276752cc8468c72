"""Pictures of the MLflow UI of a project: ``python docs/screenshots.py PROJECT OUT``.

Starts ``python -m pipeline ui`` in PROJECT, opens both saved views and the page of each registered
model in headless Chromium, and writes OUT/NAME.png. Each page must show names and numbers of the
store; otherwise the exit status is 1.
"""

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome")
PATIENCE = (10, 30, 60)  # seconds of virtual time, one after the other until the page is complete
VIEWS = {  # name -> kind of its runs, a metric, and what the view sorts by
    "experiments": ("graph", "test_score/dense", "attributes.start_time"),
    "results": ("result", "test_score", "metrics.test_score"),
}
HIDDEN = re.compile(r"<(script|style|noscript)\b.*?</\1>|<[^>]+>", re.DOTALL)
Pages = dict[str, tuple[str, list[str]]]  # name -> address, texts that it must show


def browser() -> str | None:
    """Return the path of Chromium, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def served(project: Path) -> Iterator[list[str]]:
    """Serve the UI of ``project`` in the block; yield the links to the views of the newest runs."""
    command = [sys.executable, "-m", "pipeline", "ui", "--no-browser"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=project, env=env, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            lines = "".join(takewhile("Ctrl-C ends it.\n".__ne__, server.stdout))
            yield re.findall(r"http\S+", lines)[:2]
        finally:
            server.terminate()
            server.communicate()


def pages(links: list[str]) -> Pages:
    """Return the pages of a server, and what they must show, from its store."""
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

    address = links[0].partition("/#/")[0]
    experiment = re.findall(r"experiments/(\w+)", links[0])[0]
    client = MlflowClient(address)
    found: Pages = {}
    for (view, (kind, metric, order)), link in zip(VIEWS.items(), links, strict=True):
        runs = client.search_runs(
            [experiment], f"tags.kind = '{kind}'", max_results=1, order_by=[f"{order} DESC"]
        )
        found[view] = (link, ["with its results and stages nested in it", metric])
        for run in runs:
            found[view][1].append(run.info.run_name)
            if metric in run.data.metrics:
                found[view][1].append(f"{run.data.metrics[metric]:.4g}")
    for model in client.search_registered_models():
        version = model.latest_versions[0]
        sentence = version.description.replace("`", "").partition(". ")[0]
        link = f"{address}/#/models/{model.name}/versions/{version.version}"
        found[model.name] = (link, [model.name, sentence])
    return found


def photograph(chromium: str, address: str, picture: Path, seconds: int) -> str:
    """Write a picture of the page at ``address``, and return its text."""
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, "--headless=new", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # root cannot use the sandbox
        command += [f"--virtual-time-budget={1000 * seconds}", "--window-size=2200,900"]
        command += [f"--screenshot={picture}", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return re.sub(r"\s+", " ", html.unescape(HIDDEN.sub(" ", done.stdout)))


def check(chromium: str, links: list[str], out: Path) -> list[str]:
    """Write all pictures to ``out``; return a sentence for each text that a page does not show."""
    out.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    for name, (address, texts) in pages(links).items():
        for seconds in PATIENCE:
            shown = photograph(chromium, address, out.resolve() / f"{name}.png", seconds)
            missing = [text for text in texts if text not in shown]
            if not missing:
                break
        problems += [f"{name} does not show {text!r}" for text in missing]
    return problems


def main() -> None:
    """Check the pages of the project that the command line names."""
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/screenshots.py PROJECT OUT")
    chromium = browser()
    if chromium is None:
        sys.exit(f"none of {', '.join(NAMES)} is installed")
    with served(Path(sys.argv[1])) as links:
        if not links:
            sys.exit("the server does not start: its reason is above")
        problems = check(chromium, links, Path(sys.argv[2]))
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
