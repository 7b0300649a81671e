"""The prompt: grows with what is written, sends with Enter, remembers what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.widgets import TextArea

from app.tui.plain import plain

NEW_LINE = {"ctrl+j", "shift+enter", "alt+enter"}


class Prompt(TextArea):
    """A multi-line text field. Up and Down at its edges walk through earlier messages; the draft is kept meanwhile."""

    @dataclass
    class Sent(Message):
        """Enter was pressed. The prompt is empty by now, so that the next keys belong to the next message.

        `line` is what was highlighted then in the list above; None where the person closed it.
        """

        text: str
        line: str | None

    class Edge(Message):
        """Up or Down was pressed where a list of completions may be open, or Tab. `key` says which."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self) -> None:
        super().__init__(
            id="prompt",
            placeholder="message…",
            compact=True,
            highlight_cursor_line=False,
            tab_behavior="focus",
            show_line_numbers=False,
        )
        self._past: list[str] = []
        self._place = 0
        self._draft = ""
        self.completed: str | None = ""  # the line that is highlighted above; None once the list was closed

    def remember(self, past: Sequence[str]) -> None:
        """Set what was sent before, oldest first; the same text twice in a row counts once."""
        self._past = [text for place, text in enumerate(past) if place == 0 or text != past[place - 1]]
        self._place = len(self._past)

    @property
    def past(self) -> Sequence[str]:
        """What was sent before, oldest first."""
        return self._past

    def put(self, text: str) -> None:
        """Replace the draft, cursor at its end; signs stand for what would act on the terminal."""
        self.text = plain(text)
        self.move_cursor(self.document.end)

    def give_back(self, text: str) -> None:
        """Put a text that could not be sent in front of what was typed since."""
        self.put("\n\n".join(filter(None, [text, self.text])))

    def remember_sent(self, text: str) -> None:
        """Add a text to what was sent."""
        if text.strip() and (not self._past or self._past[-1] != text):
            self._past.append(text)
        self._place = len(self._past)

    def _send(self) -> None:
        text, line = self.text, self.completed
        self.text = ""
        self._place = len(self._past)
        self._draft = ""
        self.post_message(self.Sent(text, line))

    async def _on_key(self, event: events.Key) -> None:
        key = event.key
        if key == "enter" or key in NEW_LINE:  # here and not as bindings: keys that come fast keep their order
            event.stop()
            event.prevent_default()
            if key == "enter":
                self._send()
            else:
                self._replace_via_keyboard("\n", *self.selection)
            return
        if self.completed and key in {"up", "down", "tab"}:
            event.stop()
            event.prevent_default()
            self.post_message(self.Edge(key))
            return
        if key == "up" and self.cursor_at_first_line and self._walk(-1):
            event.stop()
            event.prevent_default()
            return
        if key == "down" and self.cursor_at_last_line and self._walk(1):
            event.stop()
            event.prevent_default()
            return
        await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        """Paste as text only: what would act on a terminal later is taken out here."""
        event.stop()
        event.prevent_default()
        if result := self._replace_via_keyboard(plain(event.text), *self.selection):
            self.move_cursor(result.end_location)
            self.focus()

    def _walk(self, by: int) -> bool:
        place = self._place + by
        if not 0 <= place <= len(self._past):
            return False
        if self._place == len(self._past):
            self._draft = self.text
        self._place = place
        self.put(self._draft if place == len(self._past) else self._past[place])
        if by < 0:
            self.move_cursor((0, 0))
        return True
