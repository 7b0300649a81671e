"""The whole program on a real pseudo-terminal: what reaches the terminal, byte by byte, and how it ends."""

import contextlib
import os
import select
import signal
import sqlite3
import struct
import sys
import time

import pytest

from app.config import directories
from app.libraries import own_library
from snapshots import Message

if os.name != "posix":
    pytest.skip("no pseudo-terminals here", allow_module_level=True)

import fcntl
import pty
import termios

# A title, a colour, a question to the terminal, an 8-bit escape, a right-to-left override, a bell.
HOSTILE = "\x1b]0;pwned\x07 \x1b[35mred \x1b[5n \x9b31m \u202e gnip \x08\x7f end"
ACTS = ("\x1b]0;", "pwned\x07", "\x1b[35mred", "\x1b[5n", "\x9b", "\u202e", "\x08", "\x7f")


class Terminal:
    """Python on a pseudo-terminal of 120 × 40; `raw` is all that it wrote."""

    def __init__(self, command):
        self.raw = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, *command])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))

    def read(self, until, timeout_s=60.0):
        """Read until these bytes came, behind what was read before."""
        end, start = time.monotonic() + timeout_s, len(self.raw)
        while until not in self.raw[start:]:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"waited in vain for {until!r}; the end is {self.raw[-2000:]!r}")
            try:
                self.raw += os.read(self.fd, 1 << 16)
            except OSError:  # the other side is gone
                raise AssertionError(f"ended before {until!r}: {self.raw[-2000:]!r}") from None

    def press(self, keys):
        os.write(self.fd, keys)

    def end(self, timeout_s=30.0):
        """Read to the end; gives the exit status."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.raw += os.read(self.fd, 1 << 16)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("it does not end")

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal():
    terminals = []

    def start(*command):
        terminals.append(Terminal(command or ("-m", "app")))
        return terminals[-1]

    yield start
    for each in terminals:
        each.close()


def test_nothing_that_acts_reaches_the_terminal(terminal):
    with own_library() as library:
        for title in ("", HOSTILE):  # the second conversation is the one that opens
            talk = library.new_conversation(title or f"other {HOSTILE}")
            user = library.add_node(talk.id, None, Message("user", f"asked {HOSTILE}", (5,)))
            library.add_node(talk.id, user.id, Message("assistant", f"answered {HOSTILE}", (6,), stop="stop"))
    screen = terminal()
    screen.read(b"answered")
    screen.press(b"\x0f")  # Ctrl+O: the list of savepoints and conversations
    screen.read(b"Open a savepoint")
    screen.press(b"\x1b")
    time.sleep(0.5)
    screen.press(b"/find asked\r")
    screen.read("Find “asked”".encode())
    screen.press(b"\x1b")
    time.sleep(0.5)
    screen.press(b"\x11")  # Ctrl+Q
    assert screen.end() == 0
    seen = screen.raw.decode("utf-8", "replace")
    assert "␛]0;pwned␇" in seen, "it is shown, by signs that look like it"
    for act in ACTS:
        assert act not in seen, repr(act)


def test_leaving_puts_the_terminal_back(terminal):
    screen = terminal()
    screen.read("message…".encode())
    assert b"\x1b[?1049h" in screen.raw, "the alternate screen"
    screen.press(b"\x03\x03")  # Ctrl+C twice
    assert screen.end() == 0
    assert screen.raw.rindex(b"\x1b[?1049l") > screen.raw.rindex(b"\x1b[?1049h")
    assert screen.raw.rindex(b"\x1b[?25h") > screen.raw.rindex(b"\x1b[?25l"), "the cursor is seen again"


def test_a_locked_library_delays_the_chat_but_not_the_first_paint(terminal):
    own_library().close()
    holder = sqlite3.connect(directories().data / "tree.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    screen = terminal()
    begun = time.monotonic()
    screen.read(b"The library is busy", timeout_s=20)
    assert b"message" not in screen.raw
    holder.execute("ROLLBACK")
    holder.close()
    screen.read("message…".encode())
    assert time.monotonic() - begun < 30, "the store's own patience was not needed"
    screen.press(b"\x11")
    assert screen.end() == 0


@contextlib.contextmanager
def busy_library():
    """Inside, another process holds the library."""
    own_library().close()
    with contextlib.closing(sqlite3.connect(directories().data / "tree.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.parametrize(
    ("shown", "around"), [("message…".encode(), contextlib.nullcontext), (b"The library is busy", busy_library)]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_the_terminal_as_it_was(terminal, number, shown, around):
    with around():
        screen = terminal()
        screen.read(shown, timeout_s=20)
        os.kill(screen.pid, number)
        assert screen.end() == -number, "it ends by that signal, for all to see"
    left = screen.raw.rpartition(shown)[2]
    for mode in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h"):  # alternate screen, mouse, cursor
        assert mode in left, mode
    assert b"Traceback" not in screen.raw


NO_ROOM = """
import sys
from app.__main__ import main
from snapshots import Library, StoreFull

def full(*_, **__):
    raise StoreFull("No space left on device")

Library.open = full
sys.exit(main())
"""


def test_where_there_is_no_room_for_a_library_one_is_told_how_to_chat_without(terminal):
    screen = terminal("-c", NO_ROOM)
    assert screen.end() == 9
    assert "The disk is full: free some space and try again." in screen.raw.decode()
    assert "`forkpoint --no-save` chats without writing anything." in screen.raw.decode()


NO_QUEUE = """
import sys
from textual.drivers import _writer_thread
from app.__main__ import main
_writer_thread.MAX_QUEUED_WRITES = 1  # what is written to a terminal that is gone waits forever at once
sys.exit(main())
"""


@pytest.mark.parametrize("command", [("-m", "app"), ("-c", NO_QUEUE)])
def test_a_terminal_that_goes_away_ends_the_program_and_what_was_said_is_kept(terminal, command):
    screen = terminal(*command)
    screen.read("message…".encode())
    screen.press(b"hello\r")
    screen.read(b"saved")
    os.close(screen.fd)
    screen.fd = os.open(os.devnull, os.O_RDONLY)
    end = time.monotonic() + 20
    while not (ended := os.waitpid(screen.pid, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.05)
    assert ended[0] == screen.pid, "it ends"
    screen.pid = 0
    with own_library() as library:
        (talk,) = library.conversations()
        assert [node.role for node in library.tree(talk.id)] == ["user", "assistant"]
