"""One scenario of the store in a process that strace kills at a system call; says on stdout what was promised.

usage: killed_child.py SCENARIO FOLDER
"""

import json
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from faults.kit import open_library, save, talk  # noqa: E402
from snapshots import Message  # noqa: E402
from snapshots.fsck import fsck  # noqa: E402


def promise(*what):
    os.write(1, json.dumps(what).encode() + b"\n")


def saving(folder):
    with open_library(folder) as library:
        chat = library.new_conversation()
        _, reply = talk(library, chat.id, None, "hello", 70)
        promise("node", reply.id)
        save(library, library.tokens(reply.id), reply.id)
        promise("state", reply.id)


def forking(folder):
    with open_library(folder) as library:
        here = library.start_position()
        fork = library.add_node(here.conversation_id, here.node_id, Message("user", "another way", (4, 5)))
        promise("node", fork.id)
        library.set_name("fork", fork.id)
        promise("name", "fork")
        save(library, library.tokens(fork.id), fork.id)
        promise("state", fork.id)


def migrating(folder):
    open_library(folder).close()
    promise("open")


def healing(folder):
    with open_library(folder) as library:
        here = library.start_position()
        save(library, library.tokens(here.node_id), here.node_id)
        promise("state", here.node_id)


def backing_up(folder):
    with open_library(folder) as library:
        library.back_up(now=True)
        promise("backup")


def repairing(folder):
    fsck(folder / "data", folder / "cache", repair=True)
    promise("open")


SCENARIOS = {
    "save": saving, "fork": forking, "migrate": migrating, "heal": healing, "back up": backing_up, "repair": repairing,
}  # fmt: skip
if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
