"""Commands about the model, the screen itself, and leaving."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.content import Content

from app.commands import BY_NAME
from app.tui.deeds import deed
from app.tui.figures import size
from app.tui.help_screen import HelpScreen
from app.tui.picker import Pick, Picker
from app.tui.plain import plain
from app.tui.themes import remember_theme, theme_names

if TYPE_CHECKING:
    from app.tui.chat_screen import ChatScreen


_SHORT_NAMES = {"temp": "temperature"}  # as on the command line


@deed("set")
async def change_setting(screen: ChatScreen, argument: str) -> None:
    """Show the sampling settings, or change one."""
    settings = screen.chat.settings
    if settings is None:
        screen.toast("The settings come with the model, which is still being opened.")
        return
    values: dict[str, Any] = settings.to_json()
    name, _, value = argument.partition(" ")
    name = name.replace("-", "_")
    name = _SHORT_NAMES.get(name, name)
    if not argument:
        await screen.transcript.say(_table({key: _words(now) for key, now in sorted(values.items())}))
    elif name not in values:
        screen.toast(f"There is no setting “{plain(name)}”; /set shows them all.", "warning")
    elif not value:
        screen.toast(f"{name} is {_words(values[name])}.")
    else:
        try:
            wanted = _read(value.strip(), values[name])
        except ValueError:
            screen.toast(f"{name} takes a number, like {_words(values[name])}.", "warning")
            return
        screen.job(partial(screen.chat.change_settings, **{name: wanted}), done=f"{name} is now {_words(wanted)}.")


def _words(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(repr(item) for item in value) or "none"
    return str(value)


_ESCAPE = re.compile(r"\\(?:[ntrs\\]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "s": " ", "\\": "\\"}


def _meant(escape: re.Match[str]) -> str:
    """The sign that an escape stands for; `\\s` is a space, which would else part two texts."""
    code = escape[0][1:]
    return _SHORT[code] if code in _SHORT else chr(int(code[1:], 16)).encode("utf-8", "replace").decode()


def _read(text: str, now: object) -> object:
    """Read a value of the type that the setting has. Raises ValueError."""
    if isinstance(now, (list, tuple)):
        return tuple(_ESCAPE.sub(_meant, part) for part in text.split()) if text != "none" else ()
    if isinstance(now, bool):
        return text.lower() in {"on", "yes", "true", "1"}
    return int(text) if isinstance(now, int) else float(text)


@deed("model")
async def model(screen: ChatScreen, argument: str) -> None:
    """Show the model, or open another file."""
    if argument:
        if screen.ready_to_talk(with_model=False):
            screen.open_model(Path(argument).expanduser())
        return
    now = screen.chat.model
    if now is None:
        screen.toast("No model is open yet.")
        return
    rows = {"model": now.name, "file": str(now.path), "context": f"{now.context_length} tokens"}
    rows |= {"vocabulary": f"{now.vocabulary_size} tokens", "state key": now.state_key[:16]}
    await screen.transcript.say(_table(rows))


@deed("stats")
async def stats(screen: ChatScreen, _argument: str) -> None:
    """Show what the last reply cost, and what is on disk."""
    status = screen.chat.status()
    rows = {"context": f"{status.tokens} of {status.context_length or '?'} tokens"}
    if (last := screen.last_stats) is not None:
        rows |= {
            "last reply": f"{last.generated_tokens} tokens in {last.decode_s:.2f} s, {last.decode_tok_s:.1f} tok/s",
            "prompt": f"{last.reused_tokens} tokens reused, {last.prefilled_tokens} computed in {last.prefill_s:.2f} s",
        }
    if screen.saved_bytes:
        rows["written to disk"] = f"{size(screen.saved_bytes)} since the start"
    rows["conversations"] = str(len(screen.seen.talks))
    rows["savepoints"] = str(len(screen.seen.names))
    await screen.transcript.say(_table(rows))


def _table(rows: dict[str, str]) -> Content:
    wide = max(map(len, rows)) + 2
    return Content("\n").join(
        [Content.assemble((f"{plain(key):<{wide}}", "$foreground 55%"), plain(value)) for key, value in rows.items()]
    )


@deed("theme")
async def theme(screen: ChatScreen, argument: str) -> None:
    """Choose colours; moving in the list tries them on."""
    app = screen.app
    known = theme_names(app.available_themes)
    if argument:
        if argument in known:
            await _choose_theme(screen, argument)
        else:
            screen.toast(f"There is no theme “{plain(argument)}”; /theme shows them.", "warning")
        return
    before = app.theme

    def try_on(name: str) -> None:
        app.theme = name

    picks = [Pick(name, name, "now" if name == before else "") for name in known]
    chosen = await screen.ask(Picker("Theme", picks, looked=try_on))
    if chosen:
        await _choose_theme(screen, chosen)
    else:
        app.theme = before


async def _choose_theme(screen: ChatScreen, name: str) -> None:
    """Put a theme on, and remember it for the next start."""
    screen.app.theme = name
    if not screen.options.no_save:
        await asyncio.to_thread(remember_theme, name)


@deed("palette")
async def palette(screen: ChatScreen, _argument: str) -> None:
    """Search all commands."""
    screen.app.action_command_palette()


@deed("help")
async def show_help(screen: ChatScreen, argument: str) -> None:
    """Show keys and commands, or one command."""
    command = BY_NAME.get(argument.lstrip("/"))
    if command is not None:
        await screen.transcript.say(f"{command.usage}: {command.help}.")
    else:
        await screen.app.push_screen(HelpScreen())


@deed("quit")
async def leave(screen: ChatScreen, _argument: str) -> None:
    """Leave; what is being written is kept."""
    screen.app.exit()
