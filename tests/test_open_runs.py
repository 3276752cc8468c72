"""Files of open MLflow runs: only those whose writers were killed are ended by another."""

import fcntl

from pipeline.track import open_runs


def test_a_run_that_its_writer_releases_meanwhile_is_not_abandoned(tmp_path, monkeypatch):
    """Its file is gone before it is opened, or between its opening and its lock."""
    monkeypatch.chdir(tmp_path)
    held = open_runs.hold("released later")
    (open_runs.FOLDER / "released before").symlink_to("nothing")
    flock = fcntl.flock

    def release_first(file, kind):
        open_runs.release(held)
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", release_first)
    assert list(open_runs.abandoned()) == []


def test_a_run_of_a_writer_that_is_gone_is_abandoned_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_runs.hold("killed").close()
    with open_runs.hold("at work"):
        assert list(open_runs.abandoned()) == ["killed"]
        assert list(open_runs.abandoned()) == []
