"""Lets system calls of one scenario of the store fail, one run each, and looks each time at what is left.

    python fail_every_call.py SCENARIO FOLDER ERROR once|sticky PART PARTS [MOST]

As kill_every_call.py, but the call gives an error instead of a death: nothing but a typed error may come of it, what
was promised is there, and when the disk is well again the same work completes. Prints one line of figures.
"""

import json
import os
import shutil
import sys
import traceback
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from app.sentences import EXIT_CODES, exit_code, sentence  # noqa: E402
from app.travelling import write_file  # noqa: E402
from faults.kill_every_call import child, rehearsed  # noqa: E402
from faults.kit import open_library  # noqa: E402
from faults.scenarios import SCENARIOS, Scenario, look, outcome, said  # noqa: E402
from snapshots import StoreError  # noqa: E402
from snapshots.fsck import fsck  # noqa: E402

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "ftruncate", "mkdir", "unlink")


def _export(folder, promise):
    with open_library(folder) as library:
        here = library.resolve("here").node
        write_file(folder / "made.export", library.export(here.id), force=True)
        promise("written")


def _failing(folder, promise):
    """`export` to a file: what a person has is the whole file, or the one from before."""
    SCENARIOS["fork"].prepare(folder)
    (folder / "made.export").write_bytes(b"from before")


WORK = {**SCENARIOS, "export": Scenario(lambda folder: _failing(folder, None), _export)}


def careful(act):
    """The work with its typed errors said and everything else let through, as the program does it."""

    def do(folder, promise):
        error = None
        try:
            act(folder, promise)
        except (StoreError, OSError) as caught:
            error = caught
        if error is not None:
            words = sentence(error)
            assert words.endswith("."), words
            assert "\n" not in words, words
            assert exit_code(error) in EXIT_CODES
            promise("error", type(error).__name__)

    return do


def one(name, source, folder, call, error, when, before, wanted):
    """One failure; gives what the store said of it, or "". Raises AssertionError where anything is wrong."""
    work = WORK[name]
    shutil.copytree(source, folder)
    inject = ["-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
    ended, promised = child(careful(work.act), folder, inject)
    assert ended == 0, f"ended with {ended}"
    errors = [what[1] for what in promised if what[0] == "error"]
    of_the_system = {"OSError", "InterruptedError"} if name == "export" else set()  # a file that a person named
    assert set(errors) <= {"StoreFull", "StoreError", *of_the_system}, errors
    if name == "repair" and ["open"] not in promised:
        assert not fsck(folder / "data", folder / "cache", repair=True).left
    if name == "export":
        data = (folder / "made.export").read_bytes()
        assert data == b"from before" if ["written"] not in promised else data.startswith(b"forkpoint export")
    look(folder, promised)
    assert before.items() <= said(folder).items(), "a message is lost"
    assert [p for p in fsck(folder / "data", folder / "cache").problems if p.where != "states"] == []
    work.act(folder, lambda *what: promised.append(list(what)))
    look(folder, promised)
    again, wanted = outcome(folder), dict(wanted)
    if name == "evict":  # what could not be removed counted as room that is taken: other files may have gone
        del wanted["files"]
    for part, value in wanted.items():
        assert again[part] == value, (part, value, again[part])
    assert [p for p in fsck(folder / "data", folder / "cache").problems if p.where != "states"] == []
    shutil.rmtree(folder)
    return errors[0] if errors else ""


def main():
    name, root, error, sticky = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "sticky"
    part, parts = int(sys.argv[5]), int(sys.argv[6])
    most = int(sys.argv[7]) if len(sys.argv) > 7 else 10**9
    work = WORK[name]
    source, before, points, wanted = rehearsed(name, work, root)
    points = [each for each in points if each[0] in CALLS]
    mine = points[:: max(1, -(-len(points) // most))][part::parts]
    failures, told = [], Counter()
    for number, (call, k) in enumerate(mine):
        # An interruption that never ends is no state of any disk, and everybody tries again: there it is twenty times.
        when = f"{k}..{k + 19}" if sticky and error == "EINTR" else f"{k}+" if sticky else f"{k}"
        try:
            told[one(name, source, root / str(number), call, error, when, before, wanted)] += 1
        except Exception:
            failures.append([call, k, traceback.format_exc()])
    for call, k, words in failures[:5]:
        print(f"{name}, {error} at {call} {k}: {words}", file=sys.stderr)
    print(
        json.dumps(
            {
                "scenario": name, "error": error, "sticky": sticky, "calls": len(points), "runs": len(mine),
                "told": dict(told), "failures": len(failures),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
