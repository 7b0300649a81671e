"""Being told to end, or left without a terminal: what was said is kept, the terminal is given back where there is one,
and the program ends, as others would have by that signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
FAREWELL_S = 3.0
"""How long giving the terminal back may take."""
_OUTPUT = "textual-output"  # Textual's thread that writes to the terminal
_HUNG_UP = 128 + 1  # what shells call the end by SIGHUP


def hear(heard: Callable[[signal.Signals], None]) -> None:
    """Have the running event loop call `heard` where the window is closed or the machine goes down."""
    for number in SIGNALS:
        with suppress(NotImplementedError):  # loops that hear no signals
            asyncio.get_running_loop().add_signal_handler(number, heard, number)


@contextmanager
def insisting(leave: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Gives what to call when the program was told to end: where its app does not, it leaves and ends by force.

    A terminal that is gone kills the thread that writes to it; behind that the event loop stands still as soon as its
    queue is full, deaf to signals. So the death of that thread counts as being told.
    """
    over, told = threading.Event(), threading.Event()

    def insist() -> None:
        if not over.wait(FAREWELL_S):
            leave()
            os._exit(_HUNG_UP)

    def tell() -> None:
        if not told.is_set():
            told.set()
            threading.Thread(target=insist, name="insisting", daemon=True).start()

    def died(what: threading.ExceptHookArgs) -> None:
        if what.thread is not None and what.thread.name == _OUTPUT:
            tell()
        else:
            before(what)

    before, threading.excepthook = threading.excepthook, died
    try:
        yield tell
    finally:
        over.set()
        threading.excepthook = before


def die_of(number: signal.Signals) -> None:
    """End as the signal would have ended us: whoever sent it sees that."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
