"""Turns, replies in flight, states and a backup on a disk that fails: each step says what it promised or its error.

usage: failing_child.py FOLDER, in a process whose system calls strace lets fail.
"""

import json
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

# What is loaded only when it is used comes first: a program that cannot be read is not the trouble in question.
import numpy.random  # noqa: E402, F401
import zstandard  # noqa: E402, F401

from app.sentences import EXIT_CODES, exit_code, sentence  # noqa: E402
from faults.kit import open_library, save  # noqa: E402
from snapshots import Message, ReplyStart, StoreError, bundles, tree_check  # noqa: E402, F401

TURNS = 2


class Steps:
    """Runs steps, goes on behind those that fail with a typed error, and keeps each promise and each error."""

    def __init__(self, promise):
        self.promise, self.errors = promise, []

    def __call__(self, step, *given):
        try:
            return step(*given)
        except StoreError as error:
            self.errors.append(error)
            return None


def save_turns(folder, promise, files=None):
    """What a person does in two turns, whatever fails; gives the typed errors in the order in which they came."""
    steps = Steps(promise)
    library = steps(open_library, folder, files)
    if library is None:
        return steps.errors
    chat = steps(library.new_conversation, "a failing disk")
    parent = None
    for turn in range(TURNS if chat else 0):
        user = steps(library.add_node, chat.id, parent, Message("user", f"question {turn}", tuple(range(40))))
        if user is None:
            continue
        promise("node", user.id)
        parent = steps(_reply, library, chat.id, user.id, steps) or user.id
        steps(_keep, library, parent, f"turn {turn}", promise)
    steps(library.back_up)
    steps(library.close)
    return steps.errors


def _reply(library, chat_id, user_id, steps):
    """A reply by way of its journal, or without one where none can be written; gives its node."""
    journal = steps(library.begin_journal, ReplyStart(chat_id, user_id))
    tokens = tuple(range(100, 130))
    if journal is not None and steps(_write, journal, tokens):
        steps.promise("tokens", user_id, list(tokens))
    reply = Message("assistant", "an answer", tokens, stop="stop", dice_key=b"k" * 16)
    try:
        node = library.add_node(chat_id, user_id, reply)
    finally:
        if journal is not None:
            steps(journal.close)
    steps.promise("node", node.id)
    return node.id


def _write(journal, tokens):
    journal.append(tokens)
    journal.sync()
    return True


def _keep(library, node_id, name, promise):
    library.set_name(name, node_id)
    promise("name", name, node_id)
    tokens = library.tokens(node_id)
    if save(library, tokens, node_id).complete:
        promise("state", node_id)


def _say(*what):
    os.writev(1, [json.dumps(what).encode() + b"\n"])  # not write: that is a call that fails


def main():
    """The first error's sentence and documented exit code, as the program gives them."""
    errors = save_turns(Path(sys.argv[1]), _say)
    for error in errors:
        _say("error", type(error).__name__, sentence(error))
    code = exit_code(errors[0]) if errors else 0
    assert code in EXIT_CODES
    return code


if __name__ == "__main__":
    sys.exit(main())
