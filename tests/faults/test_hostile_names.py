"""Row 18 of the battery: hostile names, titles and texts leave nothing outside the roots and no raw ESC on a screen."""

import contextlib
import io
import itertools
import os
import pty
import subprocess
import sys

import pytest

from app.sentences import one_line
from faults.kit import KEY, open_library, save
from snapshots import BadName, Message, StoreError

PIECES = [
    "..", "../..", "../../etc/passwd", "/etc/passwd", "/", "\\", "C:\\x", "CON", "NUL", "aux.txt", "~", "~root",
    "$HOME",
    "`id`", "$(id)", ";rm -rf x", "|cat", "&", "*", "?", "%n%s", "{0}", "-rf", "--help", ".hidden", "a/b", "a\x00b",
    "\x00",
    "\n", "\r\n", "\t", "\x1b[2J", "\x1b]0;owned\x07", "\x1b[6n", "\x9b31m", "\x07", "\x08\x08", "\x7f",
    "\u202e gnp.exe",
    "\u2066x\u2069", "\u200b", "\ufeff", "\u2028", "\ud800", "\udcff", "\U000e0041", "e\u0301" * 40, "🏴\U000e0067",
    "a" * 300,
    "name.", "name ", " name", "quick", "HEAD", "deadbeef", "x~3", "x@5", "'; DROP TABLE nodes; --", "<script>",
    "[red]x[/]",
    "%2e%2e%2f", "....//", "file://x", "\\\\?\\x",
]  # fmt: skip
NAMES = [*PIECES, *("".join(pair) for pair in itertools.islice(itertools.permutations(PIECES[:20], 2), 160))]


def everything(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def world(tmp_path):
    """A library with hostile names and texts all over; gives it, the folder and what could be named."""
    for name in ("victim", "etc"):
        (tmp_path / name).write_text("mine")
    outside = everything(tmp_path)
    named = []
    with open_library(tmp_path / "root") as library:
        for number, name in enumerate(NAMES):
            chat = library.new_conversation(name, template_date="2026-01-01")
            text = f"{name} said {number}"
            node = library.add_node(chat.id, None, Message("user", text, (number, 1)))
            key = KEY if number % 2 else name.encode("utf-8", "replace").decode()[:200]
            save(library, library.tokens(node.id), node.id, key=key)
            library.add_prompt(text)
            try:
                library.set_name(name, node.id, force=True)
                named.append(name)
            except BadName:
                pass
        yield library, tmp_path, named
    assert {p for p in everything(tmp_path) if not p.startswith("root")} == outside
    assert (tmp_path / "victim").read_text() == "mine"


def test_nothing_of_a_name_or_text_becomes_a_path(world):
    library, folder, named = world
    assert len(NAMES) >= 200
    assert 20 < len(named) < len(NAMES)  # some are names, if odd ones, and some are none
    for path in everything(folder / "root"):
        assert all(set(part) <= set("0123456789abcdefghijklmnopqrstuvwxyz-.") for part in path.split("/")), path
    for name in NAMES:
        for ask in (library.resolve, library.find, library.prompts):
            with contextlib.suppress(StoreError):
                ask(name)


def test_hostile_text_travels_and_stays_text(world, tmp_path_factory):
    library, _, _ = world
    with open_library(tmp_path_factory.mktemp("there") / "root") as there:
        for chat in library.conversations()[::7]:
            data = b"".join(library.export(chat.head_id, "conversation"))
            arrival = there.import_stream(io.BytesIO(data), source=chat.title)
            assert there.node(arrival.node_id).text == library.node(chat.head_id).text


def test_no_raw_escape_reaches_a_terminal(world):
    """Every command that shows names and texts, on a real terminal of the kernel's."""
    library, folder, named = world
    library.close()
    root = folder / "root"
    env = {**os.environ, "FORKPOINT_DATA_DIR": str(root / "data"), "FORKPOINT_CACHE_DIR": str(root / "cache")}
    env["FORKPOINT_CONFIG_DIR"] = str(root / "config")
    hostile = next(name for name in named if name.startswith("$(id)"))
    calls = [["list"], ["tree"], ["find", "said"], ["show", hostile], ["show", "\x1b[2J"], ["stats", "\x1b]0;x\x07"],
             ["export", hostile, "--format", "md"]]  # fmt: skip
    for call in calls:
        seen = on_a_terminal([sys.executable, "-m", "app", *call], env)
        controls = {c for c in seen if (ord(c) < 32 and c not in "\r\n\t") or 127 <= ord(c) < 160}
        assert controls == set(), (call, controls)
        assert not set("\u202e\u2066\u2028\u200b") & set(seen), call


def on_a_terminal(command, env):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        seen += part
    process.wait(60)
    os.close(ours)
    return seen.decode("utf-8", "replace")


@pytest.mark.parametrize("name", NAMES[:60])
def test_one_line_is_one_harmless_line(name):
    line = one_line(name)
    assert all(ord(c) >= 32 and ord(c) != 127 for c in line)
    assert not set("\x1b\x9b\u202e\u2066\u2028") & set(line)
