"""Kills one scenario of the store at system calls, one a run, and looks each time at what is left.

    python kill_every_call.py SCENARIO FOLDER PART PARTS [MOST]

This process imports the store once and forks a child for each kill. strace attaches to the child, which waits for it,
and kills it on entry of the call, so that the call is not made. A first run that nobody kills lists the calls; MOST
takes that many of them, evenly spread, and PART of PARTS takes every so-manieth. Prints one line of figures.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from faults.scenarios import SCENARIOS, look, outcome, said  # noqa: E402
from snapshots.fsck import fsck  # noqa: E402

CALLS = (
    "?open,?creat,?openat,?openat2,?write,?pwrite64,?writev,?pwritev,?pwritev2,?copy_file_range,"
    "?sendfile,?fsync,?fdatasync,?sync,?syncfs,?sync_file_range,?msync,?rename,?renameat,?renameat2,"
    "?link,?linkat,?symlink,?symlinkat,?unlink,?unlinkat,?rmdir,?mkdir,?mkdirat,?truncate,"
    "?ftruncate,?fallocate,?chmod,?fchmod,?fchmodat,?chown,?fchown,?fchownat,?utimensat,?flock,"
    "?fcntl"
)
"""What can change a file, its name, its mode or a lock. A kill anywhere else leaves what one at the next of these does,
for nothing changes in between. "?": not every machine has it.
"""
_ANY_TRACER = -1


def child(act, folder, tracing):
    """Run a scenario under strace; gives how it ended (0, or minus a signal) and what the store had acknowledged."""
    gate, go = os.pipe()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            ctypes.CDLL(None).prctl(0x59616D61, _ANY_TRACER, 0, 0, 0)  # PR_SET_PTRACER, where Yama asks for it
            os.read(gate, 1)
            # Not by write, which fail_every_call.py lets fail.
            act(folder, lambda *what: os.writev(writer, [json.dumps(what).encode() + b"\n"]))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(gate)
    os.close(writer)
    strace = subprocess.Popen(["strace", "-f", *tracing, "-p", str(pid)], stderr=subprocess.PIPE)
    said_first = strace.stderr.readline()
    os.write(go, b".")
    os.close(go)
    with os.fdopen(reader, "rb") as pipe:
        lines = [json.loads(line) for line in pipe.read().splitlines() if line.endswith(b"]")]
    _, status = os.waitpid(pid, 0)
    strace.communicate()
    assert b"attached" in said_first, said_first
    return os.waitstatus_to_exitcode(status), lines


def listed(act, folder, trace):
    """The calls of a run that nobody kills, in their order: (name, which of that name)."""
    ended, _ = child(act, folder, ["-o", str(trace), "-e", f"trace={CALLS}"])
    assert ended == 0
    names = re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE)
    return [(name, names[: at + 1].count(name)) for at, name in enumerate(names)]


def one(act, source, folder, call, k, before, wanted):
    """One kill; raises AssertionError, or what the store raised, where anything is not as it should be."""
    shutil.copytree(source, folder)
    inject = ["-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={k}"]
    ended, promised = child(act, folder, inject)
    assert ended == -signal.SIGKILL, f"ended with {ended}"
    if act is SCENARIOS["repair"].act and ["open"] not in promised:
        assert not fsck(folder / "data", folder / "cache", repair=True).left
    look(folder, promised)
    assert before.items() <= said(folder).items(), "a message is lost"
    problems = fsck(folder / "data", folder / "cache").problems
    planted = "states" if act is SCENARIOS["heal"].act else ""  # what it began with, until it has been done again
    assert [each for each in problems if each.where != planted] == []
    act(folder, lambda *what: promised.append(list(what)))
    look(folder, promised)
    again = outcome(folder)
    for part, value in wanted.items():
        assert again[part] == value, (part, value, again[part])
    assert fsck(folder / "data", folder / "cache").problems == []
    shutil.rmtree(folder)


def rehearsed(name, work, root):
    """What a scenario begins with: its folder, what is said there that must last, its calls, and what it ends with."""
    source, whole, opened = root / "source", root / "whole", root / "opened"
    source.mkdir(parents=True)
    work.prepare(source)
    shutil.copytree(source, whole)
    shutil.copytree(source, opened)
    before = said(opened) if name != "repair" else {}
    work.act(opened, lambda *what: None)  # imports what is imported late: no run shall differ from the first
    before = said(opened) if name == "forget" else before
    points = listed(work.act, whole, root / "trace")
    return source, before, points, outcome(whole)


def main():
    name, root, part, parts = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    most = int(sys.argv[5]) if len(sys.argv) > 5 else 10**9
    scenario = SCENARIOS[name]
    source, before, points, wanted = rehearsed(name, scenario, root)
    mine = points[:: max(1, -(-len(points) // most))][part::parts]
    failures = []
    for number, (call, k) in enumerate(mine):
        try:
            one(scenario.act, source, root / str(number), call, k, before, wanted)
        except Exception:
            failures.append([call, k, traceback.format_exc()])
    for call, k, error in failures[:5]:
        print(f"{name}, killed at {call} {k}: {error}", file=sys.stderr)
    figures = {"scenario": name, "calls": len(points), "kills": len(mine), "failures": len(failures)}
    print(json.dumps({**figures, "by_call": dict(Counter(call for call, _ in mine))}))


if __name__ == "__main__":
    main()
