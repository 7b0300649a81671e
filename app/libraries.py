"""Which library a chat writes to: the person's own, or for --no-save one in memory that nothing outlives."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from app.config import directories
from snapshots import Conversation, Library, Message, Node

_RAM = Path("/dev/shm")  # noqa: S108 - memory, not disk: what is said incognito must not reach one


def own_library(*, must_exist: bool = False) -> Library | None:
    """Open the person's library; None where `must_exist` and there is none yet, so that reading makes no files."""
    roots = directories()
    if must_exist and not (roots.data / "tree.db").exists():
        return None
    return Library.open(roots.data, roots.cache)


def memory_library() -> Library:
    """Open an empty library that is gone with the process: in memory where the system has a place for that."""
    root = Path(tempfile.mkdtemp(prefix="forkpoint-", dir=_RAM if _RAM.is_dir() else None))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return Library.open(root / "data", root / "cache")


def borrow(own: Library, memory: Library, node: Node) -> tuple[Conversation, Node]:
    """Copy the path to a node into the library in memory; give its conversation and the copy of the node."""
    old = own.conversation(node.conversation_id)
    conversation = memory.new_conversation(old.title, template_date=old.template_date)
    copy: Node | None = None
    for n in own.path(node.id):
        message = Message(n.role, n.text, n.tokens, n.keep, n.stop, n.sampler, n.dice_key, n.prompt_key)
        copy = memory.add_node(conversation.id, copy.id if copy else None, message, state_key=n.state_key)
    assert copy is not None
    return conversation, copy
