"""The one registry of commands: slash commands, palette, help and key map are all read from here.

A command is a name, a sentence, its keys and what it takes; what it does is a function that the screen registers under
the same name (app/tui/deeds/). A test asserts that every command here has one, so no command exists in help text only.
Importing this module costs nothing: no Textual, no engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Group = Literal["Savepoints", "Conversation", "Replies", "Model", "Screen"]
Completes = Literal["", "savepoint", "theme", "setting", "model", "conversation"]


@dataclass(frozen=True)
class Command:
    """One thing a person can ask for.

    `keys` work everywhere, `reply_keys` while a message has the focus; both in Textual's notation, first one shown.
    `argument` is the hint shown behind the name ("" = takes none); `completes` says what its argument is chosen from.
    A command without a slash is in the palette only: there its twin with arguments is the slash command.
    """

    name: str
    help: str
    group: Group
    argument: str = ""
    completes: Completes = ""
    keys: tuple[str, ...] = ()
    reply_keys: tuple[str, ...] = ()
    slash: bool = True
    palette: bool = True

    @property
    def title(self) -> str:
        """The name as the palette shows it: "save-as" is "Save as"."""
        return self.name.replace("-", " ").capitalize()

    @property
    def usage(self) -> str:
        """What to type: "/save [name]"."""
        return f"/{self.name} {self.argument}".rstrip()


COMMANDS: tuple[Command, ...] = (
    Command("save", "Save here, at once; with a name, under that name", "Savepoints", "[name]", "", ("f5",)),
    Command(
        "load",
        "Go to the newest quicksave (again: the one before), or to a savepoint",
        "Savepoints",
        "[savepoint]",
        "savepoint",
        ("f9",),
    ),
    Command("save-as", "Ask for a name and save here", "Savepoints", keys=("ctrl+s",), slash=False),
    Command(
        "open",
        "Choose a savepoint from a list, by a few letters of its name or text",
        "Savepoints",
        keys=("ctrl+o",),
        slash=False,
    ),
    Command(
        "fork",
        "Start a branch here, under a name; the other branch stays",
        "Savepoints",
        "[name]",
        "",
        (),
        ("f",),
    ),
    Command("name", "Name the savepoint of this message", "Savepoints", "[name]", "", (), ("n",)),
    Command(
        "export",
        "Write this conversation to a file: .md and .json to read, anything else to import",
        "Savepoints",
        "file",
    ),
    Command("import", "Read an exported file into the library", "Savepoints", "[file]"),
    Command(
        "diff",
        "Say where a savepoint parts from here, or from another one",
        "Savepoints",
        "savepoint [other]",
        "savepoint",
    ),
    Command("find", "Find messages in all conversations by their words, and go there", "Savepoints", "[words]"),
    Command("tree", "Show the tree of branches, or hide it", "Savepoints", keys=("ctrl+t",)),
    Command("undo", "Take back the last action: turn, restore, fork, delete or name", "Conversation"),
    Command("redo", "Do again what /undo took back", "Conversation"),
    Command("back", "Step back one turn, or that many", "Conversation", "[turns]"),
    Command("rewind", "Choose an earlier message to go on from", "Conversation"),
    Command(
        "delete",
        "Delete this message and all that follows from it (/undo brings it back)",
        "Conversation",
        "[savepoint]",
        "savepoint",
    ),
    Command("new", "Begin a new conversation", "Conversation"),
    Command("system", "Show the system prompt, or set it for a new branch", "Conversation", "[text]"),
    Command("regen", "Another reply to the same message, with new dice", "Replies", "", "", (), ("r",)),
    Command("edit", "Change a message and send it again as a branch", "Replies", "", "", (), ("e",)),
    Command("continue", "Go on with the reply where it stopped", "Replies"),
    Command("thinking", "Fold or unfold what the reply thought in front of its answer", "Replies", "", "", (), ("t",)),
    Command("copy", "Copy the reply to the clipboard", "Replies", "", "", (), ("y",)),
    Command(
        "previous-sibling",
        "Show the reply before this one, of those to the same message",
        "Replies",
        reply_keys=("left_square_bracket",),
        slash=False,
    ),
    Command(
        "next-sibling",
        "Show the reply after this one, of those to the same message",
        "Replies",
        reply_keys=("right_square_bracket",),
        slash=False,
    ),
    Command("stop", "Stop the reply; what there is of it stays", "Replies", keys=("escape",), slash=False),
    Command(
        "set", "Show the sampling settings, or change one: /set temperature 0.7", "Model", "[setting value]", "setting"
    ),
    Command("model", "Show the model, or open another file on this branch", "Model", "[file]", "model"),
    Command("stats", "Show speeds, sizes and what was reused", "Model"),
    Command("theme", "Change the colours", "Screen", "[theme]", "theme"),
    Command("palette", "Search all commands", "Screen", keys=("ctrl+p",), slash=False, palette=False),
    Command("history", "Search what you sent before", "Screen", keys=("ctrl+r",), slash=False),
    Command("help", "Show keys and commands", "Screen", keys=("f1",)),
    Command("quit", "Leave; everything is already saved", "Screen", keys=("ctrl+q",)),
)

BY_NAME: dict[str, Command] = {command.name: command for command in COMMANDS}
GROUPS: tuple[Group, ...] = ("Savepoints", "Conversation", "Replies", "Model", "Screen")

# Keys that belong to the prompt itself; help shows them beside the commands.
PROMPT_KEYS: tuple[tuple[str, str], ...] = (
    ("Enter", "Send; while a reply is being written: send next"),
    ("Ctrl+J, Shift+Enter", "New line"),
    ("↑ ↓", "At the first or last line: earlier and later messages"),
    ("Esc", "Stop the reply, or close what is open"),
    ("Esc Esc", "On an empty prompt: choose an earlier message to go on from"),
    ("Ctrl+C", "Stop the reply; else copy the selection; else clear the draft; else quit (twice)"),
    ("Shift+Tab, Tab", "Go to the messages and back"),
)

_KEY_WORDS = {
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "escape": "Esc",
    "ctrl": "Ctrl",
    "shift": "Shift",
}


def key_words(key: str) -> str:
    """A Textual key name as people write it: "ctrl+s" is "Ctrl+S", "f5" is "F5", "r" stays "r"."""
    parts = key.split("+")
    if len(parts) == 1:
        return _KEY_WORDS.get(key, key.upper() if key[0] == "f" and key[1:].isdigit() else key)
    return "+".join(_KEY_WORDS.get(part, part.upper()) for part in parts)


@dataclass(frozen=True)
class Parsed:
    """A typed line: `command` is None where no command has that `name`; `nearest` is then the closest one, or ""."""

    name: str
    argument: str
    command: Command | None
    nearest: str = ""


def parse(line: str) -> Parsed | None:
    """Read a line as a slash command. None when it is a message: no leading slash, or a slash that starts a path.

    White space in front is no part of either.
    """
    line = line.lstrip()
    if not line.startswith("/") or line.startswith("//"):
        return None
    head, _, rest = line[1:].partition(" ")
    name, newline, below = head.partition("\n")
    if "/" in name:
        return None
    argument = (below + (" " if newline and rest else "") + rest).strip()
    command = BY_NAME.get(name.lower())
    if command is not None and command.slash:
        return Parsed(command.name, argument, command)
    nearest = get_close_matches(name.lower(), [c.name for c in COMMANDS if c.slash], 1, 0.5)
    return Parsed(name, argument, None, nearest[0] if nearest else "")


def rank(query: str, candidates: Iterable[str]) -> list[str]:
    """Candidates that hold the letters of `query` in order, best first: exact start, then inside, then scattered."""
    needle = query.casefold()
    scored: list[tuple[int, int, int, str]] = []
    for order, candidate in enumerate(candidates):
        hay = candidate.casefold()
        if hay.startswith(needle):
            score = 0
        elif needle in hay:
            score = 1
        elif _scattered(needle, hay):
            score = 2
        else:
            continue
        scored.append((score, len(candidate) if needle else 0, order, candidate))
    return [candidate for *_, candidate in sorted(scored)]


def complete(name_start: str) -> Sequence[Command]:
    """Slash commands for what was typed behind the slash, best first; all of them, in registry order, for ""."""
    names = [command.name for command in COMMANDS if command.slash]
    return [BY_NAME[name] for name in rank(name_start, names)]


def _scattered(needle: str, hay: str) -> bool:
    letters = iter(hay)
    return all(letter in letters for letter in needle)
