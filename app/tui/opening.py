"""The screen in front of the chat's, for as long as the library cannot be opened: another process works in it.

The library is opened in a thread. It takes a few milliseconds, and then nothing of this is seen; but nobody looks at an
empty terminal where it takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from signal import Signals
from threading import Event, Thread
from time import monotonic
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Middle
from textual.content import Content
from textual.widgets import Static

from app.chat import Chat
from app.tui import ending
from app.tui.themes import OWN_THEMES, first_known

UNSEEN_S = 0.25  # how long the library may take before something is painted
LOOK_S = 0.05
WAITING = "The library is busy: another forkpoint works in it. This window opens as soon as it can."


class Opening:
    """Opens a chat in a thread and keeps what came of it."""

    def __init__(self, opens: Callable[[], Chat]) -> None:
        self._opens = opens
        self._chat: Chat | None = None
        self._error: BaseException | None = None
        self._done = Event()
        Thread(target=self._run, name="opening", daemon=True).start()

    def _run(self) -> None:
        try:
            self._chat = self._opens()
        except BaseException as error:  # raised again where somebody waits for it
            self._error = error
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Wait; gives whether it is over."""
        return self._done.wait(seconds)

    def chat(self) -> Chat:
        """Give the chat; call it when `wait` gave True. Raises what opening it raised."""
        if self._error is not None:
            raise self._error
        assert self._chat is not None
        return self._chat


class OpeningApp(App[bool]):
    """Says what is waited for. Ends with True when that is over, with None when the person leaves."""

    CSS = """
    Screen { background: $background; }
    #top { height: 1; padding: 0 1; background: $panel; }
    Middle { width: 100%; }
    #words { width: 100%; text-align: center; padding: 0 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q,escape", "quit", "Leave", show=False, priority=True, system=True)
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, opening: Opening, themes: Sequence[str | None]) -> None:
        super().__init__()
        self._opening = opening
        self._began = monotonic()
        self.ended_by: Signals | None = None
        self.insist: Callable[[], None] = lambda: None
        for own in OWN_THEMES:
            self.register_theme(own)
        self.theme = first_known(themes, self.available_themes)

    def compose(self) -> ComposeResult:
        """The top line as the chat's, the words in the middle."""
        yield Static(Content.styled("● forkpoint", "$accent bold"), id="top")
        with Middle():
            yield Static("", id="words")

    def on_mount(self) -> None:
        """Look often: the chat is what people wait for."""
        if not self.is_headless:
            ending.hear(self._end_by)
        self._paint()
        self.set_interval(LOOK_S, self._look)
        self.set_interval(1.0, self._paint)

    def _end_by(self, number: Signals) -> None:
        self.ended_by = number
        self.insist()
        self.exit()

    def _look(self) -> None:
        if self._opening.wait(0):
            self.exit(True)

    def _paint(self) -> None:
        waited = f"{monotonic() - self._began + UNSEEN_S:.0f} s"
        words = Content.assemble(WAITING, "\n", (f"{waited} · Ctrl+C leaves", "$text-muted"))
        self.query_one("#words", Static).update(words)


def open_patiently(opens: Callable[[], Chat], themes: Sequence[str | None]) -> Chat | None:
    """Open a chat, saying what is waited for where that takes long; None where the person left meanwhile.

    Raises what opening raises.
    """
    opening = Opening(opens)
    if not opening.wait(UNSEEN_S):
        app = OpeningApp(opening, themes)
        with ending.insisting(lambda: None) as app.insist:
            opened = app.run()
        if app.ended_by is not None:
            ending.die_of(app.ended_by)
        if not opened:
            return None
    return opening.chat()
