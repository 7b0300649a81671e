"""What can go wrong in the app itself, as types that carry fields; `app.sentences` makes the sentences."""

from __future__ import annotations


class AppError(Exception):
    """Base of every error that the app raises on purpose."""


class NoModel(AppError):  # noqa: N818 - the names say what is the case
    """Something needs a model and none is open or found."""

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class NothingToDo(AppError):  # noqa: N818
    """The action has nothing to act on; `why` is a whole sentence for a person."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class TooLong(AppError):  # noqa: N818
    """A message does not fit: `needed` tokens in a context of `limit`."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(needed, limit)
        self.needed = needed
        self.limit = limit


class OtherModel(AppError):  # noqa: N818
    """A savepoint was made with another model; `fields` names what differs."""

    def __init__(self, name: str, fields: tuple[str, ...], saved_with: str) -> None:
        super().__init__(name, fields, saved_with)
        self.name = name
        self.fields = fields
        self.saved_with = saved_with


class Cancelled(AppError):  # noqa: N818
    """A person stopped it before it had a result."""


class BadInput(AppError):  # noqa: N818
    """Something that was passed in cannot be used: `what` names it, `why` says why."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why
