"""The decode loop: logits → token → text, one token at a time, until something ends the reply.

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
    """A reply being written. Mutated by `generate`; `tokens` are those that were sampled and fed."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    stop: str = ""  # stop | length | cancelled, "" while it runs
    decode_s: float = 0.0


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


def generate(
    engine: Engine,
    model: Model,
    session: Session,
    settings: SamplerSettings,
    reply: Reply,
    decoding: Decoding,
    *,
    limit: int | None = None,
    cancel: Cancel = lambda: False,
    on_text: Callable[[str], None] = lambda text: None,
    between: Callable[[Reply], Reply] = lambda reply: reply,
    first_token: int | None = None,
) -> Reply:
    """Sample and feed until an end-of-turn token, a stop string, `limit` tokens, a full context, or `cancel`.

    `between(reply)` runs after every fed token and may hand back another Reply to go on with (a save in mid-reply ends
    one node and begins the next). `first_token` overrides the first choice. Mutates session, reply and decoding; gives
    the reply that was open at the end. Raises NonFiniteLogits.
    """
    made = 0
    begin = time.perf_counter()
    while not reply.stop:
        if cancel():
            reply.stop = "cancelled"
        elif (limit is not None and made >= limit) or session.position >= model.context_length:
            reply.stop = "length"
        if reply.stop:
            break
        if first_token is not None and made == 0:
            token = first_token
        else:
            if session.logits is None:
                raise RuntimeError("a session to generate from must have logits")
            at = session.position
            token = engine.sample(session.logits, session.tokens, settings, session.dice_key, at, model=model)
        if model.tokenizer.is_end_of_turn(token):
            reply.stop = "stop"
            break
        shown, ended = decoding.stops.push(decoding.decoder.push(token))
        _show(reply, shown, on_text)
        if ended:
            # The token that completes a stop string is the reason, so like an end token it is neither listed nor fed.
            reply.stop = "stop"
            break
        model.step([session], [token])
        reply.tokens.append(token)
        made += 1
        reply.decode_s = time.perf_counter() - begin
        reply = between(reply)
    # Bytes of an unfinished character stay with the decoder: going on later completes them, an end drops them.
    _show(reply, decoding.stops.release(), on_text)
    if reply.stop == "stop":
        _show(reply, decoding.decoder.flush(), on_text)
    return reply


def _show(reply: Reply, text: str, on_text: Callable[[str], None]) -> None:
    if text:
        reply.text += text
        on_text(text)
