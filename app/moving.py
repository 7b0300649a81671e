"""Moving about in the tree: restore, fork, names, undo. A failed move leaves the live chat untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.chat_core import Core
from app.errors import NothingToDo
from app.events import PositionChanged, Restored, Saved, TreeChanged
from app.place import SETTINGS, UNSAVED
from app.sentences import counted
from snapshots import Action, NameTaken, Node, Ref, StoreError, UnknownName, UnknownRef
from snapshots.names import check_name

_UNDONE = {
    "turn": "The last turn is undone",
    "settings": "The settings are as they were",
    "restore": "Back to where you were before the restore",
    "fork": "Back to where you were before the fork",
    "back": "Back to where you were",
    "delete": "What was deleted is back",
    "name": "The name is taken back",
    "rename": "The old name is back",
    "unname": "The name is back",
    "import": "The import is taken back",
    "title": "The old title is back",
}


class Moving:
    """The part of a chat that saves, names and goes elsewhere."""

    def __init__(self, core: Core, settle_pending: Callable[[], None]) -> None:
        self._core = core
        self._settle_pending = settle_pending
        self._quick: tuple[int, int] = (-1, -1)  # (core.moves after the last quickload, its number)

    # ---- saving -------------------------------------------------------------------------------------------------

    def save(self, name: str, *, force: bool) -> None:
        """Name the live position."""

        def act(node: Node) -> None:
            self._core.library.set_name(name, node.id, force=force)
            self._told(node, name)

        self._at_node(act)

    def quicksave(self) -> None:
        """Move the quick label here."""

        def act(node: Node) -> None:
            self._core.library.quicksave(node.id)
            self._told(node, "quick")

        self._at_node(act)

    def _told(self, node: Node, name: str) -> None:
        self._core.emit(Saved(node.id, 0, name))
        self._core.emit(TreeChanged())

    def _at_node(self, act: Callable[[Node], None]) -> None:
        """Do something to the node of the live position: between two tokens of a running reply, at once otherwise."""
        core = self._core

        def act_in_library(node: Node) -> None:
            if node.id.startswith(UNSAVED):
                raise core.trouble
            act(node)

        with core.phase_lock:
            done = core.requests.ask(act_in_library) if core.decoding else None
        if done is not None:
            done.result()
            return
        node = core.place.node
        if core.busy and node is not None and core.place.cut is None and not node.id.startswith(UNSAVED):
            act(node)  # the prompt is being read: the question is in the tree already
            return
        with core.working():
            self._settle_pending()
            core.place.settle()
            node = core.place.node
            if node is None:
                raise NothingToDo("There is nothing to save yet.")
            if not node.id.startswith(UNSAVED):
                core.keep_settings()
                node = core.place.node or node
            act_in_library(node)
            core.save_state(node)

    # ---- going --------------------------------------------------------------------------------------------------

    def quickload(self) -> None:
        """Restore a quicksave: the newest, and the one before with every repetition."""
        core = self._core
        with core.interrupting():
            conversation = core.place.conversation
            saves = core.library.quicksaves(conversation.id) if conversation else []
            if conversation is None or not saves:
                raise NothingToDo("There is no quicksave in this conversation yet; F5 makes one.")
            self._leave()
            number = self._quick[1] + 1 if self._quick[0] == core.moves else 0
            number %= len(saves)
            core.go(conversation.id, saves[number], what=f"quicksave {number + 1} of {len(saves)}, /undo returns")
            self._quick = (core.moves, number)

    def restore(self, ref: str) -> Restored | None:
        """Make a savepoint live."""
        core = self._core
        with core.interrupting():
            found = self._resolve(ref)
            self._leave()
            return core.go(found.node.conversation_id, found.node.id, token=found.token, what=f"“{ref}”")

    def fork(self, name: str, ref: str | None) -> None:
        """Name a branch here or at `ref`, and go there."""
        core = self._core
        with core.interrupting():
            self._leave()
            found = self._resolve(ref) if ref is not None else None
            name = self._free_name(name, found)
            if found is not None:
                core.go(found.node.conversation_id, found.node.id, token=found.token, action="fork", what=f"“{ref}”")
            core.place.settle()
            core.keep_settings()
            if core.place.node is None:
                raise NothingToDo("There is nothing to fork yet.")
            core.library.set_name(name, core.place.node.id)
            self._told(core.place.node, name)

    def _free_name(self, name: str, found: Ref | None) -> str:
        """Refuse a name before anything moves. Raises BadName, NameTaken."""
        name = check_name(name)
        taken = next((s.node_id for s in self._core.library.savepoints() if s.name == name), None)
        here = self._core.place.node
        there = found.node.id if found is not None else here.id if here is not None else None
        if taken is not None and taken != there:
            raise NameTaken(name, taken)
        return name

    def rename(self, ref: str, name: str, *, force: bool) -> None:
        """Give a savepoint another name; one without a name gets its first."""
        core = self._core
        with core.working():
            try:
                core.library.rename(ref, name, force=force)
            except UnknownName:
                core.library.set_name(name, self._resolve(ref).node.id, force=force)
            core.emit(TreeChanged())

    def delete(self, ref: str) -> None:
        """Hide a node and what is behind it."""
        core = self._core
        with core.interrupting():
            self._leave()
            node = self._resolve(ref).node
            action = core.library.delete(node.id)
            if any(n.id == node.id for n in core.place.path):
                core.go(node.conversation_id, action.head_id, action=None, quiet=True)
            core.emit(TreeChanged())
            count = action.detail.get("nodes", 1)
            core.notice(f"Deleted {counted(count, 'message')}; /undo brings {'it' if count == 1 else 'them'} back.")

    def undo(self, *, redo: bool) -> None:
        """Reverse the last action, or do it again."""
        core = self._core
        with core.interrupting():
            self._leave()
            conversation_id = core.place.conversation.id if core.place.conversation else None
            action = core.library.redo(conversation_id) if redo else core.library.undo(conversation_id)
            kind = "settings" if self._only_settings(action) else action.kind
            self._follow(action)
            said = "Done again" if redo else _UNDONE.get(kind, "Undone")
            core.notice(f"{said}; /{'undo' if redo else 'redo'} reverses that.")

    def _only_settings(self, action: Action) -> bool:
        """Whether a turn was nothing but changed settings."""
        if action.kind != "turn" or action.detail.get("nodes") != 1:
            return False
        try:
            return self._core.library.node(action.detail["after"]).stop == SETTINGS
        except StoreError:
            return False

    def back(self, turns: int) -> None:
        """Step back in front of the last questions."""
        core = self._core
        with core.interrupting():
            self._leave()
            node, conversation = core.place.node, core.place.conversation
            if node is None or conversation is None:
                raise NothingToDo("This is the beginning.")
            try:
                there = core.library.turn_back(node.id, turns)
            except UnknownRef as error:  # a person named no place, only a number
                words = error.why.replace(" behind it", " to step back")
                raise NothingToDo(f"{words[:1].upper()}{words[1:]}.") from error
            core.go(conversation.id, there, action="back", what=f"{counted(turns, 'turn')} back")

    def new_conversation(self) -> None:
        """Be in an empty conversation, which is written with its first message."""
        core = self._core
        with core.interrupting():
            self._leave()
            core.place.stand(None, ())
            core.moves += 1
            core.take_over()
            core.dead = None
            core.emit(PositionChanged())
            core.emit(TreeChanged())

    def open_conversation(self, conversation_id: str) -> None:
        """Go where another conversation was left: by this window, else by the last one that was there."""
        core = self._core
        with core.interrupting():
            self._leave()
            conversation, place = core.library.conversation(conversation_id), core.place.left(conversation_id)
            token = place.token if core.bench.model is not None else None
            what = f"“{conversation.title or 'empty'}”"
            core.go(conversation_id, place.node_id, token=token, action=None, what=what)

    def _leave(self) -> None:
        """Write what hangs on the live position before anything else becomes it. Raises StoreError, unmoved."""
        self._settle_pending()
        self._core.place.leave()

    def _follow(self, action: Action) -> None:
        """Stand where an undone or redone action left the conversation's head."""
        core = self._core
        here = core.place.node.id if core.place.node else None
        conversation = core.place.conversation
        if action.head_id == here and (conversation is None or conversation.id == action.conversation_id):
            core.moves += 1
            core.emit(PositionChanged())
            core.emit(TreeChanged())
            return
        core.go(action.conversation_id, action.head_id, action=None, quiet=True)

    def _resolve(self, ref: str) -> Ref:
        conversation = self._core.place.conversation
        return self._core.library.resolve(ref, conversation_id=conversation.id if conversation else None)

    # ---- travelling ---------------------------------------------------------------------------------------------

    def export(self, path: Path) -> None:
        """Write the live path to a file; see Chat.export."""
        from app.travelling import document, write_file

        core = self._core
        core.place.leave()
        node = core.place.saved_node
        if node is None:
            raise NothingToDo("There is nothing to export yet.")
        kind = path.suffix.lower().removeprefix(".")
        if kind in ("md", "json"):
            pieces = document(core.library, node.id, "savepoint", kind)
        else:
            pieces = core.library.export(node.id)
        write_file(path.expanduser(), pieces, force=False, way_out="name another file")

    def import_file(self, path: Path) -> None:
        """Read an exported file; see Chat.import_file."""
        from app.travelling import import_checked, said

        core = self._core
        with core.working():
            with open(path.expanduser(), "rb") as stream:
                arrival, counts = import_checked(core.library, stream, str(path), engine=core.engine)
            core.emit(TreeChanged())
            core.notice(said(arrival, counts))
