"""The decode loop: logits → token → text, one token at a time, until something ends the reply. One reply or several.

Knows a session, a sampler and its dice; knows neither the tree nor the screen. What comes out is a pure function of the
session's tokens, the settings and the dice key, because the token at position p uses the dice of position p alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.engine_protocol import Engine, Model, Session, StreamDecoder

if TYPE_CHECKING:
    from engine.sampler import SamplerSettings

Cancel = Callable[[], bool]


class StopStrings:
    """Cuts a stream of text in front of the first stop string; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [s for s in stops if s]
        self._held = ""
        self._released = 0  # characters of the held text that were shown already

    def push(self, text: str) -> tuple[str, bool]:
        """Add text; give (what is safe to show, whether a stop string was found)."""
        self._held += text
        found = [at for at in (self._held.find(s) for s in self._stops) if at >= 0]
        cut = min(found) if found else len(self._held) - max((self._overlap(s) for s in self._stops), default=0)
        shown = self._held[self._released : cut]
        self._released = max(0, self._released - cut)
        self._held = "" if found else self._held[cut:]
        return shown, bool(found)

    def release(self) -> str:
        """Give what was held back, to be shown now; a stop string that it begins is still recognized."""
        shown = self._held[self._released :]
        self._released = len(self._held)
        return shown

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        for n in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:n]):
                return n
        return 0


@dataclass
class Reply:
    """A reply being written; `tokens` are those that were sampled and fed."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    stop: str = ""  # stop | length | cancelled, "" while it runs
    decode_s: float = 0.0
    drafted: int = 0  # tokens that were guessed and computed along
    accepted: int = 0  # of these, such as were then chosen


@dataclass
class Decoding:
    """Text side of a reply: detokenizer and stop strings, kept over a save in mid-reply."""

    decoder: StreamDecoder
    stops: StopStrings

    @classmethod
    def begin(
        cls,
        engine: Engine,
        model: Model,
        stops: Sequence[str],
        before: Sequence[int] = (),
        previous: int | None = None,
    ) -> Decoding:
        """Start behind the id `previous`.

        `before` are ids of the same reply that were shown already (their unfinished bytes are kept).
        """
        decoding = cls(engine.stream_decoder(model, previous), StopStrings(stops))
        for token in before:
            decoding.stops.push(decoding.decoder.push(token))
        decoding.stops.release()
        return decoding


@dataclass
class Writing:
    """One session's reply in the making: `next_token` says what to feed, `fed` records that it was. Mutates session,
    reply and decoding.

    `between(reply)` runs after every fed token and may hand back another Reply to go on with (a save in mid-reply ends
    one node and begins the next). `first_token` overrides the first choice.
    """

    engine: Engine
    model: Model
    session: Session
    settings: SamplerSettings
    reply: Reply
    decoding: Decoding
    limit: int | None = None
    on_text: Callable[[str], None] = lambda text: None
    between: Callable[[Reply], Reply] = lambda reply: reply
    first_token: int | None = None
    on_end: Callable[[], None] = lambda: None
    made: int = 0
    begin: float = field(default_factory=time.perf_counter)

    def next_token(self, cancelled: bool) -> int | None:
        """Give the next token, or end the reply: by `cancelled`, limit, context, end-of-turn token or stop string."""
        reply, session, model = self.reply, self.session, self.model
        if cancelled:
            reply.stop = "cancelled"
        elif (self.limit is not None and self.made >= self.limit) or session.position >= model.context_length:
            reply.stop = "length"
        if reply.stop:
            return None
        token = self._choose()
        if model.tokenizer.is_end_of_turn(token):
            reply.stop = "stop"
            return None
        shown, ended = self.decoding.stops.push(self.decoding.decoder.push(token))
        self._show(shown)
        if ended:
            # The token that completes a stop string is the reason, so like an end token it is neither listed nor fed.
            reply.stop = "stop"
            return None
        return token

    def fed(self, token: int) -> None:
        """Record a token that the session has taken."""
        self.reply.tokens.append(token)
        self.made += 1
        self.reply.decode_s = time.perf_counter() - self.begin
        self.reply = self.between(self.reply)

    def finish(self) -> Reply:
        """Show what was held back; give the reply that was open at the end."""
        # Bytes of an unfinished character stay with the decoder: going on later completes them, an end drops them.
        self._show(self.decoding.stops.release())
        if self.reply.stop == "stop":
            self._show(self.decoding.decoder.flush())
        self.on_end()
        return self.reply

    def _choose(self) -> int:
        session = self.session
        if self.first_token is not None and self.made == 0:
            return self.first_token
        if session.logits is None:
            raise RuntimeError("a session to generate from must have logits")
        return self.engine.sample(
            session.logits, session.tokens, self.settings, session.dice_key, session.position, model=self.model
        )

    def _show(self, text: str) -> None:
        if text:
            self.reply.text += text
            self.on_text(text)


def generate(writing: Writing, cancel: Cancel = lambda: False, *, speculate: bool = False) -> Reply:
    """Write one reply to its end; with `speculate` what was said before is guessed again where that is faster.

    Raises NonFiniteLogits.
    """
    model, session = writing.model, writing.session
    sessions = [session]
    guesses = writing.engine.speculation(session.tokens) if speculate else None
    behind: float | None = None  # when the last pass ended, if it was the last token's
    while (token := writing.next_token(cancel())) is not None:
        if guesses is None or guesses.asleep():
            model.step(sessions, [token])
            behind = None
        else:
            left = model.context_length if writing.limit is None else writing.limit - writing.made - 1
            draft = guesses.draft(token, left)
            begin = time.perf_counter()
            rows = model.step(sessions, [token], [draft] if draft else None)
            end = time.perf_counter()
            guesses.took(rows, end - begin, 0.0 if behind is None else begin - behind)
            behind = end
        writing.fed(token)
    if guesses is not None:
        writing.reply.drafted, writing.reply.accepted = guesses.drafted, guesses.accepted
    return writing.finish()


def generate_together(writings: Sequence[Writing], cancel: Cancel = lambda: False) -> None:
    """Write several replies, one token of each in a pass over the weights, to their ends; each becomes what it would
    have become alone. One that ends leaves the others to go on. Raises NonFiniteLogits.
    """
    going = list(writings)
    while going:
        cancelled = cancel()
        asked = [(writing, writing.next_token(cancelled)) for writing in going]
        chosen = [(writing, token) for writing, token in asked if token is not None]
        for writing, token in asked:
            if token is None:
                writing.finish()
        going = [writing for writing, _ in chosen]
        if going:
            going[0].model.step([writing.session for writing in going], [token for _, token in chosen])
        for writing, token in chosen:
            writing.fed(token)
