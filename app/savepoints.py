"""The one adapter between engine and snapshots: sessions become segments and rows, and rows become sessions again.

`Reacher` climbs the ladder: give it a list of tokens and it makes a session that holds exactly these, from what is
live, what is on disk, and computing the rest, whichever is the least work. The numeric contract says that all ways
give the same bits; where a digest was stored it is compared. `StateWriter` saves states from a thread of its own.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.engine_protocol import Engine, Model, Session, SessionState
from app.errors import Cancelled
from app.events import Event, Notice, NotSaved, Progress, Rung, Saved
from snapshots import Chunk, Library, ModelInfo, SaveReport

if TYPE_CHECKING:
    pass

WORTH_LOADING = 16  # tokens that stored segments must save over the live session before files are read
PENDING_SAVES = 8
WORTH_TIMING = 64  # tokens of a prefill that say how fast the model reads


def remember_speed(library: Library, state_key: str, tokens: int, seconds: float) -> None:
    """Keep how fast a model read `tokens` tokens of a prompt here; written only where it says more than what is known.

    A few tokens pay for the whole start of a prefill: they tell how fast it is at least; the fastest of them counts.
    """
    if tokens <= 0 or seconds <= 0:
        return
    speed, known = tokens / seconds, _speeds(library, state_key)
    if tokens >= WORTH_TIMING:
        if known[0] is None or abs(known[0] - speed) > 0.25 * speed:
            library.remember_setting(_TIMED + state_key[:32], f"{speed:.3f}")
    elif known[0] is None and (known[1] is None or speed > 1.25 * known[1]):
        library.remember_setting(_AT_LEAST + state_key[:32], f"{speed:.3f}")


_TIMED, _AT_LEAST = "prefill ", "prefill at least "  # with the start of a state key: names of settings in the library


def _speeds(library: Library, state_key: str) -> tuple[float | None, float | None]:
    """Tokens per second as timed, and those that it makes at least."""
    known = library.remembered_settings()
    found: list[float | None] = []
    for kind in (_TIMED, _AT_LEAST):
        try:
            speed = float(known.get(kind + state_key[:32], "0"))
        except ValueError:
            speed = 0.0
        found.append(speed if 0 < speed < math.inf else None)
    return found[0], found[1]


def recompute_s(library: Library, state_key: str, tokens: int) -> tuple[float, bool] | None:
    """How long computing so many tokens would take, and whether that was timed (else it is the most that it takes).

    None where nothing was ever computed with this model here.
    """
    timed, at_least = _speeds(library, state_key)
    speed = timed or at_least
    return (tokens / speed, timed is not None) if speed else None


def model_info(model: Model) -> ModelInfo:
    """What the store remembers of a model."""
    return ModelInfo(
        state_key=model.state_key,
        prompt_key=model.prompt_key,
        name=model.name,
        path=str(model.path),
        state_fields=dict(model.state_fields),
        prompt_fields=dict(model.prompt_fields),
    )


def common_length(a: Sequence[object], b: Sequence[object]) -> int:
    """Length of the longest common prefix of two lists, of tokens say."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)


@dataclass(frozen=True)
class Reached:
    """A session that holds the wanted tokens and their logits. `reused` + `prefilled` = number of tokens.

    `bit_exact` compares the logits with the stored digest; None where none was stored. `damaged` counts bad files.
    """

    session: Session
    rung: Rung
    reused: int
    prefilled: int
    bit_exact: bool | None
    damaged: int
    restore_s: float
    prefill_s: float


class ProgressMeter:
    """Turns the engine's counts into Progress events with a time left, at most ten a second."""

    def __init__(self, phase: str, emit: Callable[[Event], None]) -> None:
        self._phase, self._emit = phase, emit
        self._begin = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Report `done` of `total`."""
        now = time.monotonic()
        if done < total and now - self._last < 0.1:
            return
        self._last = now
        eta = (now - self._begin) * (total - done) / done if done else None
        self._emit(Progress(self._phase, done, total, eta))


class Reacher:
    """Builds sessions for one open model. Mutates nothing that is live: every session it gives is a new one."""

    def __init__(self, engine: Engine, model: Model, library: Library | None, *, batch_size: int = 512) -> None:
        self._engine, self._model, self._library = engine, model, library
        self._batch_size = batch_size

    def reach(
        self,
        tokens: Sequence[int],
        live: Session | None,
        dice_key: bytes,
        *,
        expected_digest: str = "",
        emit: Callable[[Event], None] = lambda event: None,
        cancel: Callable[[], bool] = lambda: False,
        phase: str = "prefill",
        keep_partial: Callable[[Session], None] = lambda session: None,
    ) -> Reached:
        """Give a session with exactly `tokens` and their logits. Raises Cancelled, ContextFull.

        What was computed until a cancel is handed to `keep_partial`.
        """
        begin = time.perf_counter()
        tokens = list(tokens)
        session, damaged = self._nearest(tokens, live, dice_key)
        if session.position == len(tokens) and tokens and session.logits is None:
            session.truncate(len(tokens) - 1)
        reused = session.position
        restored = time.perf_counter()
        todo = tokens[reused:]
        meter = ProgressMeter(phase, emit)
        if todo:
            fed = self._model.prefill(session, todo, batch_size=self._batch_size, progress=meter, cancel=cancel)
            if fed < len(todo):
                keep_partial(session)
                raise Cancelled
        bit_exact = None
        if expected_digest and session.logits is not None:
            bit_exact = session.logits_digest() == expected_digest
        rung: Rung = "bundle" if not todo else "partial" if reused else "recomputed"
        end = time.perf_counter()
        reached = Reached(
            session, rung, reused, len(todo), bit_exact, damaged, restored - begin, end - restored if todo else 0.0
        )
        if bit_exact is False and reused:
            # Some reused part is not what it says it is, or another version made the digest: computing decides.
            return self._recompute(tokens, dice_key, expected_digest, meter, cancel, reached)
        return reached

    def _recompute(
        self,
        tokens: list[int],
        dice_key: bytes,
        expected_digest: str,
        meter: ProgressMeter,
        cancel: Callable[[], bool],
        before: Reached,
    ) -> Reached:
        begin = time.perf_counter()
        session = self._model.new_session(dice_key)
        if self._model.prefill(session, tokens, batch_size=self._batch_size, progress=meter, cancel=cancel) < len(
            tokens
        ):
            raise Cancelled
        exact = session.logits_digest() == expected_digest
        seconds = time.perf_counter() - begin + before.prefill_s
        return Reached(session, "recomputed", 0, len(tokens), exact, before.damaged, before.restore_s, seconds)

    def _nearest(self, tokens: list[int], live: Session | None, dice_key: bytes) -> tuple[Session, int]:
        """Give a new session with the longest prefix of `tokens` that can be had without computing."""
        common = common_length(list(live.tokens), tokens) if live is not None else 0
        whole = live is not None and common == len(tokens) == live.position and live.logits is not None
        damaged = 0
        if self._library is not None and not whole and tokens:
            stored = self._library.longest_prefix(self._model.state_key, tokens)
            if stored >= common + WORTH_LOADING or (stored == len(tokens) and stored > 0):
                loaded = self._library.load_state(self._model.state_key, tokens)
                damaged = loaded.damaged
                if loaded.n_valid > common or (loaded.n_valid == len(tokens) and loaded.logits is not None):
                    session = self._from_store(tokens[: loaded.n_valid], loaded, dice_key)
                    if session is not None:
                        return session, damaged
        if live is None or common == 0:
            return self._model.new_session(dice_key), damaged
        session = live.fork()
        session.truncate(common)
        session.dice_key = dice_key
        return session, damaged

    def _from_store(self, tokens: list[int], loaded: Any, dice_key: bytes) -> Session | None:
        from engine.errors import StateMismatch

        parts = [(c.start, c.stop, c.arrays) for c in loaded.chunks]
        try:
            state = self._engine.state_from_parts(tokens, parts, loaded.logits, loaded.hidden, dice_key)
            return self._model.restore(state)
        except (StateMismatch, ValueError):
            return None  # whatever the file holds, it is not this model's state: computing replaces it


@dataclass(frozen=True)
class _Save:
    node_id: str
    state_key: str
    state: SessionState
    digest: str
    name: str | None


@dataclass(frozen=True)
class _Count:
    """Count what the states take, make room where it is too much, and let the search index catch up."""


class StateWriter:
    """Saves states in a thread of its own, in order; what fails becomes a Notice and the chat goes on.

    `save` copies the new part of a session and returns; call it between tokens, from the thread that owns the session.
    """

    def __init__(self, library: Library, emit: Callable[[Event], None]) -> None:
        self._library, self._emit = library, emit
        self._queue: queue.Queue[_Save | _Count | None] = queue.Queue(PENDING_SAVES)
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._complained = ""
        self._told_of_room = False
        self.last_report: SaveReport | None = None
        self.bytes_written = 0

    def save(self, node_id: str, model: Model, session: Session, *, name: str | None = None) -> None:
        """Copy what is not on disk yet of a session's state and queue it behind `node_id`."""
        if session.logits is None:
            return
        try:
            start = self._library.save_from(model.state_key, session.tokens)
            state = model.capture(session, min(start, session.position))
        except (OSError, MemoryError, ValueError) as error:
            self._complain(error)
            return
        self._start()
        self._queue.put(_Save(node_id, model.state_key, state, session.logits_digest(), name))

    def count(self) -> None:
        """Count in the background what the states take on disk, and make room where it is too much."""
        self._start()
        self._queue.put(_Count())

    def _start(self) -> None:
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
                self._thread.start()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until the queue is written; False after the timeout."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._queue.all_tasks_done.wait(left)
        return True

    def close(self) -> None:
        """Write the rest and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            try:
                if job is None:
                    return
                self._make_room(0) if isinstance(job, _Count) else self._write(job)
            finally:
                self._queue.task_done()

    def _write(self, job: _Save) -> None:
        from snapshots.errors import StoreError

        state = job.state
        try:
            report = self._library.save_state(
                job.node_id,
                job.state_key,
                state.tokens,
                [Chunk(c.start, c.stop, c.arrays) for c in state.chunks if c.start < c.stop],
                logits=state.logits,
                hidden=state.hidden,
                dice_key=state.dice_key,
                logits_digest=job.digest,
            )
        except (StoreError, OSError, ValueError) as error:
            self._complain(error)
            self._emit(NotSaved(job.node_id))
            return
        self._complained = ""
        self.last_report = report
        self.bytes_written += report.bytes_written
        self._emit(Saved(job.node_id, report.bytes_written, job.name))
        self._make_room(report.bytes_written)

    def _make_room(self, written: int) -> None:
        """Evict what was not used for longest, where the cap is passed; say so once."""
        from snapshots.errors import StoreError

        try:
            eviction = self._library.make_room(written)
            if not written:
                self._library.index_text()
        except (StoreError, OSError):
            return  # room is made with the next save; what cannot be read now is complained about where it matters
        if eviction is not None and eviction.files and not self._told_of_room:
            self._told_of_room = True
            from app.terminal import size

            resume = "savepoint resumes" if eviction.demoted == 1 else "savepoints resume"
            self._emit(
                Notice(
                    f"The quota of the states is full: {size(eviction.size_bytes)} of those not used for longest "
                    f"made room, and {eviction.demoted} {resume} by recomputing."
                )
            )

    def _complain(self, error: Exception) -> None:
        """Say once what keeps states from being saved; the same trouble again stays quiet until a save works."""
        from app.sentences import exit_code, sentence

        text = sentence(error)
        if text == self._complained:
            return
        self._complained = text
        if exit_code(error) == 9:
            text = "The disk is full: the conversation goes on and its text is kept, but states are not saved."
        else:
            text += " States are not saved; the text is kept."
        self._emit(Notice(text, "warning"))
