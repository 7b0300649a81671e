"""Text of people and models made safe to paint: no escape codes, no invisible direction changes, never markup."""

from __future__ import annotations

import unicodedata

from rich.cells import cell_len, set_cell_size
from textual.content import Content

_BIDI = {chr(code) for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_KEEP = {"\n", "\t", "\u200d"}  # the joiner holds emoji together


def plain(text: str) -> str:
    """Show what would act on a terminal as a sign that only looks like it: ESC is ␛, a bidi override is �.

    Line ends become "\\n"; tabs stay (Textual widens them). Everything else is as it was, square brackets too.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(map(_sign, text.replace("\r\n", "\n")))


def _sign(char: str) -> str:
    if char in _KEEP or char.isprintable():
        return char
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if char in _BIDI or unicodedata.category(char) in {"Cc", "Cs"}:
        return "�"
    if unicodedata.category(char) in {"Zl", "Zp"}:
        return "\n"
    return " " if unicodedata.category(char) == "Zs" else char


def literal(text: str, style: str = "") -> Content:
    """Content that shows the text as it is; square brackets are no markup."""
    return Content.styled(plain(text), style) if style else Content(plain(text))


def one_line(text: str, width: int) -> str:
    """The start of a text on one line of at most `width` cells, cut with "…"."""
    line = " ".join(plain(text[: 8 * max(width, 1)]).split())
    if cell_len(line) <= width:
        return line
    return set_cell_size(line, max(width - 1, 0)).rstrip() + "…"
