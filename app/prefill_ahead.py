"""Prefill ahead: while a person types, the beginning of the message that cannot change by typing on is computed.

Nothing depends on it. It works on a fork of the live session, in small pieces and only while the chat is idle; what it
has is taken at send, as far as its ids are those of the message that is really sent, and is otherwise dropped. The
numeric contract says that the bits are the same either way. Nothing is written anywhere.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from app import prompting
from app.savepoints import common_length

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from app.engine_protocol import Model, Session
    from app.place import Place
    from app.workbench import Workbench

IDLE_S = 0.3  # without a key, before anything is computed
PIECE = 16  # tokens a pass: the longest that somebody who sends has to wait for
# What may be typed next: a token that none of these changes is taken to stand.
_NEXT = ("e", " e", "\n", "1", ".")


class PrefillAhead:
    """Reads along. `update` and `forget` from any thread; `take` by whoever works."""

    def __init__(
        self,
        bench: Workbench,
        place: Place,
        idle: Callable[[], AbstractContextManager[bool]],
        busy: Callable[[], bool],
        wanted: Callable[[], bool],
    ) -> None:
        """`idle` keeps others from working for a moment, and tells whether it could; `busy`: whether somebody works;
        `wanted`: whether a message that is sent now is computed behind the live position.
        """
        self._bench, self._place, self._idle, self._busy, self._wanted = bench, place, idle, busy, wanted
        self._changed = threading.Condition()
        self._text = ""
        self._typed_at = 0.0
        self._turn = 0  # grows whenever what is being computed is not wanted any more
        self._closed = False
        self._thread: threading.Thread | None = None
        self._passes = threading.Lock()  # held while a piece is computed: then the session is nobody else's
        self._session: Session | None = None

    def update(self, text: str) -> None:
        """The message is now this; "" ends reading along. Returns at once."""
        with self._changed:
            if text == self._text or self._closed:
                return
            self._text, self._typed_at = text, time.monotonic()
            self._turn += 1
            if self._thread is None and text:
                self._thread = threading.Thread(target=self._run, name="prefill-ahead", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def take(self, tokens: Sequence[int], live: Session | None) -> Session | None:
        """Stop, and give the session that shares more of `tokens`: the live one, or what was read along."""
        ahead = self.forget()
        if ahead is None:
            return live
        shared = common_length(list(live.tokens), list(tokens)) if live is not None else 0
        return ahead if common_length(list(ahead.tokens), list(tokens)) > shared else live

    def forget(self) -> Session | None:
        """Stop before the next piece and wait for the one that is being computed; give what there was."""
        with self._changed:
            self._turn += 1
            self._text = ""
        with self._passes:
            session, self._session = self._session, None
        return session

    def close(self) -> None:
        """End for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.forget()
        if self._thread is not None:
            self._thread.join()

    # ---- in the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        done = -1
        while True:
            with self._changed:
                while not self._closed and (self._turn == done or not self._text):
                    self._changed.wait()
                while not self._closed and (left := self._typed_at + IDLE_S - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._closed:
                    return
                text, turn = self._text, self._turn
            try:
                begun = not text or self._read(text, turn)
            except Exception:
                begun = True  # whatever is wrong with this message is said when it is sent
            if begun:
                done = turn
            else:
                with self._changed:
                    self._changed.wait(IDLE_S)  # somebody works: look again later

    def _read(self, text: str, turn: int) -> bool:
        """Compute what of a message stands; False where somebody else is at work now."""
        with self._idle() as idle:
            if not idle:
                return False
            model = self._bench.model
            if model is None or self._bench.session is None:
                return False
            if not self._wanted():
                return True
            wanted = self._standing(model, text)
            live = self._bench.session
            with self._passes:
                if turn != self._turn:
                    return True
                best = max(
                    (s for s in (self._session, live) if s is not None),
                    key=lambda s: common_length(list(s.tokens), wanted),
                )
                common = common_length(list(best.tokens), wanted)
                self._session = session = best.fork()
                session.truncate(common)
        while session.position < len(wanted):
            with self._passes:
                if turn != self._turn or self._busy():
                    return turn != self._turn
                model.prefill(session, wanted[session.position : session.position + PIECE])
        return True

    def _standing(self, model: Model, text: str) -> list[int]:
        """The ids that the chat will have behind this message, as far as typing on does not change them."""
        place = self._place
        before = place.tokens()

        def ids(message: str) -> list[int]:
            plan = prompting.next_turn(model, place, message)
            return [*before[: plan.keep], *plan.tokens]

        first = ids(text)
        stands = min(common_length(first, ids(text + more)) for more in _NEXT)
        return first[: min(stands, model.context_length)]
