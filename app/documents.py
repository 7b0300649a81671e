"""A conversation as a document: Markdown for people, JSON for programs. Each holds one path or all branches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from app.place import SETTINGS
from app.sentences import harmless, one_line
from snapshots import Conversation, Node

_WHO = {"user": "You", "raw": "You (raw)", "system": "System", "assistant": "Reply"}


def node_row(node: Node, names: Sequence[str], states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give a message as one JSON object."""
    return {
        "id": node.id,
        "parent": node.parent_id,
        "conversation": node.conversation_id,
        "role": node.role,
        "text": node.text,
        "tokens": list(node.tokens),
        "keep": node.keep,
        "n_tokens": node.n_tokens,
        "turn": node.turn,
        "stop": node.stop,
        "sampler": dict(node.sampler),
        "dice_key": node.dice_key.hex(),
        "prompt_key": node.prompt_key,
        "state_key": node.state_key,
        "created": node.created,
        "names": list(names),
        "states": list(states),
    }


def as_json(conversation: Conversation, at: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Give a conversation as one JSON object; `messages` come parents first."""
    told = {"id": conversation.id, "title": conversation.title, "template_date": conversation.template_date}
    return {"forkpoint": 1, "conversation": told, "at": at, "messages": rows}


def as_markdown(title: str, nodes: Iterable[Node], names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Give a conversation as Markdown, piece by piece; a message that does not follow the one above it says which.

    Controls are made visible signs: a document is looked at in terminals too.
    """
    yield f"# {one_line(title) or 'A conversation'}\n"
    above: Node | None = None
    for node in nodes:
        if node.stop == SETTINGS:
            if above is not None and node.parent_id == above.id:
                above = node
            continue
        goes_on = above is not None and node.parent_id == above.id
        if not (goes_on and above is not None and node.role == "assistant" == above.role):
            heading = f"{_WHO[node.role]} · t{node.turn} · {node.id[:8]}"
            if not goes_on and node.parent_id is not None:
                heading += f" · follows {node.parent_id[:8]}"
            yield f"\n## {heading}\n\n"
        for name in names.get(node.id, ()):
            yield f"★ {one_line(name)}\n\n"
        yield harmless(node.text) + "\n"
        above = node


def depth_first(nodes: Sequence[Node]) -> list[Node]:
    """Give the messages of a tree branch by branch, the first made first."""
    known = {node.id for node in nodes}
    behind: dict[str | None, list[Node]] = {}
    for node in nodes:
        behind.setdefault(node.parent_id if node.parent_id in known else None, []).append(node)
    waiting, found = list(reversed(behind.get(None, []))), list[Node]()
    while waiting:
        found.append(waiting.pop())
        waiting += reversed(behind.get(found[-1].id, []))
    return found
