"""The one screen: header, tree, transcript, prompt, status line, and how they talk to the chat.

Down go calls of `Chat` in threads of their own (`job`), up come its events (`Reactions`). What commands do is in the
do_*.py modules; this file only wires.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import ClassVar, TypeVar

from textual import getters, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen, Screen
from textual.widgets import TextArea

from app.chat import Chat
from app.commands import COMMANDS, Completes, Parsed, parse
from app.config import TuiOptions
from app.events import ReplyStats
from app.sentences import sentence
from app.tui import do_model, do_savepoints, do_talk  # noqa: F401 - they register what commands do
from app.tui.bridge import Bridge, ChatEvent, TextReady
from app.tui.completion import Completion, completions
from app.tui.deeds import DEEDS
from app.tui.header import Header
from app.tui.jobs import JobDone, start
from app.tui.message_view import MessageView
from app.tui.offer import OfferView
from app.tui.plain import plain
from app.tui.prompt import Prompt
from app.tui.prompt_box import PromptBox
from app.tui.reactions import Reactions
from app.tui.seen import Seen
from app.tui.shown import Shown
from app.tui.status_line import StatusLine
from app.tui.themes import theme_names
from app.tui.transcript import Transcript
from app.tui.tree_panel import TreePanel
from app.tui.watcher import BackupFailed, LibraryChanged, Watcher

Answer = TypeVar("Answer")
NO_MODEL = "No model is open: /model FILE opens one."
NARROW = 100  # columns; below it the tree is an overlay
TALL = 14  # lines; below it there are no frames
PRIORITY = {"f5", "f9", "f1", "escape", "ctrl+s", "ctrl+t", "ctrl+o", "ctrl+r", "ctrl+q"}


class ChatScreen(Screen[None]):
    """Wires the widgets to one `Chat`."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-wide")]  # noqa: RUF012 - declared by Screen
    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, f"deed('{command.name}')", command.help, show=False, priority=key in PRIORITY)
        for command in COMMANDS
        for key in command.keys
    ]

    header = getters.query_one(Header)
    tree_panel = getters.query_one(TreePanel)
    transcript = getters.query_one(Transcript)
    prompt = getters.query_one(Prompt)
    prompt_box = getters.query_one(PromptBox)
    completion = getters.query_one(Completion)
    status_line = getters.query_one(StatusLine)

    def __init__(self, chat: Chat, bridge: Bridge, options: TuiOptions) -> None:
        super().__init__()
        self.chat = chat
        self.bridge = bridge
        self.options = options
        self.reactions = Reactions(self)
        self.watcher = Watcher(chat, self.post_message)
        self.working = 0  # jobs, running or waiting
        self.talking = 1  # those of them that write a reply or open a model; the first model is about to be opened
        self.queue: list[str] = []
        self.editing: Shown | None = None
        self.last_stats: ReplyStats | None = None
        self.saved_bytes = 0
        self.focus_wanted: str | None = None  # a node whose message gets the focus once it is painted
        self._alarm_until = 0.0
        self.escaped_at = 0.0  # when Esc was pressed last with nothing to stop or close

    def compose(self) -> ComposeResult:
        """Top to bottom."""
        self.set_class(self.app.size.width < NARROW, "-narrow")  # the breakpoints come after the first paint
        self.set_class(self.app.size.height < TALL, "-short")
        yield Header()
        with Horizontal(id="middle"):
            yield TreePanel()
            yield Transcript()
        yield Completion()
        yield PromptBox(id="prompt-box")
        yield StatusLine()

    def on_mount(self) -> None:
        """Paint what was left, and open the model."""
        if self.options.no_save or self.chat.read_only:
            self.header.warning = "nothing is saved" if self.options.no_save else "read-only: nothing is saved"
        self.reactions.start()
        self.bridge.connect(self.post_message)
        self.call_after_refresh(self._open_first_model)
        self.watcher.start()

    def on_unmount(self) -> None:
        """Look no more."""
        self.watcher.stop()

    @on(LibraryChanged)
    def _library_changed(self) -> None:
        self.reactions.look_again()

    @on(BackupFailed)
    def _backup_failed(self, event: BackupFailed) -> None:
        self.toast(event.sentence, "warning")

    # ---- jobs: calls of the chat in threads -----------------------------------------------------------------------

    def job(self, work: Callable[[], None], *, talk: bool = False, done: str = "") -> None:
        """Call the chat in a thread; an error becomes one sentence, `done` is said when there was none.

        `talk` marks those that write a reply or open a model: messages wait for them.
        """
        self.working += 1
        self.talking += talk
        self.paint_prompt()
        start(work, self.post_message, talk=talk, done=done)

    @on(JobDone)
    def _job_done(self, event: JobDone) -> None:
        self.reactions.later(partial(self._settle_job, event))

    async def _settle_job(self, event: JobDone) -> None:
        self.working -= 1
        self.talking -= event.talk
        self.paint_prompt()
        await self.reactions.job_done(event.failure, event.talk)
        if event.failure:
            self.toast(event.failure, "error")
            if self.chat.model is None:
                await self.transcript.say(f"{event.failure} {NO_MODEL}", "error")
        elif event.done:
            self.toast(event.done)

    def _open_first_model(self) -> None:
        self.talking -= 1  # from now on it is counted as the job that it is
        self.open_model(self.options.model)

    def open_model(self, path: Path | None) -> None:
        """Open a model; messages typed meanwhile wait for it."""
        self.job(partial(self.chat.load_model, path), talk=True)

    @on(ChatEvent)
    def _chat_event(self, message: ChatEvent) -> None:
        self.reactions.later(partial(self.reactions.hear, message.event, message.text))

    @on(TextReady)
    def _text_ready(self) -> None:
        self.reactions.text_ready()

    # ---- commands -------------------------------------------------------------------------------------------------

    async def action_deed(self, name: str) -> None:
        """Carry out a command by its name (keys, palette, clicks)."""
        self.run_deed(name)

    def run_deed(self, name: str, argument: str = "") -> None:
        """Carry out a command; its errors become sentences."""

        async def carry_out() -> None:
            try:
                await DEEDS[name](self, argument)
            except Exception as error:
                self.toast(sentence(error), "error")

        self.run_worker(carry_out(), group="deed", exit_on_error=False)

    async def ask(self, screen: ModalScreen[Answer | None]) -> Answer | None:
        """Show a modal and wait for its answer."""
        return await self.app.push_screen_wait(screen)

    def toast(self, words: str, severity: str = "information") -> None:
        """Say one sentence in the corner."""
        words, level = plain(words), severity if severity in {"warning", "error"} else "information"
        timeout = 4 if level == "information" else 9
        if monotonic() > self._alarm_until:
            self.app.clear_notifications()  # the newest sentence is the one that matters; errors stay their time
        if level != "information":
            self._alarm_until = monotonic() + timeout
        if words not in (shown.message for shown in self.app._notifications):
            self.app.notify(words, severity=level, timeout=timeout, markup=False)  # type: ignore[arg-type]

    # ---- what is where --------------------------------------------------------------------------------------------

    @property
    def seen(self) -> Seen:
        """What was read of the chat last: what is painted, and what commands go by."""
        return self.reactions.seen

    def target(self) -> Shown | None:
        """The message that has the focus."""
        return self.focused.shown if isinstance(self.focused, MessageView) else None

    def target_id(self) -> str | None:
        """The node of the message that has the focus."""
        target = self.target()
        return target.last_id if target else None

    def names_elsewhere(self) -> set[str]:
        """Names that do not point to where we are."""
        here = None if self.talking else self.chat.status().node_id
        return {name for name, node_id in self.seen.names.items() if node_id != here}

    def ready_to_talk(self, *, with_model: bool = True) -> bool:
        """Whether a reply could be written now, or a model be opened; says why not."""
        if self.chat.model is None and (with_model or self.talking):
            self.toast("The model is still being opened." if self.talking else NO_MODEL)
            return False
        if self.talking:
            self.toast("A reply is being written; Esc stops it.")
            return False
        return True

    # ---- the prompt -----------------------------------------------------------------------------------------------

    def focus_prompt(self) -> None:
        """Go where people write."""
        self.prompt.focus()

    def draft(self, text: str) -> None:
        """Put a text into the prompt."""
        self.prompt.put(text)
        self.focus_prompt()

    def begin_edit(self, message: Shown) -> None:
        """Take a message into the prompt to be sent again as a branch."""
        self.editing = message
        self.draft(message.text)
        self.paint_prompt()

    def paint_prompt(self) -> None:
        """Show what Enter would do and which keys matter."""
        self.prompt_box.title(self.editing, self.queue)
        self.prompt_box.hint_for(self.focused, self.stoppable)

    def on_descendant_focus(self) -> None:
        """Other keys matter now."""
        self.paint_prompt()

    @on(TextArea.Changed, "#prompt")
    def _draft_changed(self, event: TextArea.Changed) -> None:
        text = event.text_area.text
        self.completion.follow(text, self._choices)
        self.prompt.completed = self.completion.line
        # An edited message goes elsewhere, and commands are not for the model.
        self.chat.read_along("" if self.editing is not None or text.startswith("/") else text)

    def _choices(self, what: Completes) -> list[str]:
        if what == "savepoint":
            return sorted(self.seen.names)
        if what == "theme":
            return theme_names(self.app.available_themes)
        if what == "setting" and (settings := self.chat.settings) is not None:
            return sorted(settings.to_json())
        return []

    @on(Prompt.Edge)
    def _edge(self, event: Prompt.Edge) -> None:
        if event.key == "tab":
            self.prompt.put(self.completion.line)
        elif event.key == "down":
            self.completion.action_cursor_down()
        else:
            self.completion.action_cursor_up()
        self.prompt.completed = self.completion.line

    @on(Completion.Picked)
    def _picked(self, event: Completion.Picked) -> None:
        self.focus_prompt()
        if event.line.endswith(" "):
            self.prompt.put(event.line)
        else:
            self.prompt.put("")
            self.submit(event.line)

    @on(Prompt.Sent)
    def _sent(self, event: Prompt.Sent) -> None:
        """Enter, while a command is half typed, takes what is highlighted; a command without more is run as it is."""
        # Keys may have come too fast for the list to be painted: what fits is found again.
        lines = completions(event.text, self._choices) if event.line is not None else []
        line = event.line if event.line in lines else lines[0] if lines else ""
        typed = parse(event.text)
        if not line or typed is None or (typed.command is not None and not typed.argument):
            self.submit(event.text)
        elif typed.command is None and line.endswith(" "):
            self.prompt.put(line)
        else:
            self.submit(line)

    def submit(self, text: str) -> None:
        """Do what the text asks: a command, an edit, an offer, or a message. What cannot be done is given back."""
        parsed = parse(text) if self.editing is None else None
        accepted = True
        offer = self.transcript.offer
        if offer is not None and text.strip() == offer.text.strip():
            self.post_message(OfferView.Taken(offer))
        elif not text.strip():
            pass
        elif parsed is not None:
            accepted = self._submit_command(parsed)
        elif self.editing is not None:
            accepted = self._submit_edit(text)
        elif self.talking:
            self.queue.append(text.strip())
        elif self.chat.model is None:
            self.toast(NO_MODEL, "warning")
            accepted = False
        else:
            self.reactions.send(partial(self.chat.send, text.strip()), text)
        if accepted:
            self.prompt.remember_sent(text)
        else:
            self.prompt.give_back(text)
            self.completion.close()
        self.paint_prompt()

    def _submit_command(self, parsed: Parsed) -> bool:
        if parsed.command is not None:
            self.run_deed(parsed.name, parsed.argument)
            return True
        near = f"; did you mean /{parsed.nearest}?" if parsed.nearest else "; /help shows them all."
        self.toast(f"There is no /{plain(parsed.name)[:40]}{near}", "warning")
        return False

    def _submit_edit(self, text: str) -> bool:
        if self.editing is None or not self.ready_to_talk():
            return False
        edited, self.editing = self.editing, None
        node_id = edited.first_id if edited.role == "user" else edited.last_id
        self.reactions.send(partial(self.chat.edit, node_id, text.strip()), text)
        return True

    @on(OfferView.Taken)
    async def _offer_taken(self, event: OfferView.Taken) -> None:
        if not self.ready_to_talk():
            return
        await self.transcript.make_offer(None)
        self.focus_prompt()
        event.offer.accept()

    # ---- the tree -------------------------------------------------------------------------------------------------

    def toggle_tree(self) -> None:
        """Hidden: show it and go there. Shown: go there. There: hide it."""
        if self.tree_panel.has_focus:
            self.set_class(True, "-no-tree")
            self.set_class(False, "-tree")
            self.focus_prompt()
        else:
            self.set_class(False, "-no-tree")
            self.set_class(True, "-tree")
            self.tree_panel.focus()

    def close_overlay(self) -> bool:
        """On a narrow screen, choosing closes the tree; gives whether it was open."""
        was_open = self.has_class("-narrow") and self.has_class("-tree")
        if was_open:
            self.set_class(False, "-tree")
        return was_open

    @on(TreePanel.Looked)
    def _looked(self, event: TreePanel.Looked) -> None:
        self.reactions.look(event.node_id)

    @on(TreePanel.Chosen)
    def _chosen(self, event: TreePanel.Chosen) -> None:
        self.close_overlay()
        self.focus_prompt()
        self.job(partial(self.chat.restore, event.node_id))

    @on(TreePanel.ConversationChosen)
    def _conversation_chosen(self, event: TreePanel.ConversationChosen) -> None:
        self.close_overlay()
        self.focus_prompt()
        self.job(partial(self.chat.open_conversation, event.conversation_id))

    # ---- Esc and Ctrl+C -------------------------------------------------------------------------------------------

    @property
    def stoppable(self) -> bool:
        """Whether something runs that Esc or Ctrl+C would end: a reply, reading a prompt, a restore."""
        return self.working > 0 and self.chat.model is not None

    def stop(self) -> None:
        """Stop the reply; messages that wait go back into the prompt."""
        if self.queue:
            waiting, self.queue = self.queue, []
            self.draft("\n\n".join(filter(None, [*waiting, self.prompt.text])))
            self.paint_prompt()
        if self.stoppable:
            self.chat.stop()
