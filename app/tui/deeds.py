"""What each command of the registry does: functions by the command's name, registered by the do_*.py modules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from app.commands import BY_NAME

if TYPE_CHECKING:
    from app.tui.chat_screen import ChatScreen

Deed = Callable[["ChatScreen", str], Awaitable[None]]
DEEDS: dict[str, Deed] = {}


def deed(name: str) -> Callable[[Deed], Deed]:
    """Register a coroutine `(screen, argument)` as what the command `name` does."""
    assert name in BY_NAME, name

    def register(function: Deed) -> Deed:
        DEEDS[name] = function
        return function

    return register
