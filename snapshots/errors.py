"""What can go wrong in the store, as types that carry fields; the app makes the sentences."""

# ruff: noqa: N818 - the names say what is wrong with what; "Error" behind each would say nothing more

from __future__ import annotations

from pathlib import Path


class StoreError(Exception):
    """Base of every error that the store raises on purpose. `path` is the file concerned, where there is one."""

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class StoreFull(StoreError):
    """No space, no quota or a file size limit: nothing that was committed before is lost."""


class StoreBusy(StoreError):
    """Another process held the library's lock longer than `waited_s` seconds."""

    def __init__(self, waited_s: float, *, path: Path | None = None) -> None:
        super().__init__(f"the library is busy (waited {waited_s:.0f} s)", path=path)
        self.waited_s = waited_s


class StoreReadOnly(StoreError):
    """A change was asked of a library that can only be read; `reason` says why."""

    def __init__(self, reason: str, *, path: Path | None = None) -> None:
        super().__init__(f"the library is read-only: {reason}", path=path)
        self.reason = reason


class LibraryIsNewer(StoreReadOnly):
    """The library was written by a newer program: format `found`, this program writes `supported`."""

    def __init__(self, found: int, supported: int, *, path: Path | None = None) -> None:
        super().__init__(f"its format is {found}, this program writes {supported}", path=path)
        self.found = found
        self.supported = supported


class LibraryDamaged(StoreError):
    """`tree.db` is not a database, or SQLite finds it malformed."""


class DamagedNode(StoreError):
    """A node's row no longer agrees with its id, which is the digest of its content."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"savepoint {str(node_id)[:12]} is damaged")
        self.node_id = node_id


class UnknownConversation(StoreError):
    """No conversation has this id (or it was deleted)."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(f"no conversation {str(conversation_id)[:12]}")
        self.conversation_id = conversation_id


class UnknownNode(StoreError):
    """No node has this id."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"no savepoint {str(node_id)[:12]}")
        self.node_id = node_id


class BadNode(StoreError):
    """A node cannot be what was asked: `field` says which of its fields, `why` what is wrong with it."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


class UnknownRef(StoreError):
    """A REF names nothing. `nearest` holds the most similar names; `why` is set where part of the REF was found."""

    def __init__(self, ref: str, nearest: tuple[str, ...] = (), why: str = "") -> None:
        super().__init__(f"no savepoint {ref!r}" + (f": {why}" if why else ""))
        self.ref = ref
        self.nearest = nearest
        self.why = why


class AmbiguousRef(StoreError):
    """An id prefix fits several nodes; `candidates` holds up to ten of their ids."""

    def __init__(self, ref: str, candidates: tuple[str, ...]) -> None:
        super().__init__(f"{ref!r} fits several savepoints")
        self.ref = ref
        self.candidates = candidates


class BadName(StoreError):
    """A name breaks a rule: `why` is one of the phrases of `snapshots.names.check_name`."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the name {name!r} {why}")
        self.name = name
        self.why = why


class NameTaken(StoreError):
    """The name belongs to another node; moving it needs `force`."""

    def __init__(self, name: str, node_id: str) -> None:
        super().__init__(f"the name {name!r} is taken")
        self.name = name
        self.node_id = node_id


class UnknownName(StoreError):
    """No savepoint has this name. `nearest` holds the most similar names."""

    def __init__(self, name: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(f"no name {name!r}")
        self.name = name
        self.nearest = nearest


class NothingToUndo(StoreError):
    """The log holds no action to reverse (or, for redo, none that was reversed)."""

    def __init__(self, redo: bool = False) -> None:
        super().__init__("nothing to redo" if redo else "nothing to undo")
        self.redo = redo


class JournalGone(StoreError):
    """A dead journal was adopted or discarded by another process in the meantime."""


class DamagedFile(StoreError):
    """A file of the cache fails its own checks: `why` says which. Never fatal: the state is recomputed."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path.name}: {why}", path=path)
        self.why = why


class BadExport(StoreError):
    """A file that was to be imported is not one of ours, or damaged, or hostile: `why` says what it is or does."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
