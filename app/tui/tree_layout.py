"""How the tree of savepoints is drawn: which nodes are worth a line, and the rails in front of them. Pure functions.

Worth a line are the beginnings, the named, the places where branches part, the ends, and the live position; the turns
between them are passed over. A single branch goes straight down; where branches part, each has its rail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from app.events import TreeRow


@dataclass(frozen=True)
class Line:
    """One line of the panel: `rails` in front, a mark, the words, and the node it stands for."""

    rails: str
    mark: str
    row: TreeRow


def lines(rows: Sequence[TreeRow]) -> list[Line]:
    """Draw a tree given depth first, a parent in front of its children."""
    parents = {row.node_id: row.parent_id for row in rows}
    children: dict[str | None, list[TreeRow]] = defaultdict(list)
    for row in rows:
        children[row.parent_id if row.parent_id in parents else None].append(row)
    kept = {
        row.node_id
        for row in rows
        if row.is_here
        or row.labels
        or (row.parent_id not in parents and row.role != "system")
        or (len(children[row.node_id]) != 1 and row.role != "system")
    }
    below: dict[str | None, list[TreeRow]] = defaultdict(list)
    for row in rows:
        if row.node_id in kept:
            above = row.parent_id
            while above is not None and above not in kept:
                above = parents.get(above)
            below[above].append(row)
    drawn: list[Line] = []
    stack = [(row, "", "") for row in reversed(below[None])]
    while stack:
        row, rails, joint = stack.pop()
        under = below[row.node_id]
        forks = len(under) > 1
        drawn.append(Line(rails + _opened(joint, forks), _mark(row), row))
        inner = rails + {"": "", "├─": "│ ", "└─": "  "}[joint]
        for place, child in reversed(list(enumerate(under))):
            stack.append((child, inner, ("└─" if place == len(under) - 1 else "├─") if forks else ""))
    return drawn


def tip_below(rows: Sequence[TreeRow], node_id: str) -> str:
    """The end of the newest branch below a node."""
    newest_child = {row.parent_id: row.node_id for row in rows}
    while node_id in newest_child:
        node_id = newest_child[node_id]
    return node_id


def _opened(joint: str, forks: bool) -> str:
    """The joint of a node that has branches under it opens downwards."""
    return joint + "┬ " if joint and forks else joint


def _mark(row: TreeRow) -> str:
    if row.labels:
        return "★"
    return "●" if row.on_path else "○"
