"""From the thread that works to the event loop: events are posted, the text of a reply in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from textual.message import Message

from app.events import Delta, Event


@dataclass
class ChatEvent(Message):
    """Something the chat reported; `text` is what the reply grew by just before it."""

    event: Event
    text: str = ""


@dataclass
class TextReady(Message):
    """The reply grew; `Bridge.take` has the text."""


class Bridge:
    """Takes events in any thread and posts them to one widget.

    Deltas gather until the screen takes them, about ten times a second: the screen shares its cores with the engine.
    An event carries the text in front of it, so that order is kept.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._text: list[str] = []
        self._waiting: list[Message] = []
        self._post: Callable[[Message], object] | None = None

    def connect(self, post: Callable[[Message], object]) -> None:
        """Send everything to `post` (a widget's `post_message`), first what came before anyone listened."""
        with self._lock:
            self._post = post
            waiting, self._waiting = self._waiting, []
        for message in waiting:
            post(message)

    def disconnect(self) -> None:
        """Drop what comes from now on: the loop is gone, and the thread that still works must not stumble over it."""
        self.connect(lambda message: None)

    def emit(self, event: Event) -> None:
        """Take an event, in the thread that works."""
        with self._lock:
            if isinstance(event, Delta):
                self._text.append(event.text)
                message: Message | None = TextReady() if len(self._text) == 1 else None
            else:
                message = ChatEvent(event, "".join(self._text))
                self._text.clear()
            post = self._post
            if post is None and message is not None:
                self._waiting.append(message)
        if post is not None and message is not None:
            post(message)

    def take(self) -> str:
        """Give the text that came since the last time."""
        with self._lock:
            text = "".join(self._text)
            self._text.clear()
        return text
