"""The part of a library that exports and imports. What it needs for that is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from snapshots import tree
from snapshots.database import Database
from snapshots.files import Files
from snapshots.records import Arrival, Carried, ExportScope, Manifest, ModelInfo, Node, Origin

if TYPE_CHECKING:
    from snapshots.exchange import Readable

_IN_MEMORY = 1 << 24


class Exports:
    """Export and import of a library; what may be raised by every method is said at `Library`."""

    _db: Database
    _disk: Files
    data_dir: Path

    def export(
        self, node_id: str, scope: ExportScope = "savepoint", *, promised: Callable[[Node], bool] | None = None
    ) -> Iterator[bytes]:
        """The bytes of an export file, piece by piece. No lock is held between two pieces.

        Messages for which `promised` is true go without text and tokens, as a replay. Raises UnknownNode, DamagedNode.
        """
        from snapshots import carrying, exchange

        return exchange.write(carrying.records(self._db, node_id, scope, promised))

    def chosen(self, node_id: str, scope: ExportScope = "savepoint") -> list[Node]:
        """The messages that an export of that scope holds, parents first. Raises UnknownNode, DamagedNode."""
        from snapshots import carrying

        with self._db.read() as tx:
            return [tree.node(tx, each) for each in carrying.chosen(tx, tree.node(tx, node_id), scope)]

    def import_stream(
        self,
        stream: Readable,
        *,
        source: str = "",
        window: str = "",
        inspect: Callable[[Arrival], Mapping[str, str]] = lambda arrival: {},
    ) -> Arrival:
        """Put an export file's messages, names and claimed digests into the tree, in one transaction, undoably.

        The whole stream is read and checked before anything is written. Importing again changes nothing. `source` is
        kept as where the messages came from. `inspect` looks at what came before it is committed: it gives marks for
        messages (see `Origin`), or raises, and then nothing came. Raises BadExport, OSError of the stream.
        """
        from snapshots import carrying

        if self._db.read_only is not None:
            raise self._db.read_only.with_traceback(None)
        with self._checked(stream) as spool, self._db.write() as tx:
            arrival = carrying.put(tx, carrying.parse(spool), source, window)
            for node_id, checked in inspect(arrival).items():
                carrying.set_checked(tx, [node_id], checked)
            return arrival

    def import_parts(
        self, parts: Iterable[Manifest | ModelInfo | Carried], *, source: str = "", window: str = ""
    ) -> Arrival:
        """Put parts into the tree that `read_export` gave and that were completed since. Raises BadExport."""
        from snapshots import carrying

        with self._db.write() as tx:
            return carrying.put(tx, iter(parts), source, window)

    def read_export(self, stream: Readable) -> Iterator[Manifest | ModelInfo | Carried]:
        """What an export file holds, checked, without importing it. Raises BadExport."""
        from snapshots import carrying

        return carrying.parse(stream)

    @contextmanager
    def _checked(self, stream: Readable) -> Iterator[Readable]:
        """A copy of a stream that was checked to its end; a large one lies in a nameless file of the data dir."""
        from snapshots import carrying

        with self._disk.spool(self.data_dir, _IN_MEMORY) as spool:
            copying = _Copying(stream, spool)
            for _ in carrying.parse(copying):
                pass
            spool.seek(0)
            yield cast("Readable", spool)

    def origins(self, node_ids: Sequence[str]) -> dict[str, Origin]:
        """Where imported messages came from, by id; those that were made here are not in it."""
        from snapshots import carrying

        with self._db.read() as tx:
            return carrying.origins(tx, node_ids)

    def set_checked(self, node_ids: Sequence[str], checked: str) -> None:
        """Note what a check of imported messages gave (see `Origin`)."""
        from snapshots import carrying

        with self._db.write() as tx:
            carrying.set_checked(tx, node_ids, checked)


class _Copying:
    """A stream that keeps what is read of it."""

    def __init__(self, stream: Readable, copy: IO[bytes]) -> None:
        self._stream, self._copy = stream, copy

    def read(self, count: int) -> bytes:
        part = self._stream.read(count)
        self._copy.write(part)
        return part
