"""Kills writers of one library, again and again, and looks after each what is left. Run as a process of its own.

    python kill_loop.py FOLDER KILLS SEED

A child chats: question, journal, tokens, reply, state; behind each step that the store acknowledged it writes a line to
a pipe. The parent kills it at a random moment and compares the library with the lines. Prints one line of figures.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy  # noqa: F401 - loaded once, before the forks
import zstandard  # noqa: F401

from faults.kit import KEY, assert_true, open_library, save
from snapshots import Message, ReplyStart

TOKENS = 10
"""Tokens of a reply: few, so that a child gets through several turns before it is killed."""


def chat(folder, pipe, number):
    """The child: talks until it is killed."""

    def acknowledge(*what):
        os.write(pipe, json.dumps(what).encode() + b"\n")

    library = open_library(folder)
    here = library.start_position(window="")
    conversation_id = here.conversation_id if here else library.new_conversation().id
    parent = here.node_id if here else None
    for turn in range(1_000_000):
        user = library.add_node(
            conversation_id, parent, Message("user", f"{number} {turn}", (number % 200, turn % 200))
        )
        acknowledge("node", user.id)
        journal = library.begin_journal(ReplyStart(conversation_id, user.id))
        acknowledge("journal", journal.id)
        ids = []
        for token in range(TOKENS):
            journal.append([token], f"t{token} ")
            ids.append(token)
            time.sleep(0.004)
            acknowledge("token", journal.id, token)
        reply = Message("assistant", "".join(f"t{t} " for t in ids), tuple(ids), stop="stop")
        parent = library.add_node(conversation_id, user.id, reply, journal=journal).id
        acknowledge("node", parent)
        tokens = library.tokens(parent)
        if save(library, tokens, parent).complete:
            acknowledge("state", parent)


def look(folder, lines, known):
    """The parent: everything that was acknowledged is there; what was in flight is offered once, whole or shorter."""
    journals = {}
    with open_library(folder) as library:
        for kind, name, *rest in lines:
            if kind == "node":
                known.append(name)
                journals.clear()
            elif kind == "journal":
                journals[name] = []
            elif kind == "token":
                journals[name].append(rest[0])
            elif kind == "state":
                tokens = library.tokens(name)
                state = library.load_state(KEY, tokens)
                assert state.rung == "bundle", (state.n_valid, len(tokens))
                assert_true(state, tokens)
                assert library.node_states(name)[0].has_bundle
        path = {node.id for node in library.path(library.start_position().node_id)} if known else set()
        assert set(known) <= path, "an acknowledged turn is lost"
        offered = {reply.journal_id: reply for reply in library.dead_replies()}
        assert len(offered) <= 1
        for name, tokens in journals.items():
            if name in offered:
                assert list(offered[name].tokens[: len(tokens)]) == tokens, "an acknowledged token is lost"
            else:  # committed in the moment of the kill
                assert tokens == list(range(TOKENS))
        for name in offered:
            library.discard_reply(name)
        library.stats()
        assert not list((folder / "cache").rglob("*.tmp"))
    return len(offered), sum(kind == "state" for kind, *_ in lines)


def main():
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    known, torn, states = [], 0, 0
    for number in range(kills):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                chat(folder, writer, number)
            finally:
                os._exit(9)
        os.close(writer)
        time.sleep(dice.uniform(0.0, 0.5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child failed by itself"
        with os.fdopen(reader, "rb") as pipe:
            lines = [json.loads(line) for line in pipe.read().splitlines() if line.endswith(b"]")]
        in_flight, saved = look(folder, lines, known)
        torn, states = torn + in_flight, states + saved
    print(json.dumps({"kills": kills, "acknowledged": len(known), "in_flight": torn, "states": states, "lost": 0}))


if __name__ == "__main__":
    main()
