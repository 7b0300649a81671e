"""Plain output: text that a terminal must not obey, progress on one line, tables, JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from app.sentences import harmless, one_line

if TYPE_CHECKING:
    from app.events import BranchDelta, Progress

_PHASES = {
    "read": "Reading the model",
    "compile": "Compiling (first start only)",
    "pack": "Preparing weights",
    "prefill": "Reading the prompt",
    "restore": "Restoring",
    "replay": "Making replies again",
}
_BAR = 20
_TWO_YEARS = 2 * 365.25 * 86400


def write_text(text: str, stream: TextIO | None = None) -> None:
    """Write a model's or a person's text: raw bytes into pipes, harmless signs on a terminal."""
    stream = stream or sys.stdout
    stream.write(harmless(text) if stream.isatty() else text)
    stream.flush()


def print_json(value: Any) -> None:
    """Print one JSON value on one line; every control character and lone surrogate is escaped."""
    print(json.dumps(value, ensure_ascii=True))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns, the last one cut to the terminal's width."""
    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *cells]) for i in range(len(header))]
    room = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 1 << 30
    for row in [list(header), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line if len(line) <= room else line[: room - 1] + "…")


def size(count: int) -> str:
    """Give bytes as people read them."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def ago(then: float) -> str:
    """Give a time as its distance from now. A clock that was set back makes times lie ahead."""
    seconds = time.time() - then
    if seconds < -90:
        return "in the future"
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h"), (_TWO_YEARS, 86400, "days")):
        if seconds < limit:
            return f"{max(0.0, seconds) / unit:.0f} {name} ago"
    return f"{seconds / _TWO_YEARS * 2:.0f} years ago"


class ProgressLine:
    """Shows Progress on one line of stderr, if that is a terminal and the work takes longer than a moment."""

    def __init__(self, patience_s: float = 0.5) -> None:
        self._shown = False
        self._begin = time.monotonic()
        self._patience_s = patience_s

    def show(self, progress: Progress) -> None:
        """Draw the line anew."""
        if (
            not sys.stderr.isatty()
            or os.environ.get("TERM") == "dumb"
            or time.monotonic() - self._begin < self._patience_s
        ):
            return
        filled = _BAR * progress.done // progress.total if progress.total else 0
        left = f" · {progress.eta_s:.0f} s left" if progress.eta_s else ""
        name = _PHASES.get(progress.phase, progress.phase)
        sys.stderr.write(f"\r\x1b[K{name} {'▓' * filled}{'░' * (_BAR - filled)} {progress.done}/{progress.total}{left}")
        sys.stderr.flush()
        self._shown = True

    def loading(self, phase: str, done: int, total: int) -> None:
        """Draw it for a model that is being opened."""
        from app.events import Progress

        self.show(Progress(phase, done, total, None))

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._shown = False
        self._begin = time.monotonic()


class BranchPrinter:
    """Prints several replies that grow together one behind the other, each as soon as those in front of it ended."""

    def __init__(self, count: int) -> None:
        self._waiting = [""] * count
        self._ended = [False] * count
        self._at = -1  # the one that is being printed

    def hear(self, event: BranchDelta) -> None:
        """Take in what one of them grew by."""
        self._waiting[event.branch] += event.text
        self._ended[event.branch] = event.ended
        if self._at < 0:
            self._open(0)
        while self._at < len(self._waiting):
            text, self._waiting[self._at] = self._waiting[self._at], ""
            if text:
                write_text(text)
                self._line_ended = text.endswith("\n")
            if not self._ended[self._at]:
                return
            if not self._line_ended:
                write_text("\n")
            self._open(self._at + 1)

    def _open(self, branch: int) -> None:
        self._at, self._line_ended = branch, True
        if branch < len(self._waiting):
            write_text(f"--- branch {branch + 1} of {len(self._waiting)} ---\n")
