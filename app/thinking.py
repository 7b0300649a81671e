"""Thinking: what a reply says to itself in front of its answer, between marks that its model was trained on.

The text of a reply is kept whole, marks included; here it is taken apart to be shown and counted. Some templates open
the section in the prompt, so that the reply begins inside of it and has the closing mark only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.engine_protocol import Tokenizer

# Qwen, DeepSeek, SmolLM, Granite and Phi write the first; Mistral's models the second.
MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
_OPENING = tuple(opening for opening, _ in MARKS)
_CLOSING = tuple(closing for _, closing in MARKS)
_CLOSING_BYTES = tuple(closing.encode() for closing in _CLOSING)
_PROMPT_END = 24  # tokens at a prompt's end among which an opening mark is looked for


@dataclass(frozen=True)
class Parts:
    """A reply taken apart. `thinking` is None where there is no such section; `open` while it has not ended."""

    thinking: str | None
    answer: str
    open: bool = False


def parted(text: str, inside: bool = False) -> Parts:
    """Take a reply, or its beginning so far, apart. `inside`: the prompt opened the section.

    A beginning that may still become an opening mark is neither thinking nor answer.
    """
    start = text.lstrip()
    for opening, closing in MARKS:
        if start.startswith(opening):
            return _until(start[len(opening) :], closing)
    found = [(at, closing) for closing in _CLOSING if (at := text.find(closing)) >= 0]
    if found:
        return _until(text, min(found)[1])
    if inside:
        return Parts(text, "", open=True)
    if start and any(opening.startswith(start) for opening in _OPENING):
        return Parts(None, "")
    return Parts(None, text)


def _until(text: str, closing: str) -> Parts:
    thinking, mark, answer = text.partition(closing)
    return Parts(thinking.strip("\n"), answer.lstrip("\n"), open=not mark)


def opened_by(text: str) -> bool:
    """Whether a prompt that ends so opens a section."""
    return text.rstrip().endswith(_OPENING)


def prompt_end(tokens: Sequence[int]) -> Sequence[int]:
    """The tokens whose text `opened_by` needs."""
    return tokens[-_PROMPT_END:]


def count_tokens(tokenizer: Tokenizer, tokens: Iterable[int]) -> int:
    """How many of a reply's first tokens are thinking, marks included; 0 where the text has none."""
    said, count = b"", 0
    for token in tokens:
        said += tokenizer.token_bytes(token)
        count += 1
        if any(closing in said[-64:] for closing in _CLOSING_BYTES):
            return count
    return count if parted(said.decode("utf-8", "replace")).open else 0
