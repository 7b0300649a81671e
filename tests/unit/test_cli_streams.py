"""The command line where nobody reads to the end, a key comes early, and pipes lie in the places of files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.config import ConfigError, load_config
from app.travelling import write_file
from snapshots import Library

ROOT = Path(__file__).resolve().parents[2]


def shell(line):
    program = line.replace("forkpoint", f"{sys.executable} -m app")
    return subprocess.run(["bash", "-c", program], capture_output=True, cwd=ROOT, check=False, timeout=120)


def kept(own_directories):
    with Library.open(own_directories / "data", own_directories / "cache") as library:
        return {point.name: library.node(point.node_id) for point in library.savepoints()}


@pytest.mark.parametrize(("reader", "code"), [("| true; exit ${PIPESTATUS[0]}", 0), (">/dev/full", 9)])
@pytest.mark.parametrize("branches", ["", "--branches 2"])
def test_a_reply_that_is_to_be_kept_is_kept_whole_though_nobody_reads_it(
    own_directories, stories_path, reader, code, branches
):
    run = f"forkpoint run -m {stories_path} -s 1 -n 24 {branches} 'Once upon a time'"
    done = shell(f"{run} --save unread {reader}")
    assert done.returncode == code, done.stderr
    assert shell(f"{run} --save read").returncode == 0
    found = kept(own_directories)
    assert found["unread"].tokens == found["read"].tokens
    assert len(found) == (4 if branches else 2)


def test_ctrl_c_before_anything_is_loaded_is_no_traceback(own_directories):
    for wait in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06):
        started = subprocess.Popen(
            [sys.executable, "-c", "import app.__main__ as m; print(flush=True); raise SystemExit(m.main(['list']))"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.stdout.readline()
        time.sleep(wait)
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=60)
        ended = (-signal.SIGINT, b""), (130, b"forkpoint: Stopped.\n"), (0, b"")
        assert (started.returncode, err) in ended, (wait, err)


def test_pipes_in_the_cache_are_passed_over_and_in_the_place_of_the_config_file_named(own_directories, stories_path):
    run = f"forkpoint run -m {stories_path} -s 1 -n 2 hi"
    first = shell(run)
    for path in [*own_directories.joinpath("cache").rglob("*")]:
        if path.is_file():
            path.unlink()
            os.mkfifo(path)
    again = shell(run)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    folder = own_directories / "config"
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "config.toml")
    with pytest.raises(ConfigError, match="not a file"):
        load_config(folder)


def test_an_export_that_is_stopped_right_behind_its_renaming_is_no_missing_file(tmp_path, monkeypatch):
    real = os.replace

    def replace(source, target):
        real(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "out", [b"whole"], force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
