"""Where a chat begins: the last place that can be read, and the model file that belongs there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.config import Config, bundled_model
from snapshots import DamagedNode, Library, Node

LAST_MODEL = "model"
"""Setting of the library: the model file that was used last."""


def whole_path(library: Library, conversation_id: str, node_id: str | None) -> tuple[Node, ...]:
    """Give the path to a node, or to the nearest one above it whose path holds no damaged message.

    Raises UnknownConversation, UnknownNode.
    """
    try:
        return tuple(library.path(node_id))
    except DamagedNode:
        parents = {twig.id: twig.parent_id for twig in library.tree(conversation_id, deleted=True)}
    while node_id is not None:
        node_id = parents.get(node_id)
        try:
            return tuple(library.path(node_id))
        except DamagedNode:
            continue
    return ()


def model_file(library: Library | None, path: Sequence[Node], config: Config) -> Path:
    """Give the model file for a path: the savepoint's, the config file's, the last used, the bundled one.

    Raises NoModel where there is none of them.
    """
    node = next((n for n in reversed(path) if n.state_key), None)
    found: list[Path] = []
    if library is not None:
        info = library.model_info(node.state_key) if node is not None else None
        found += [Path(info.path)] if info is not None else []
    found += [config.model] if config.model else []
    if library is not None:
        last = library.remembered_settings().get(LAST_MODEL)
        found += [Path(last)] if last else []
    return next((file for file in found if file.is_file()), None) or bundled_model()
