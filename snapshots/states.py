"""Derived states: the rows beside the nodes, and the saves that write files first and the row last."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from snapshots import ids, quota
from snapshots.errors import BadNode, StoreError, UnknownNode
from snapshots.records import Chunk, FileCheck, Node, NodeState, SaveReport, Stats
from snapshots.tree import tokens_of, tokens_to

if TYPE_CHECKING:
    import numpy as np

    from snapshots.bundles import Bundles
    from snapshots.database import Database

_PATHS_KEPT = 4


def _row_digest(state: NodeState) -> bytes:
    """SQLite may return a flipped bit as a good row: the row's own digest finds it."""
    return blake2b(b"forkpoint state 1\0" + ids.canonical(list(state)), digest_size=16).digest()


def put_state(tx: sqlite3.Connection, state: NodeState) -> None:
    """Store or replace a node's row for one state_key."""
    values = (*state, _row_digest(state))
    tx.execute(
        "INSERT OR REPLACE INTO node_states(node_id, state_key, n_tokens, logits_digest, has_bundle, bytes_stored,"
        " created, digest) VALUES (?,?,?,?,?,?,?,?)",
        values,
    )


def node_states(tx: sqlite3.Connection, node_id: str) -> list[NodeState]:
    """The rows of a node that agree with their digests."""
    rows = tx.execute(
        "SELECT node_id, state_key, n_tokens, logits_digest, has_bundle, bytes_stored, created, digest"
        " FROM node_states WHERE node_id = ? ORDER BY created",
        (node_id,),
    )
    return [_state(row) for row in rows if row[0] == node_id and is_whole(row)]


def _state(row: tuple[Any, ...]) -> NodeState:
    return NodeState(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6])


def is_whole(row: tuple[Any, ...]) -> bool:
    """Whether a row, digest last, agrees with its digest; a damaged one may hold values of other types."""
    try:
        return bool(_row_digest(_state(row)) == row[7])
    except (TypeError, ValueError):
        return False


class PathTokens:
    """The token lists of the paths saved or built on last: a turn's save need not read the whole conversation again."""

    def __init__(self) -> None:
        self._known: dict[str, ids.Packed] = {}

    def of(self, tx: sqlite3.Connection, node_id: str, said: ids.Packed) -> ids.Packed:
        """The token list at the end of the path to a node: `said` itself, where it is that. Raises UnknownNode,
        DamagedNode.
        """
        known = dict(self._known)  # saves may come from several threads
        tokens, above = tokens_to(tx, node_id, known, said)
        if above in known:  # many branches may begin there: it is kept as long as they come
            known[above] = known.pop(above)
        known.pop(node_id, None)
        known[node_id] = tokens
        self._known = dict(list(known.items())[-_PATHS_KEPT:])
        return tokens


class Forgotten(UnknownNode):
    """The message was forgotten for good while its state was being written: files of it may be there."""


def save_state(
    database: Database,
    bundles: Bundles,
    paths: PathTokens,
    node_id: str | None,
    state_key: str,
    tokens: Sequence[int],
    chunks: Sequence[Chunk],
    logits: np.ndarray | None,
    hidden: np.ndarray | None,
    dice_key: bytes,
    logits_digest: str,
) -> SaveReport:
    """Write the files, then the node's row. The row is written even where the files could not be.

    The digest is what a later recompute is compared with: it is worth keeping without a bundle. Raises BadNode for
    tokens that are not those of the node's path: a wrong digest would make a liar of every later comparison.
    """
    said, n_tokens = ids.packed(tokens), len(tokens)
    if node_id is not None:
        with database.read() as tx:
            expected = paths.of(tx, node_id, said)
        if said != expected:
            raise BadNode("tokens", f"{n_tokens} that are not the {len(expected.raw) // 4} of the path to it")
    if logits is not None and not logits_digest:
        logits_digest = digest_of(logits)
    failure: StoreError | None = None
    report: SaveReport | None = None
    try:
        report = bundles.save(state_key, said, chunks, logits, hidden, dice_key)
    except StoreError as error:
        failure = error
    if node_id is not None:
        whole = report is not None and report.complete
        size = report.bytes_written if report is not None else 0
        try:
            with database.write() as tx:
                if tx.execute("SELECT 1 FROM nodes WHERE id = ?", (node_id,)).fetchone() is None:
                    raise Forgotten(node_id)
                before = next((row for row in node_states(tx, node_id) if row.state_key == state_key), None)
                digest = logits_digest or (before.logits_digest if before else "")
                size = max(size, before.bytes_stored if before else 0)  # a save that found it all wrote nothing
                quota.note_use(tx, node_id)
                put_state(tx, NodeState(node_id, state_key, n_tokens, digest, whole, size, time.time()))
        except Forgotten:
            raise
        except StoreError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    assert report is not None
    return report


def digest_of(logits: np.ndarray) -> str:
    """blake2b-256 of float32 logits, little-endian, in vocabulary order."""
    import numpy as np

    return blake2b(np.ascontiguousarray(logits, "<f4").tobytes(), digest_size=32).hexdigest()


def verify_files(bundles: Bundles, nodes: Sequence[Node], state_key: str) -> FileCheck:
    """Every file of the state at the end of a path; bytes behind the parent's tokens count as the node's own."""
    return bundles.check(state_key, tokens_of(nodes), nodes[-1].keep)


def stats(tx: sqlite3.Connection, bundles: Bundles, tree_bytes: int) -> Stats:
    """Counts from the tree, bytes from the directories."""
    counts = tx.execute(
        "SELECT (SELECT count(*) FROM conversations WHERE deleted IS NULL),"
        " (SELECT count(*) FROM nodes WHERE deleted IS NULL),"
        " (SELECT count(*) FROM labels l JOIN nodes n ON n.id = l.node_id AND n.deleted IS NULL)"
    ).fetchone()
    files, size = bundles.usage()
    return Stats._make((*counts, tree_bytes, files, size))
