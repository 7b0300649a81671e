"""Which library a chat writes to: the person's own, or for --no-save one in memory that nothing outlives."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from app.config import directories
from snapshots import Conversation, Library, Message, Node


def own_library(*, must_exist: bool = False) -> Library | None:
    """Open the person's library; None where `must_exist` and there is none yet, so that reading makes no files."""
    roots = directories()
    if must_exist and _nothing_at(roots.data):
        return None
    return Library.open(roots.data, roots.cache)


def _nothing_at(data_dir: Path) -> bool:
    """Tell whether there is no library yet. What cannot be looked at, or is no directory, is for `open` to name.

    An empty file is what a full disk leaves of the attempt to make one; beside backups it is a damaged library.
    """
    try:
        facts = os.lstat(data_dir / "tree.db")
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_size == 0 and not (data_dir / "backups").exists()


def memory_library() -> Library:
    """Open an empty library in this process's memory: whatever ends the process, no file holds what was said."""
    return Library.in_memory()


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
