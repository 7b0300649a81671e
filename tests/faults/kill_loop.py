"""A writer for tests that cut the power under it, and what must be there afterwards.

It chats: question, journal, tokens, reply, state; behind each step that the store acknowledged it writes a line to a
pipe. `look` compares the library with the lines.
"""

import json
import os
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
