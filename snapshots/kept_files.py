"""The part of a library that has files beside the tree: states in the cache dir, journals in the data dir."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snapshots import states, tree
from snapshots.database import Database
from snapshots.files import Files
from snapshots.journal import Journal, Journals
from snapshots.quota import Room
from snapshots.records import Chunk, DeadReply, FileCheck, LoadedState, NodeState, ReplyStart, SaveReport, Stats

if TYPE_CHECKING:
    import numpy as np

    from snapshots.bundles import Bundles


class KeptFiles:
    """States and journals of a library; what may be raised by every method is said at `Library`."""

    def __init__(self, database: Database, data_dir: Path, cache_dir: Path, files: Files | None = None) -> None:
        self._db = database
        self._disk = files or Files()
        self._journals = Journals(data_dir, database, self._disk)
        self._bundles: Bundles | None = None
        self._opening = threading.Lock()
        self._room = Room()
        self._paths = states.PathTokens()
        self._making_room = threading.Lock()
        self.data_dir = data_dir
        self.cache_dir = cache_dir

    # ------------------------------------------------------------------------------------------------------- states

    def save_state(
        self,
        node_id: str | None,
        state_key: str,
        tokens: Sequence[int],
        chunks: Sequence[Chunk],
        *,
        logits: np.ndarray | None = None,
        hidden: np.ndarray | None = None,
        dice_key: bytes = b"",
        logits_digest: str = "",
    ) -> SaveReport:
        """Write what is not there yet of the state behind `tokens`; then the node's row (node_id=None: no row).

        `chunks` may begin at `save_from(state_key, tokens)`: what lies before is on disk. Files that are already there
        are checked once a process and healed from the chunks if damaged. Meant for a writer thread: holds no lock while
        it writes files. Raises BadNode for tokens that are not the node's; StoreFull or StoreError (the row is still
        written, without a bundle, if it can be).
        """
        try:
            return states.save_state(
                self._db,
                self._files(),
                self._paths,
                node_id,
                state_key,
                tokens,
                chunks,
                logits,
                hidden,
                dice_key,
                logits_digest,
            )
        except states.Forgotten:
            from snapshots import purge

            purge.forget_state(self._db, self._disk, self.cache_dir, state_key, tokens)
            raise

    def save_from(self, state_key: str, tokens: Sequence[int]) -> int:
        """From which token `save_state` wants chunks; len(tokens) where every segment is there already.

        Where this save completes a block, the whole block is wanted, so that it becomes one segment.
        """
        return self._files().save_from(state_key, tokens)

    def load_state(self, state_key: str, tokens: Sequence[int]) -> LoadedState:
        """The longest prefix of `tokens` whose segments are whole, with the logits where all of it is.

        Never fails for files that are missing or damaged: they end the prefix. The arrays are read-only.
        """
        return self._files().load(state_key, tokens)

    def longest_prefix(self, state_key: str, tokens: Sequence[int]) -> int:
        """How many of these tokens have segments on disk, of whatever conversation. Looks at names, opens no file."""
        return self._files().longest_prefix(state_key, tokens)

    def node_states(self, node_id: str) -> list[NodeState]:
        """The derived state rows of a node, one a state_key. A row that fails its digest is left out."""
        with self._db.read() as tx:
            return states.node_states(tx, node_id)

    def verify_files(self, node_id: str, state_key: str | None = None) -> FileCheck:
        """Read and decode every file of a node's state (of its own model unless given). Raises UnknownNode."""
        with self._db.read() as tx:
            nodes = tree.path(tx, node_id)
        return states.verify_files(self._files(), nodes, state_key or nodes[-1].state_key)

    def stats(self) -> Stats:
        """Counts and bytes; walks the cache directory."""
        facts = self._disk.facts(self._db.path)
        with self._db.read() as tx:
            return states.stats(tx, self._files(), facts.st_size if facts is not None else 0)

    def _files(self) -> Bundles:
        with self._opening:
            if self._bundles is None:
                from snapshots.bundles import Bundles

                self._bundles = Bundles(self.cache_dir, self.data_dir, self._disk)
            return self._bundles

    # ----------------------------------------------------------------------------------------------------- journals

    def begin_journal(self, start: ReplyStart) -> Journal:
        """Begin the journal of a reply: append to it as tokens come, hand it to `add_node` at the end."""
        return self._journals.begin(start)

    def dead_replies(self) -> list[DeadReply]:
        """Replies whose process died, newest first. Those of running processes are never among them."""
        return self._journals.dead()

    def replies_elsewhere(self) -> list[ReplyStart]:
        """What replies started from that other processes are writing at this moment, in no order."""
        return self._journals.elsewhere()

    def adopt_reply(self, journal_id: str) -> tuple[DeadReply, Journal]:
        """Take a dead reply over: its journal goes on from where it was. Raises JournalGone."""
        return self._journals.adopt(journal_id)

    def discard_reply(self, journal_id: str) -> None:
        """Throw a dead reply away. Raises JournalGone where another process took it over."""
        self._journals.discard(journal_id)
