"""The library: one object for everything that is saved. Text and tokens in the data dir, states in the cache dir."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from snapshots import actions, backups, find, heads, history, names, purge, refs, tree
from snapshots.database import Database
from snapshots.errors import LibraryIsNewer, StoreError, UnknownNode
from snapshots.exports import Exports
from snapshots.files import Files
from snapshots.journal import Journal
from snapshots.kept_files import KeptFiles
from snapshots.records import (
    Action,
    ActionKind,
    Conversation,
    Glance,
    HeadMove,
    Hit,
    Message,
    ModelInfo,
    Node,
    Position,
    Purge,
    Ref,
    Savepoint,
    Twig,
)
from snapshots.space import Space


class Library(KeptFiles, Exports, Space):
    """A library of conversations. Every method is safe to call from any thread of the process.

    Every change is one transaction and is on disk when the method returns. Beside the errors named at each method,
    changes raise StoreFull (no space), StoreBusy (another process held the lock too long), StoreReadOnly, and anything
    may raise LibraryDamaged. `node_id` is always a full id; `resolve` makes one of what a person typed.
    """

    @classmethod
    def open(cls, data_dir: Path, cache_dir: Path, *, files: Files | None = None) -> Library:
        """Open the library, making it and its directories (0700) where missing.

        A library of a newer format opens read-only where this program can still read it (`read_only_reason` tells),
        else LibraryIsNewer is raised with both versions. Raises LibraryDamaged where tree.db is not a database.
        `files` stands in for the file system in tests of faults.
        """
        library = cls(Database.open(Path(data_dir), files), Path(data_dir), Path(cache_dir), files)
        if not library.read_only:
            with contextlib.suppress(StoreError):  # the mark stays: the next one who opens it tries again
                purge.finish(library._db, library._journals, library._disk, library.data_dir, library.cache_dir)
        return library

    @classmethod
    def in_memory(cls) -> Library:
        """Make an empty library that lives in this process's memory alone: conversations, names and the log.

        It has no place for files: `save_state` and `begin_journal` raise StoreError.
        """
        nowhere = Path(os.devnull) / "library in memory"
        return cls(Database.in_memory(), nowhere, nowhere)

    def close(self) -> None:
        """Close the database. Journals of replies in flight stay as they are."""
        if self._bundles is not None:
            self._bundles.close()
        self._db.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def read_only(self) -> bool:
        """True where changes raise StoreReadOnly."""
        return self._db.read_only is not None

    @property
    def read_only_reason(self) -> str | None:
        """Why the library is read-only, or None. A LibraryIsNewer gives its two versions through `newer`."""
        return str(self._db.read_only) if self._db.read_only else None

    @property
    def newer(self) -> LibraryIsNewer | None:
        """The two format versions, where the library is newer than the program."""
        return self._db.read_only if isinstance(self._db.read_only, LibraryIsNewer) else None

    def changes(self) -> int:
        """A number that differs after any commit, of this process or another: poll it to know when to look again."""
        return self._db.changes()

    def outside_changes(self) -> int:
        """A number that differs after a commit of another process. Never waits: meant to be polled twice a second."""
        return self._db.outside_changes()

    def back_up(self, *, now: bool = False) -> bool:
        """Copy tree.db where a day has passed since the last copy and something changed (`now`: in any case).

        The copy is read and checked before the oldest of five is let go. Gives whether one was made. Raises StoreError.
        """
        return backups.back_up(self._db, self.data_dir, self._disk, now=now)

    # ------------------------------------------------------------------------------------------------ conversations

    def new_conversation(self, title: str = "", *, template_date: str = "") -> Conversation:
        """Begin an empty conversation under a random id; it becomes the last used one."""
        with self._db.write() as tx:
            return tree.insert_conversation(tx, title, template_date)

    def conversations(self) -> list[Conversation]:
        """All conversations that are not deleted, the last used first."""
        with self._db.read() as tx:
            return tree.conversations(tx)

    def conversation(self, conversation_id: str) -> Conversation:
        """One conversation. Raises UnknownConversation."""
        with self._db.read() as tx:
            return tree.conversation(tx, conversation_id)

    def set_title(self, conversation_id: str, title: str, *, undoable: bool = True) -> None:
        """Change a title; `undoable=False` for titles that the app gives by itself. Raises UnknownConversation."""
        with self._db.write() as tx:
            actions.set_title(tx, conversation_id, title, undoable=undoable)

    def delete_conversation(self, conversation_id: str) -> Action:
        """Hide a conversation with all its nodes, undoably. Raises UnknownConversation."""
        with self._db.write() as tx:
            return actions.delete_conversation(tx, conversation_id)

    # -------------------------------------------------------------------------------------------------------- nodes

    def add_node(
        self,
        conversation_id: str,
        parent_id: str | None,
        message: Message,
        *,
        state_key: str = "",
        window: str = "",
        move_head: bool = True,
        journal: Journal | None = None,
    ) -> Node:
        """Commit a message behind `parent_id` (None: a root) and move the conversation's head to it.

        The same content behind the same parent is the same node: adding it again returns it (and brings it back if it
        was deleted). A reply behind the head joins the message before it into one turn for `undo`. `journal` is the
        journal of this reply: it is finished in the same transaction and its file removed, so that a crash leaves
        either the journal or the node. Raises UnknownConversation, UnknownNode, BadNode(field, why).
        """
        with self._db.write() as tx:
            node = actions.add_node(
                tx, conversation_id, parent_id, message, state_key=state_key, window=window, move_head=move_head
            )
            if journal is not None:
                self._journals.mark_finished(tx, journal)
        if journal is not None:
            journal.discard()
        return node

    def node(self, node_id: str) -> Node:
        """One node, checked against its id. Raises UnknownNode, DamagedNode."""
        with self._db.read() as tx:
            return tree.node(tx, node_id)

    def glance(self, node_id: str) -> Glance:
        """What a list shows of a node, hidden or not; unchecked, so damage does not hide it. Raises UnknownNode."""
        with self._db.read() as tx:
            return tree.glance(tx, node_id)

    def glances(self, node_ids: Iterable[str]) -> dict[str, Glance]:
        """As `glance`, of several nodes at one moment; those that are gone are left out."""
        found: dict[str, Glance] = {}
        with self._db.read() as tx:
            for node_id in node_ids:
                with contextlib.suppress(UnknownNode):
                    found[node_id] = tree.glance(tx, node_id)
        return found

    def path(self, node_id: str | None) -> list[Node]:
        """The nodes from the root to this one, each checked; [] for None. Raises UnknownNode, DamagedNode."""
        with self._db.read() as tx:
            return tree.path(tx, node_id)

    def tokens(self, node_id: str | None) -> list[int]:
        """The whole token list at a node: each node's tokens behind the kept ones of its parent. [] for None."""
        return tree.tokens_of(self.path(node_id))

    def children(self, conversation_id: str, node_id: str | None) -> list[Node]:
        """The live nodes behind a node (None: the roots of the conversation), oldest first."""
        with self._db.read() as tx:
            return tree.children(tx, conversation_id, node_id)

    def siblings(self, node_id: str) -> list[Node]:
        """The live nodes with the same parent and role, this one among them, oldest first: ‹ 2/3 ›."""
        with self._db.read() as tx:
            return tree.siblings(tx, node_id)

    def newest_leaf(self, node_id: str) -> Node:
        """Where a switch to this branch should land: the newest child of the newest child …, or the node itself."""
        with self._db.read() as tx:
            return tree.newest_leaf(tx, node_id)

    def tree(self, conversation_id: str, *, deleted: bool = False) -> list[Twig]:
        """A conversation's nodes, parents before children, first branch first. No token is read. Cheap."""
        with self._db.read() as tx:
            return tree.twigs(tx, conversation_id, deleted=deleted)

    def turn_back(self, node_id: str, turns: int = 1) -> str | None:
        """The node at the end of the turn `turns` before this one's; None is the empty start of the conversation.

        Raises UnknownRef where there are fewer turns.
        """
        with self._db.read() as tx:
            return refs.turn_back(tx, node_id, turns)

    def delete_forever(self, node_id: str) -> Purge:
        """Forget a node, hidden or not, and all behind it: text, index, prompts, log, journals, copies, states.

        Nothing brings it back. States that other messages share stay with them. Raises UnknownNode.
        """
        return purge.purge(self._db, self._journals, self._disk, self.data_dir, self.cache_dir, node_id)

    def find(self, text: str, limit: int = 50) -> list[Hit]:
        """Messages that hold all words of a text, newest first; savepoints and conversations called so come before."""
        return find.find(self._db, text, limit)

    def index_text(self) -> None:
        """Let the full-text index catch up, in the background say: the next search need not."""
        find.catch_up(self._db)

    def delete(self, node_id: str, *, window: str = "") -> Action:
        """Hide a node and all behind it, undoably; a head inside moves to the nearest node that is left."""
        with self._db.write() as tx:
            return actions.delete(tx, node_id, window)

    # -------------------------------------------------------------------------------------------- heads and windows

    def move_head(
        self, conversation_id: str, node_id: str | None, *, action: ActionKind = "restore", window: str = ""
    ) -> Action:
        """Stand somewhere else (restore, fork, back): nothing is written to the tree until the next message."""
        with self._db.write() as tx:
            return actions.move_head(tx, conversation_id, node_id, action, window)

    def head_log(self, conversation_id: str, limit: int = 50) -> list[HeadMove]:
        """Where the head was, newest first."""
        with self._db.read() as tx:
            return heads.head_log(tx, conversation_id, limit)

    def set_position(self, position: Position, *, window: str = "") -> None:
        """Remember where a window stands; its conversation becomes the last used one. Not an action, not undone.

        The window "" is that of people: it says what opens at the start, and where its conversation opens again.
        """
        with self._db.write() as tx:
            heads.set_position(tx, position, window)

    def start_position(self, *, window: str = "") -> Position | None:
        """Where a window should open: its own last position, else the head of the last used conversation, else None."""
        with self._db.read() as tx:
            return heads.start_position(tx, window)

    def place_in(self, conversation_id: str, mine: Position | None = None) -> Position:
        """Where a person left a conversation last, in whatever window; where it was never left, its head.

        `mine` is where the asking window itself left it, and goes before. Moved up from what is hidden by now.
        """
        with self._db.read() as tx:
            return heads.standing(tx, mine) if mine is not None else heads.place_in(tx, conversation_id)

    # -------------------------------------------------------------------------------------------------------- names

    def set_name(self, name: str, node_id: str, *, force: bool = False) -> Action:
        """Name a node. Raises BadName(why); NameTaken where it names another live node and `force` is not set."""
        with self._db.write() as tx:
            return names.set_name(tx, name, node_id, force=force)

    def rename(self, old: str, new: str, *, force: bool = False) -> Action:
        """Give a savepoint another name. Raises UnknownName, BadName, NameTaken."""
        with self._db.write() as tx:
            return names.rename(tx, old, new, force=force)

    def remove_name(self, name: str) -> Action:
        """Take a name off; the node stays. Raises UnknownName."""
        with self._db.write() as tx:
            return names.remove_name(tx, name)

    def savepoints(self) -> list[Savepoint]:
        """All names on live nodes, the last moved first."""
        with self._db.read() as tx:
            return names.savepoints(tx)

    def names_of(self, node_id: str) -> list[str]:
        """The names of one node, oldest first."""
        with self._db.read() as tx:
            return names.names_of(tx, node_id)

    def nearest_name(self, node_id: str | None) -> str | None:
        """The name that tells where one is: of this node or the nearest one above it."""
        with self._db.read() as tx:
            return names.nearest_name(tx, node_id)

    def quicksave(self, node_id: str) -> None:
        """Move the conversation's `quick` label here; the last ten places are kept. Not an action, not undone."""
        with self._db.write() as tx:
            names.quicksave(tx, node_id)

    def quicksaves(self, conversation_id: str) -> list[str]:
        """Node ids of the conversation's last ten live quicksaves, newest first."""
        with self._db.read() as tx:
            return names.quicksaves(tx, conversation_id)

    def resolve(self, ref: str, *, conversation_id: str | None = None) -> Ref:
        """What a person means: a name, `quick`, `HEAD`, an id prefix of 4+ digits; then `~n` or `@n`.

        `quick` and `HEAD` are those of `conversation_id`, by default of the last used conversation. Raises
        UnknownRef(nearest, why) and AmbiguousRef(candidates).
        """
        with self._db.read() as tx:
            return refs.resolve(tx, ref, conversation_id)

    # --------------------------------------------------------------------------------------------------------- undo

    def undo(self, conversation_id: str | None = None, *, window: str = "") -> Action:
        """Reverse the last action of a conversation (None: of the library) and return it. Raises NothingToUndo.

        An undone turn's nodes are hidden too, unless a name or another branch hangs on them.
        """
        with self._db.write() as tx:
            return actions.undo(tx, conversation_id, window)

    def redo(self, conversation_id: str | None = None, *, window: str = "") -> Action:
        """Do the last undone action again. A new action forgets those that were undone. Raises NothingToUndo."""
        with self._db.write() as tx:
            return actions.redo(tx, conversation_id, window)

    # ---------------------------------------------------------------------------------------------- prompts, models

    def add_prompt(self, text: str) -> None:
        """Remember what was typed, once; the newest 2,000 are kept."""
        with self._db.write() as tx:
            history.add_prompt(tx, text)

    def prompts(self, query: str = "", limit: int = 200) -> list[str]:
        """Prompts that contain `query` (any case), newest first."""
        with self._db.read() as tx:
            return history.prompts(tx, query, limit)

    def remember_model(self, model: ModelInfo) -> None:
        """Store what is known of a model under its state_key; writes only if something changed."""
        with self._db.read() as tx:
            if history.model_info(tx, model.state_key) == model:
                return
        with self._db.write() as tx:
            history.remember_model(tx, model)

    def model_info(self, state_key: str) -> ModelInfo | None:
        """What was remembered of a model, or None."""
        with self._db.read() as tx:
            return history.model_info(tx, state_key)

    def remembered_settings(self) -> Mapping[str, str]:
        """Small values that the app keeps beside the tree (see `remember_setting`)."""
        with self._db.read() as tx:
            return history.settings(tx)

    def remember_setting(self, key: str, value: str) -> None:
        """Keep a small value, such as the model that was used last."""
        with self._db.write() as tx:
            history.remember_setting(tx, key, value)
