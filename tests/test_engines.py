"""The benchmark of engines: a run that does not end well is no measurement."""

import os
import signal
import threading
from pathlib import Path

import pytest

from benchmarks import engines
from tests.toy import alone, until

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # DVC's own


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a graph of one first and two later stages, whose commands are yet to be written."""
    alone(monkeypatch, tmp_path)
    root = tmp_path / "project"
    engines.write(root, 1, 2, 0.0)
    graph = root / "stages" / "dvc.yaml"
    graph.write_text(graph.read_text().replace("stages/run sleeper", "sh stages/sleeper.py"))
    return root


def test_log_of_a_failed_stage_is_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "stages" / "sleeper.py").write_text("echo the reason; exit 3")
    with pytest.raises(SystemExit, match=r"^no measurement: 1 stages failed$"):
        engines.measure(root, 1)
    shown = capsys.readouterr().err
    assert "w0 failed: exit status 3\n    the reason\n" in shown
    assert "Clock" not in shown


def test_stopped_run_has_no_failed_stage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM, as a time limit sends it, ends all running stages."""
    (root / "stages" / "sleeper.py").write_text("touch begun; exec sleep 60")

    def stop() -> None:
        until((root / "begun").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SystemExit, match=r"^130$"):
        engines.measure(root, 1)
    thread.join()
    shown = capsys.readouterr().err
    assert shown.endswith("stopped: 0 stages are done and kept, 4 are left\n")
    assert "failed" not in shown
