"""Ids to text as they come, one at a time, never splitting a UTF-8 character."""

from __future__ import annotations

import codecs

from engine.tokenizer import USER_DEFINED, Tokenizer


class StreamDecoder:
    """What is pushed comes out as text, as soon as its bytes are whole characters.

    The text of all calls joined is `tokenizer.decode` of all ids, U+FFFD for bytes that are not UTF-8 included.
    `previous` is the id that stands in front of the first one: behind a special token one space is dropped, because
    encoding puts one there. None means mid-text, where a space is a space. Mutable; one a reply.
    """

    def __init__(self, tokenizer: Tokenizer, previous: int | None = None):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_space = previous is not None and self._space_follows(previous)

    def push(self, token: int) -> str:
        """Add one id; the text that became complete, often "". Raises IndexError for an id outside the vocabulary."""
        raw = self._tokenizer.token_bytes(token)
        if self._drop_space and raw.startswith(b" "):
            raw = raw[1:]
        self._drop_space = self._space_follows(token)
        return self._decoder.decode(raw)

    def flush(self) -> str:
        """The end: an unfinished character comes out as U+FFFD. The decoder may be used on, in mid-text."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text

    def _space_follows(self, token: int) -> bool:
        tokenizer = self._tokenizer
        return tokenizer.add_space_prefix and (
            tokenizer.is_special(token) or tokenizer.token_type(token) == USER_DEFINED
        )
