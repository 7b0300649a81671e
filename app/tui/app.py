"""The Textual application: themes, Ctrl+C, and the one screen. `run_tui` is the way in."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath
from threading import Thread
from time import monotonic
from typing import ClassVar

from rich.text import Text
from textual.app import App
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.screen import ModalScreen
from textual.widgets import Input, TextArea
from textual.worker import WorkerFailed

from app.chat import Chat, open_chat
from app.config import TuiOptions, load_config
from app.engine_protocol import Engine
from app.sentences import exit_code, sentence
from app.tui import ending
from app.tui.bridge import Bridge
from app.tui.chat_screen import TALL, ChatScreen
from app.tui.opening import open_patiently
from app.tui.palette import Commands
from app.tui.plain import plain
from app.tui.themes import DEFAULT_THEME, OWN_THEMES, first_known, remembered_theme

AGAIN_S = 2.5  # a second Ctrl+C within this time quits
PATIENCE_S = 0.5  # how long leaving waits for a model that is just being opened, or given back
STYLES: list[str | PurePath] = sorted(Path(__file__).parent.glob("*.tcss"))


class ForkpointApp(App[None]):
    """Holds what is above the screen."""

    TITLE = "forkpoint"
    CSS_PATH = STYLES
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {Commands}
    COMMAND_PALETTE_BINDING = "ctrl+p"
    VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL, "-tall")]  # noqa: RUF012 - declared by App
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", "Stop, copy, clear or quit", show=False, priority=True, system=True)
    ]

    def __init__(self, chat: Chat, bridge: Bridge, options: TuiOptions, theme: str | None = None) -> None:
        super().__init__()
        self.chat = chat
        self._bridge = bridge
        self._options = options
        self._wanted_themes = (theme, remembered_theme())
        self._interrupted_at = 0.0
        self.ended_by: signal.Signals | None = None
        self.insist: Callable[[], None] = lambda: None
        for own in OWN_THEMES:
            self.register_theme(own)

    def get_default_screen(self) -> ChatScreen:
        """The chat is the only screen that is always there."""
        return ChatScreen(self.chat, self._bridge, self._options)

    def on_mount(self) -> None:
        """Put the colours on; an unknown theme in the config file is said, and the one before stays."""
        if not self.is_headless:
            ending.hear(self._end_by)
        wanted = [name for name in (*self._wanted_themes, DEFAULT_THEME) if name]
        self.theme = first_known(wanted, self.available_themes)
        if wanted[0] != self.theme:
            words = f"There is no theme “{plain(wanted[0])}”: the colours stay as they were. /theme shows all."
            self.notify(words, severity="warning", timeout=9, markup=False)

    def on_ready(self) -> None:
        """Behind the first paint: have Python's collector pass over what is there now, for it stays.

        Looking through modules and styles takes 40 ms and more, in which no key is taken.
        """
        gc.freeze()

    def on_unmount(self) -> None:
        """Nothing stays behind the app."""
        gc.unfreeze()

    def _end_by(self, number: signal.Signals) -> None:
        """The window is closed, or the machine goes down: leave as by /quit, so that the terminal is as it was."""
        self.ended_by = number
        self.insist()
        self.exit()

    @property
    def chat_screen(self) -> ChatScreen:
        """The chat, also while a modal lies over it."""
        return next(screen for screen in self.screen_stack if isinstance(screen, ChatScreen))

    def action_interrupt(self) -> None:
        """Ctrl+C: stop a reply; else copy what is selected; else clear the draft; else quit, at the second time."""
        chat_screen = self.chat_screen
        now, before = monotonic(), self._interrupted_at
        self._interrupted_at = 0.0
        if chat_screen.stoppable:
            chat_screen.stop()
        elif selected := self._selected_text():
            self.copy_to_clipboard(selected)
            chat_screen.toast("Copied.")
        elif isinstance(self.screen, ModalScreen):
            self.screen.dismiss(None)
        elif chat_screen.prompt.text:
            chat_screen.editing = None
            chat_screen.prompt.put("")
            chat_screen.paint_prompt()
        elif now - before < AGAIN_S:
            self.exit()
        else:
            self._interrupted_at = now
            chat_screen.toast("Ctrl+C again quits; everything is saved.")

    def _selected_text(self) -> str:
        focused = self.focused
        if isinstance(focused, (TextArea, Input)) and focused.selected_text:
            return focused.selected_text
        return self.screen.get_selected_text() or ""

    def _fatal_error(self) -> None:
        """A mistake of ours ends the app with a sentence; what was said is in the library."""
        error: BaseException | None = self._exception
        error = error.error if isinstance(error, WorkerFailed) else error
        words = sentence(error) if error is not None else "Something went wrong."
        if not self._exit_renderables:
            self._exit_renderables.append(Text(f"forkpoint had to stop: {words} The conversation is saved."))
        self._close_messages_no_wait()


def run_tui(options: TuiOptions, engine: Engine | None = None) -> int:
    """Open the library where it was left, show the chat, and give the exit code when the person leaves.

    Raises the typed errors of the config file and of the library, before the chat is painted.
    """
    config = load_config()
    bridge = Bridge()
    opens = partial(open_chat, bridge.emit, options, engine=engine)
    chat = open_patiently(opens, (config.theme, remembered_theme()))
    if chat is None:
        return 130
    app = ForkpointApp(chat, bridge, options, config.theme)
    try:
        with ending.insisting(partial(_close, chat)) as app.insist:
            app.run()
        code = app.return_code or 0
    except Exception:
        if app.ended_by is None:  # a terminal that is gone takes no farewell
            raise
        code = 1
    finally:
        bridge.disconnect()
        _close(chat)
    if chat.unwritten:
        what = "message" if chat.unwritten == 1 else f"{chat.unwritten} messages"
        words = f"The last {what} could not be written and went with this window. {sentence(chat.trouble)}"
        with suppress(OSError):
            print(words, file=sys.stderr)
        code = exit_code(chat.trouble)
    if app.ended_by is not None:
        ending.die_of(app.ended_by)
    return code


def _close(chat: Chat) -> None:
    """Give everything back. Who leaves waits for what was said to be on disk, and hardly for anything else.

    A compiler cannot be stopped, and arranged weights of a large model take a while to be copied to the disk: ending
    the process there loses nothing, for all that was ever sent is in the library, and the next start does it again.
    """
    closing = Thread(target=chat.close, daemon=True)
    opened = chat.model is not None
    closing.start()
    if opened:
        while closing.is_alive() and not chat.kept.wait(0.05):
            pass
    closing.join(PATIENCE_S)
    if closing.is_alive():
        if opened:
            print("The copy of the arranged weights was not finished: the next start makes it.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
