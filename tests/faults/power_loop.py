"""Cuts the power of a real ext4, again and again, under processes that use a library on it. Run as root, as a process.

    python power_loop.py CUTS SEED

The image lies in memory and has no name, its loop device frees itself, and the mount lives in a namespace of this
process: whatever happens to it, nothing is left behind. A child acts a history out and tells the parent through a pipe
what the store promised. The power goes (ext4's shutdown, without a flush of its log) either when the parent's dice say
so or, in the child itself, at an operation of the store. Then: unmount, mount, look. Prints one line of figures.
Exit code 77 with a sentence where such a disk cannot be had.
"""

import ctypes
import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import numpy  # noqa: E402, F401 - loaded once, before the forks
import zstandard  # noqa: E402, F401

import app.travelling  # noqa: E402, F401
from faults import histories  # noqa: E402
from snapshots import StoreError, bundles, exchange, fsck, purge  # noqa: E402, F401
from snapshots.files import Files  # noqa: E402

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)
SIZE = 48 << 20
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
SCENARIOS = [*(name for name in histories.SCENARIOS if name not in ("migrate", "repair")), "any", "any", "any"]
LIBRARY_LIVES = 12
"""Cuts that one library goes through before a new one begins."""

libc = ctypes.CDLL(None, use_errno=True)


class NoDisk(Exception):
    """Why there can be no such disk here."""


def must(result, what):
    if result != 0:
        raise NoDisk(f"{what}: {os.strerror(ctypes.get_errno())}")


class Disk:
    """A fresh ext4 on a loop device in memory, seen by this process and its children only."""

    def __init__(self, place):
        if os.geteuid() != 0:
            raise NoDisk("only root can mount")
        if shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None or not os.path.isdir("/dev/shm"):
            raise NoDisk("no mkfs.ext4, losetup or /dev/shm")
        must(libc.unshare(CLONE_NEWNS), "a mount namespace of its own")
        must(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "private mounts")
        self.place = str(place).encode()
        with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="forkpoint-", suffix=".img") as image:
            image.truncate(SIZE)
            subprocess.run(["mkfs.ext4", "-q", "-F", image.name], check=True)
            found = subprocess.run(["losetup", "-f", "--show", image.name], capture_output=True, check=False)
            if found.returncode:
                raise NoDisk(found.stderr.decode().strip())
            self.device = found.stdout.strip()
            self._held = os.open(self.device, os.O_RDONLY | os.O_CLOEXEC)
            # Detached while it is held open: it works on, and is gone with the last who holds it.
            subprocess.run(["losetup", "-d", self.device.decode()], check=True)
        self.mount()

    def mount(self):
        must(libc.mount(self.device, self.place, b"ext4", 0, None), "mount")

    def unmount(self):
        for _ in range(200):
            if libc.umount2(self.place, 0) == 0:
                return
            time.sleep(0.005)
        raise OSError(ctypes.get_errno(), "cannot unmount")

    def cut(self):
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(fd)


class CuttingFiles(Files):
    """The power goes just before operation `at`, and the process with it."""

    def __init__(self, disk, at):
        self.disk, self.at, self.count = disk, at, 0

    def _tick(self):
        self.count += 1
        if self.count == self.at:
            self.disk.cut()
            os.kill(os.getpid(), signal.SIGKILL)


def _ticking(name):
    def call(self, *arguments):
        self._tick()
        return getattr(Files, name)(self, *arguments)

    return call


for _name in ("create", "write", "truncate", "sync", "rename", "unlink", "make_dirs", "sync_dir", "committed"):
    setattr(CuttingFiles, _name, _ticking(_name))


def child(disk, folder, pipe, scenario, seed, at):
    """Use the library until the power is gone. Exit code 0: ended before; 7: the store said what is wrong."""

    def promise(*what):
        os.write(pipe, json.dumps([time.monotonic_ns(), *what]).encode() + b"\n")

    try:
        histories.run(scenario, folder, promise, seed, CuttingFiles(disk, at) if at else None)
        os._exit(0)
    except (StoreError, OSError):
        os._exit(7)
    except BaseException:
        os.write(pipe, json.dumps([0, "raised", traceback.format_exc()]).encode() + b"\n")
        os._exit(9)


def one(disk, folder, scenario, dice, typical):
    """One cut; gives the promises of the process that was cut, how it ended, and how long it took."""
    seed = dice.getrandbits(40)
    at = dice.randrange(1, 140) if dice.random() < 0.5 else 0
    lets_it_see = dice.random() < 0.5
    reader, writer = os.pipe()
    begun, gone = time.monotonic(), 1 << 63
    process = os.fork()
    if process == 0:
        os.close(reader)
        child(disk, folder, writer, scenario, seed, at)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        if at == 0:
            time.sleep(dice.uniform(0, typical))
            gone = time.monotonic_ns()
            disk.cut()
            if not lets_it_see:  # else it meets the dead disk, and must say so in the store's own words
                os.kill(process, signal.SIGKILL)
        heard = [json.loads(line) for line in pipe.read().splitlines() if line.endswith(b"]")]
    # What the store says after the cut no user ever heard, and ext4's fsync, when it is shut down in its midst, may say
    # yes to what it then drops. What was begun then counts all the same.
    lines = [what for when, *what in heard if when < gone or what[0] in ("doomed", "evicting")]
    _, status = os.waitpid(process, 0)
    took = time.monotonic() - begun
    if at:
        disk.cut()
    return lines, os.waitstatus_to_exitcode(status), took


def main():
    cuts, seed = int(sys.argv[1]), int(sys.argv[2])
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        try:
            disk = Disk(place)
        except NoDisk as error:
            print(error)
            sys.exit(77)
        try:
            print(json.dumps(loop(disk, Path(place), cuts, dice)))
        finally:
            disk.unmount()


def loop(disk, place, cuts, dice):
    figures = {"cuts": 0, "libraries": 0, "killed": 0, "typed": 0, "ended": 0, "promises": 0, "lost": 0, "wrong": 0}
    typical = 0.08
    while figures["cuts"] < cuts:
        for old in place.iterdir():
            if old.name != "lost+found":
                shutil.rmtree(old)
        start = dice.choice(("", "", "migrate", "repair"))
        heard = histories.prepare(start, place) if start else []
        (place / "out").mkdir(exist_ok=True)
        os.sync()
        figures["libraries"] += 1
        for number in range(min(LIBRARY_LIVES, cuts - figures["cuts"])):
            scenario = start if start and number == 0 else dice.choice(SCENARIOS)
            lines, code, took = one(disk, place, scenario, dice, typical)
            assert code in (0, 7, -signal.SIGKILL), (scenario, code, lines[-1:])
            typical = 0.9 * typical + 0.1 * took if code == 0 else typical
            disk.unmount()
            disk.mount()
            heard += lines
            heard += histories.Promises(heard).check(place)
            if start == "repair" and number == 0:
                heard = [line for line in heard if line[0] != "damaged"]
            figures["cuts"] += 1
            figures["promises"] += len(lines)
            figures[{0: "ended", 7: "typed"}.get(code, "killed")] += 1
    return figures


if __name__ == "__main__":
    main()
