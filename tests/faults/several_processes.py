"""Row 13 of the battery: several processes on one library, one of them killed each second. Run as a process of its own.

    python several_processes.py FOLDER OPERATIONS

Two writers commit without a pause; one lives, the other is killed each second and begun again. A third process evicts,
collects garbage, copies and checks meanwhile. Every commit is timed and written down when it was acknowledged. Ends
when so many operations are done, looks whether all of them are there, and prints one line of figures.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from faults.kit import KEY, assert_true, open_library, save  # noqa: E402
from snapshots import Message  # noqa: E402
from snapshots.fsck import fsck  # noqa: E402

KILL_EVERY_S = 1.0
TURNS = 40
"""Messages of a conversation, before the next one is begun."""


def write(folder, name, out):
    """Commit without a pause until killed; each line says what is done, for whom, and how many seconds it took."""

    def timed(kind, call, *arguments):
        begun = time.monotonic()
        result = call(*arguments)
        os.write(out, json.dumps([kind, getattr(result, "id", ""), time.monotonic() - begun]).encode() + b"\n")
        return result

    with open_library(folder) as library:
        chat = parent = None
        for number in range(10**9):
            if number % TURNS == 0:
                chat, parent = timed("conversation", library.new_conversation, f"{name} {number}"), None
            message = Message("user", f"{name} {number}", (number % 200, len(name)))
            parent = timed("node", library.add_node, chat.id, parent, message).id
            if number % 5 == 2:
                timed("name", library.set_name, f"{name} {number}", parent)
                library.conversations()
                library.outside_changes()
            if number % 10 == 3:
                tokens = library.tokens(parent)
                timed("state", save, library, tokens, parent)


def keep_house(folder):
    """What a third window or a script does meanwhile, until killed: evict, collect, look, copy, check."""
    with open_library(folder) as library:
        library.set_cap(100_000)
        for number in range(10**9):
            library.make_room()
            library.collect_garbage()
            library.stats()
            for each in library.conversations()[:3]:
                for twig in library.tree(each.id)[:5]:
                    tokens = library.tokens(twig.id)
                    assert_true(library.load_state(KEY, tokens), tokens)
            if number % 10 == 5:
                assert fsck(folder / "data", folder / "cache").problems == []
                library.back_up(now=True)
            time.sleep(0.2)


def begin(work, *arguments, errors):
    """A process that works until it is killed; what it says when it fails goes to `errors`."""
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
        except BaseException:
            os.write(errors, traceback.format_exc().encode())
        os._exit(9)
    return child


def killed(child):
    """Kill a process; True where it was alive until now."""
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def p99(lines):
    times = sorted(line[2] for line in lines)
    return round(1e3 * times[int(0.99 * len(times))], 1), round(1e3 * times[-1], 1)


def main():
    folder, operations = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    open_library(folder).close()
    outs = {name: os.open(folder / f"{name}.out", os.O_CREAT | os.O_APPEND | os.O_RDWR) for name in ("lives", "dies")}
    errors = os.open(folder / "errors", os.O_CREAT | os.O_APPEND | os.O_RDWR)
    lives = begin(write, folder, "lives", outs["lives"], errors=errors)
    house = begin(keep_house, folder, errors=errors)
    kills, failures, begun, done = 0, 0, time.monotonic(), 0
    while done < operations:
        dies = begin(write, folder, f"dies{kills}", outs["dies"], errors=errors)
        time.sleep(KILL_EVERY_S)
        failures += not killed(dies)
        kills += 1
        done = sum((folder / f"{name}.out").read_bytes().count(b"\n") for name in outs)
        if os.fstat(errors).st_size:
            break
    took = time.monotonic() - begun
    failures += not killed(lives)
    failures += not killed(house)
    said = (folder / "errors").read_text()
    print(said, file=sys.stderr)
    lines = {}
    for name in outs:
        raw = (folder / f"{name}.out").read_bytes().splitlines()
        lines[name] = [json.loads(line) for line in raw if line.endswith(b"]")]
    lost = 0
    with open_library(folder) as library:
        for kind, which, _ in [*lines["lives"], *lines["dies"]]:
            if kind == "node":
                lost += library.node(which).id != which
            elif kind == "conversation":
                lost += library.conversation(which).id != which
    lost += len(fsck(folder / "data", folder / "cache").problems)
    figures = {"operations": sum(map(len, lines.values())), "kills": kills, "failures": failures, "lost": lost}
    figures["locked"] = said.count("locked") + said.count("StoreBusy")
    figures["p99_commit_ms"], figures["longest_ms"] = p99([line for line in lines["lives"] if line[0] != "state"])
    figures["p99_save_ms"], _ = p99([line for line in lines["lives"] if line[0] == "state"])
    print(json.dumps({**figures, "per_s": round(figures["operations"] / took)}))


if __name__ == "__main__":
    main()
