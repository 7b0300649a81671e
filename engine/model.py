"""A model: immutable, shared by all its sessions. Opens a GGUF file, feeds tokens, captures and restores sessions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.batch import Run, Runner
from engine.chat_template import ChatTemplate
from engine.compilation import compile_for
from engine.errors import ContextFull, EngineError, NonFiniteLogits, UnsupportedTokenizer
from engine.fingerprint import key_of, remembered_tensors_digest, tensors_digest
from engine.gguf import GGUF
from engine.hyperparameters import Hyperparameters
from engine.kv import KVLayout, KVType
from engine.packed import PackedWeights
from engine.pool import ThreadPool, physical_cores
from engine.sampler import SamplerSettings
from engine.session import Session, SessionState
from engine.tokenizer import Tokenizer
from engine.weights import Weights, load_weights

Floats = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]

NUMERICS_VERSION = 1
DEFAULT_CONTEXT = 4096
_EVAL_ROWS = 64
_MOST_THREADS = 256
_LONGEST_CONTEXT = 1 << 20


class Model:
    """One open model file. Its methods may be called from any thread; they run one at a time."""

    def __init__(
        self,
        gguf: GGUF,
        weights: Weights,
        kept: PackedWeights,
        shape: Hyperparameters,
        context: int,
        kv_type: KVType,
        threads: int,
        tensors: str,
    ):
        self._gguf, self._shape, self._weights, self._kept = gguf, shape, weights, kept
        self._layout = KVLayout(shape, kv_type)
        self._pool = ThreadPool(threads)
        self._runner = Runner(shape, weights, self._layout, context, self._pool)
        self._lock = threading.Lock()
        self.path: Path = gguf.path
        self.name: str = gguf.text("general.name", gguf.path.stem)
        self.architecture: str = gguf.architecture
        self.context_length: int = context
        self.vocabulary_size: int = weights.matrices[-1].rows
        self.kv_type: KVType = kv_type
        self.threads: int = threads
        self.tokenizer = Tokenizer.from_gguf(gguf, self.vocabulary_size)
        if self.tokenizer.vocabulary_size != self.vocabulary_size:
            raise UnsupportedTokenizer(
                f"with {self.tokenizer.vocabulary_size} tokens for {self.vocabulary_size} rows of embedding"
            )
        self.template = ChatTemplate.from_gguf(gguf, self.tokenizer)
        self.sampler_defaults = SamplerSettings.from_gguf(gguf)
        self.state_fields: dict[str, str] = {
            "tensors": tensors,
            "architecture": gguf.architecture,
            "hyperparameters": json.dumps(shape.as_fields(), sort_keys=True),
            "kv_type": kv_type,
            "numerics": str(NUMERICS_VERSION),
        }
        self.state_key: str = key_of(self.state_fields)
        self.prompt_fields: dict[str, str] = {
            "tokenizer": self.tokenizer.digest,
            "template": self.template.digest,
        }
        self.prompt_key: str = key_of(self.prompt_fields)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        context: int | None = None,
        kv_type: KVType = "f16",
        threads: int | None = None,
        progress: Progress | None = None,
        weights_quota: int | None = None,
    ) -> Model:
        """Map, check, compile and repack. `progress(phase, done, total)` with phases "read", "compile", "pack".

        context: tokens a session can hold; default the smaller of the trained context and 4096. threads: default the
        physical cores. weights_quota: bytes of disk for repacked weights of all models (engine/packed.py). Raises
        EngineError; ValueError where an argument is out of range.
        """
        if threads is not None and not 1 <= threads <= _MOST_THREADS:
            raise ValueError(f"threads must be in 1 to {_MOST_THREADS}")
        if context is not None and not 1 <= context <= _LONGEST_CONTEXT:
            raise ValueError(f"the context must be in 1 to {_LONGEST_CONTEXT}")
        tell: Progress = progress if progress is not None else lambda phase, done, total: None
        tell("read", 0, 1)
        gguf = GGUF.open(path)
        try:
            shape = Hyperparameters.from_gguf(gguf)
            size = context if context is not None else min(shape.trained_context, DEFAULT_CONTEXT)
            shape = shape.for_context(gguf, size)
            workers = threads if threads is not None else physical_cores()
            tell("read", 1, 1)
            tensors = cache(lambda: remembered_tensors_digest(gguf, workers))
            kept = PackedWeights(tensors, weights_quota)
            weights = load_weights(gguf, shape, workers, lambda done, total: tell("pack", done, total), kept)
            compile_for(weights.kinds, kv_type, lambda done, total: tell("compile", done, total))
            return cls(gguf, weights, kept, shape, size, kv_type, workers, tensors())
        except EngineError:
            gguf.close()
            raise

    def weights_digest(self) -> str:
        """The tensors' digest, computed again from the file; equal to state_fields["tensors"] if nothing changed it.

        Raises DamagedWeights where the repacked copy that is computed with is not what was written.
        """
        self._kept.check()
        return tensors_digest(self._gguf, self.threads)

    @property
    def unkept_weights(self) -> str:
        """Why the repacked weights are not kept on disk for the next start; "" where they are, or need not be."""
        return self._kept.unkept

    def close(self) -> None:
        """Let the threads end and the file go. Sessions must not be fed any more."""
        self._pool.close()
        self._kept.finish()
        self._gguf.close()

    def new_session(self, dice_key: bytes = b"") -> Session:
        """An empty session."""
        return Session(self._layout, self.context_length, dice_key)

    def prefill(
        self,
        session: Session,
        tokens: Sequence[int],
        *,
        batch_size: int = 512,
        progress: Callable[[int, int], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> int:
        """Feed tokens in chunks of `batch_size`; the split cannot change a bit. Mutates the session.

        `progress(done, total)` is called behind each chunk and `cancel()` asked before each; gives how many tokens were
        fed. Raises ContextFull before anything is fed, NonFiniteLogits with the chunks before the bad one kept.
        """
        tokens = self._checked(tokens)
        self._own(session)
        if batch_size < 1:
            raise ValueError("a batch has at least one token")
        total = len(tokens)
        if session.position + total > self.context_length:
            raise ContextFull(session.position, total, self.context_length)
        done = 0
        while done < total and not (cancel is not None and cancel()):
            chunk = tokens[done : done + batch_size]
            self._feed([session], [chunk], [[]])
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        return done

    def step(
        self, sessions: Sequence[Session], tokens: Sequence[int], drafts: Sequence[Sequence[int]] | None = None
    ) -> int:
        """Feed one token to each session in one pass over the weights; each gets what it would have got alone.

        `drafts` are guesses of what will follow each token. They ride along in the same pass, and a later step whose
        token was guessed right takes the result that is there already: the bits are those of a pass of its own, only
        sooner. Gives the rows that were computed, 0 where all results were there. Mutates the sessions, which must be
        different ones. Raises ContextFull before anything is fed, NonFiniteLogits for the first session whose logits
        are not numbers; then none of them has the token.
        """
        if len(sessions) != len(tokens) or len(set(map(id, sessions))) != len(sessions):
            raise ValueError("a step takes one token for each of several different sessions")
        for session in sessions:
            self._own(session)
            if session.position + 1 > self.context_length:
                raise ContextFull(session.position, 1, self.context_length)
        ids = self._checked(tokens)
        known = [session for session, token in zip(sessions, ids, strict=True) if session.guessed(token)]
        rows = 0
        if len(known) < len(sessions):
            feed: list[Session] = []
            feed_ids: list[list[int]] = []
            ahead: list[list[int]] = []
            for i, session in enumerate(sessions):
                if session not in known:
                    feed.append(session)
                    feed_ids.append([ids[i]])
                    room = self.context_length - session.position - 1
                    ahead.append(self._checked(drafts[i])[:room] if drafts is not None and drafts[i] else [])
            rows = self._feed(feed, feed_ids, ahead)
        for session in known:
            session.advance()
        return rows

    def all_logits(self, tokens: Sequence[int]) -> Floats:
        """Logits behind every token, float32 (n, vocabulary). Raises ContextFull, NonFiniteLogits."""
        tokens = self._checked(tokens)
        session = self.new_session()
        out = np.zeros((len(tokens), self.vocabulary_size), np.float32)
        for at in range(0, len(tokens), _EVAL_ROWS):
            chunk = tokens[at : at + _EVAL_ROWS]
            start = session.position
            with self._lock:
                session.make_room(len(chunk))
                run = Run(start, len(chunk), session.table_address)
                logits, hidden = self._runner.run(chunk, [run], range(len(chunk)))
            if not np.isfinite(logits).all():
                raise NonFiniteLogits(start + int(np.argmin(np.isfinite(logits).all(axis=1))) + 1)
            session.accept(chunk, logits[-1], hidden[-1])
            out[at : at + len(chunk)] = logits
        return out

    def capture(self, session: Session, start: int = 0) -> SessionState:
        """A copy of the session; KV of the tokens [start, position) only."""
        self._own(session)
        with self._lock:
            chunks = session.chunks(start)
        return SessionState(session.tokens.fork(), chunks, session.logits, session.hidden, session.dice_key)

    def restore(self, state: SessionState) -> Session:
        """A session in fresh buffers from a whole state. Raises StateMismatch, ContextFull, ValueError."""
        session = self.new_session(state.dice_key)
        self._checked(state.tokens)
        session.fill(state)
        return session

    def _own(self, session: Session) -> None:
        """Raise ValueError for another model's session, whose blocks are laid out otherwise."""
        if session.layout is not self._layout:
            raise ValueError("the session belongs to another model")

    def _checked(self, tokens: Sequence[int]) -> list[int]:
        """The ids as ints; raises ValueError for one outside the vocabulary, which a kernel would read past."""
        ids = [int(t) for t in tokens]
        if ids and not (min(ids) >= 0 and max(ids) < self.vocabulary_size):
            raise ValueError(f"token ids must be in 0 to {self.vocabulary_size - 1}")
        return ids

    def _feed(self, sessions: Sequence[Session], tokens: list[list[int]], drafts: list[list[int]]) -> int:
        """One pass: each session gets its tokens, and keeps what comes out behind each token of its draft; gives rows.

        Nothing is recorded if any session's logits are not numbers; those behind guesses may not be, they may be wrong.
        """
        with self._lock:
            runs: list[Run] = []
            outputs: list[int] = []
            fed: list[int] = []
            for session, ids, draft in zip(sessions, tokens, drafts, strict=True):
                fed += [*ids, *draft]
                session.make_room(len(ids) + len(draft))
                runs.append(Run(session.position, len(ids) + len(draft), session.table_address))
                outputs += range(len(fed) - len(draft) - 1, len(fed))
            logits, hidden = self._runner.run(fed, runs, outputs)
            well = bool(np.isfinite(logits).all())
            finite = [well or bool(np.isfinite(row).all()) for row in logits]
            logits.setflags(write=False)
            hidden.setflags(write=False)
            firsts = list(accumulate((1 + len(draft) for draft in drafts[:-1]), initial=0))
            for session, ids, first in zip(sessions, tokens, firsts, strict=True):
                if not finite[first]:
                    raise NonFiniteLogits(session.position + len(ids))
            for session, ids, draft, first in zip(sessions, tokens, drafts, firsts, strict=True):
                session.accept(ids, logits[first], hidden[first])
                good = next((i for i in range(len(draft)) if not finite[first + 1 + i]), len(draft))
                session.foresee(
                    [(draft[i], logits[first + 1 + i], hidden[first + 1 + i]) for i in range(good)],
                )
        return len(fed)
