"""The tokens of a session: a list that only grows at its end, and that forks at no cost however long it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class _Store:
    """Memory that lists with the same beginning share: ids int64, of which the first `used` belong to some list."""

    __slots__ = ("ids", "used")

    def __init__(self, ids: Ids, used: int) -> None:
        self.ids, self.used = ids, used


class TokenList(Sequence[int]):
    """A sequence of ids, equal to any other sequence of the same ids. Mutable at its end only: `extend`, `truncate`.

    A fork shares the memory; whoever extends a beginning that another list has extended already copies it first.
    """

    __slots__ = ("_length", "_store")

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._store = _Store(np.array(list(ids), np.int64), 0)
        self._length = self._store.used = len(self._store.ids)

    def fork(self) -> TokenList:
        """An independent list of the same ids."""
        other = TokenList.__new__(TokenList)
        other._store, other._length = self._store, self._length
        return other

    def extend(self, ids: Sequence[int]) -> None:
        """Add ids at the end."""
        store, end = self._store, self._length + len(ids)
        if store.used != self._length or end > len(store.ids):
            room = np.empty(64 + end + end // 4, np.int64)
            room[: self._length] = store.ids[: self._length]
            store = self._store = _Store(room, self._length)
        store.ids[self._length : end] = ids
        self._length = store.used = end

    def truncate(self, n: int) -> None:
        """Forget the ids from n on."""
        self._length = min(self._length, n)

    def last(self, count: int) -> Ids:
        """The last `count` ids (all for a negative count), int64; a view that must not be written."""
        first = 0 if count < 0 else max(0, self._length - count)
        return self._store.ids[first : self._length]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The ids for NumPy, int64 unless another type is asked for; a view must not be written."""
        return np.array(self.last(-1), dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> list[int]: ...
    def __getitem__(self, at: int | slice) -> int | list[int]:
        """One id as an int, or several as a list."""
        ids = self._store.ids[: self._length]
        if isinstance(at, slice):
            found: list[int] = ids[at].tolist()
            return found
        return int(ids[at])

    def __iter__(self) -> Iterator[int]:
        return iter(self._store.ids[: self._length].tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(other) == self._length and list(other) == list(self)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"TokenList({list(self)})"
