"""Row 3 of the battery: power cuts of a real ext4, shut down in mid-write by ioctl, then mounted again.

Needs root, loop devices and mkfs.ext4; where they are missing a warning says so, and its pure-Python twin
(test_power_cut_model.py) runs all the same.
"""

import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from faults.report import report

HERE = Path(__file__).resolve().parent
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = struct.pack("I", 2)
SIZE = 48 << 20


@pytest.fixture
def disk(tmp_path):
    """A fresh ext4 on a loop device in memory: functions to mount it and to cut its power."""
    memory = Path("/dev/shm")
    image, place = memory / f"forkpoint-{os.getpid()}-{time.monotonic_ns()}.img", tmp_path / "mounted"
    place.mkdir()
    if os.geteuid() != 0 or not memory.is_dir() or shutil.which("mkfs.ext4") is None:
        warnings.warn("row 3 (power cut of a real ext4) cannot run here: needs root and mkfs.ext4", stacklevel=1)
        pytest.skip("needs root and mkfs.ext4; test_power_cut_model.py is its twin")
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)

    def mount():
        return subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True)

    first = mount()
    if first.returncode:
        image.unlink()
        warnings.warn(f"row 3 cannot run here: {first.stderr.decode().strip()}", stacklevel=1)
        pytest.skip("no loop devices; test_power_cut_model.py is its twin")
    try:
        yield place, mount
    finally:
        subprocess.run(["umount", str(place)], check=False, capture_output=True)
        image.unlink()


def cut_power(place):
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, NO_LOG_FLUSH)
    finally:
        os.close(fd)


def run(disk, cuts, seed):
    """A child chats on the disk; its power is cut at a random moment; what it was promised must be there."""
    from faults import kill_loop

    place, mount = disk
    dice, known, totals = random.Random(seed), [], {"cuts": 0, "states": 0}
    for number in range(cuts):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                kill_loop.chat(place, writer, number)
            finally:
                os._exit(9)
        os.close(writer)
        time.sleep(dice.uniform(0.02, 0.35))
        cut_power(place)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        subprocess.run(["umount", str(place)], check=True)
        assert mount().returncode == 0
        with os.fdopen(reader, "rb") as pipe:
            lines = [json.loads(line) for line in pipe.read().splitlines() if line.endswith(b"]")]
        # A token is promised to the kernel at once and to the disk within 250 ms: younger ones may be gone.
        kept = [line for line in lines if line[0] not in ("journal", "token")]
        _, states = kill_loop.look(place, kept, known)
        totals["cuts"] += 1
        totals["states"] += states
    return {**totals, "acknowledged": len(known), "lost": 0}


def test_a_power_cut_loses_nothing_that_was_acknowledged(disk):
    sys.path.insert(0, str(HERE.parents[1]))
    figures = run(disk, 12, seed=3)
    assert figures["acknowledged"] > 4
    report(3, **figures)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
def test_five_thousand_power_cuts(part, disk):
    report(3, part=part, **run(disk, 250, seed=100 + part))
