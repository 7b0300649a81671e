"""Looks twice a second whether another process changed the library, and once an hour whether a backup is due.

What the library could not take (a full disk) is offered to it again every second.

A thread of its own: SQLite's locks are waited for here, never on the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread

from textual.message import Message

from app.chat import Chat
from app.sentences import sentence

LOOK_S = 0.4
CATCH_UP_S = 1.0
BACKUP_AFTER_S = 5.0
BACKUP_EVERY_S = 3600.0


@dataclass
class LibraryChanged(Message):
    """Another process committed something."""


@dataclass
class BackupFailed(Message):
    """The daily copy could not be made or is not whole; `sentence` says why."""

    sentence: str


class Watcher:
    """Polls one chat's library until `stop`."""

    def __init__(self, chat: Chat, post: Callable[[Message], object]) -> None:
        self._chat, self._post = chat, post
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="library-watcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End looking; what runs ends by itself."""
        self._stopped.set()

    def _run(self) -> None:
        seen = self._look()
        backup_at = time.monotonic() + BACKUP_AFTER_S
        catch_up_at = 0.0
        while not self._stopped.wait(LOOK_S):
            now = self._look()
            if now is not None and now != seen:
                seen = now
                self._post(LibraryChanged())
            if time.monotonic() > catch_up_at:
                self._catch_up()
                catch_up_at = time.monotonic() + CATCH_UP_S
            if time.monotonic() > backup_at:
                backup_at = time.monotonic() + BACKUP_EVERY_S
                self._back_up()

    def _look(self) -> int | None:
        """The count of other processes' changes, or None where it cannot be read just now."""
        try:
            return self._chat.outside_changes()
        except Exception:  # a busy or failing moment must not end the watch: the next look comes soon
            return None

    def _catch_up(self) -> None:
        with suppress(Exception):  # the chat says what keeps it from being written, and the next time comes soon
            self._chat.catch_up()

    def _back_up(self) -> None:
        try:
            self._chat.back_up()
        except Exception as error:
            if not self._stopped.is_set():
                self._post(BackupFailed(f"There is no backup of today: {sentence(error)}"))
