"""Rendered text cut into the template's own words and contents: what was rendered with numbers tells which is which."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.tokenizer import Parse


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of rendered text: the template's own words, or content (of message `message`, where that is known)."""

    text: str
    parse: Parse
    message: int | None = None


class Marker:
    """Unguessable numbers that stand for contents: digits only, so that no change of case touches them."""

    def __init__(self) -> None:
        self._secret = f"7{secrets.randbelow(10**38):038d}"
        self._pattern = re.compile(f"{self._secret}([0-9]{{6}})7")

    def mark(self, index: int) -> str:
        """The number for content `index`."""
        return f"{self._secret}{index:06d}7"

    def split(self, text: str) -> list[str | int]:
        """Texts and content indices in turn: text first and last."""
        cut: list[str | int] = list(self._pattern.split(text))
        cut[1::2] = [int(index) for index in cut[1::2]]
        return cut

    def take_out(self, text: str, specials: Sequence[str], taken: list[str]) -> str:
        """`text` with every special token's text replaced by a number; `taken` collects them."""
        for special in specials:
            if special in text:
                taken.append(special)
                text = text.replace(special, self.mark(len(taken) - 1))
        return text

    def put_back(self, text: str, taken: Sequence[str]) -> list[Piece]:
        """Undo `take_out`; what was taken out is content."""
        pieces = []
        for item in self.split(text):
            if isinstance(item, int):
                pieces.append(Piece(taken[item], Parse.CONTENT))
            else:
                pieces.append(Piece(item, Parse.SPECIAL))
        return pieces


def laid_over(
    real: str, marked: Sequence[str | int], contents: Mapping[int, str], specials: Sequence[str]
) -> list[Piece] | None:
    """Cut the real text where the marked one has its numbers; None where the two do not fit.

    In place of a number may stand the content, the content stripped, or a part of it (where thinking was cut away):
    this last only for contents without special tokens' texts, which could pose as the template's words.
    """
    first = str(marked[0])
    if not real.startswith(first):
        return None
    pieces = [Piece(first, Parse.SPECIAL)]
    position = len(first)
    for at in range(1, len(marked), 2):
        index, words = int(marked[at]), str(marked[at + 1])
        content = contents.get(index)
        if content is None:
            return None
        last = at + 2 == len(marked)
        shown = _shown_content(real, position, content, words, last)
        if shown is None and not any(special in content for special in specials if "think" not in special.lower()):
            shown = _shown_part(real, position, content, words, last)
        if shown is None:
            return None
        pieces += [Piece(shown, Parse.CONTENT, index), Piece(words, Parse.SPECIAL)]
        position += len(shown) + len(words)
    return pieces if position == len(real) else None


def _shown_content(real: str, position: int, content: str, words: str, last: bool) -> str | None:
    """What of `content` stands at `position`, with the template's `words` behind it (and then the end, if `last`)."""
    for form in (content, content.rstrip(), content.lstrip(), content.strip()):
        if real.startswith(form + words, position) and (not last or len(real) == position + len(form) + len(words)):
            return form
    return None


def _shown_part(real: str, position: int, content: str, words: str, last: bool) -> str | None:
    """The same for a part of the content that ends where `words` begin."""
    end = position - 1
    for _ in range(64):
        end = len(real) - len(words) if last else real.find(words, end + 1)
        if end < position:
            return None
        if real[position:end] in content and real.startswith(words, end):
            return real[position:end]
        if last or not words:
            return None
    return None
