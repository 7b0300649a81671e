"""An open model and the session that is live on it: how a chat gets from a place in the tree to logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from app.engine_protocol import Engine, KVType, Model, Session
from app.errors import NoModel
from app.events import Event, Progress
from app.place import Place
from app.savepoints import Reached, Reacher, model_info
from snapshots import Library, NodeState

if TYPE_CHECKING:
    from engine.sampler import SamplerSettings

NUMERICS_FIELDS = ("numerics",)
HARMLESS_FIELDS = (*NUMERICS_FIELDS, "kv_type")  # the same weights: recomputing is all it takes


@dataclass(frozen=True)
class ModelOptions:
    """How models are opened. `threads` None: all cores; batch in tokens a step.

    `context` and `cache_type` None: those of the savepoint that the model is opened for, else the config file's.
    """

    threads: int | None = None
    context: int | None = None
    cache_type: KVType | None = None
    batch_size: int = 512


@dataclass(frozen=True)
class Expectation:
    """What the library remembers of a node's state, seen from the open model."""

    digest: str = ""
    differs: tuple[str, ...] = ()  # model fields that are not those of the saved state; empty: the same model
    saved_with: str = ""  # the other model's name


class ReadsAlong(Protocol):
    """Whoever computes on a fork of the live session while a person types."""

    def take(self, tokens: Sequence[int], live: Session | None) -> Session | None:
        """Stop, and give the session that shares more of `tokens`: the live one, or another."""

    def forget(self) -> Session | None:
        """Stop, and let go of what there was."""

    def close(self) -> None:
        """End for good."""


class Workbench:
    """Owns the model and the live session. Used from the chat's working thread only, but for reading `model`."""

    def __init__(self, engine: Engine, states: Library | None, options: ModelOptions) -> None:
        self.engine = engine
        self.options = options
        self.model: Model | None = None
        self.session: Session | None = None
        self._states = states
        self._reacher: Reacher | None = None
        self.ahead: ReadsAlong | None = None

    def open(
        self, path: Path, emit: Callable[[Event], None], cache_type: KVType = "f16", context: int | None = None
    ) -> float:
        """Open a model; the old one is closed once the new one answers. Gives the seconds it took."""
        begin = time.perf_counter()

        def progress(phase: str, done: int, total: int) -> None:
            emit(Progress(phase, done, total, None))

        o = self.options
        model = self.engine.open_model(path, context=context, kv_type=cache_type, threads=o.threads, progress=progress)
        self._stop_reading_along()
        old, self.model, self.session = self.model, model, None
        self._reacher = Reacher(self.engine, model, self._states, batch_size=o.batch_size)
        if old is not None:
            old.close()
        return time.perf_counter() - begin

    def need_model(self) -> Model:
        """Give the open model. Raises NoModel."""
        if self.model is None:
            raise NoModel("No model is open yet.")
        return self.model

    def can_read(self, place: Place) -> bool:
        """Tell whether the ids of a place mean the same to the open model."""
        model = self.need_model()
        return place.readable_by(model.prompt_key, model.vocabulary_size)

    def expectation(self, node_id: str, state_key: str, library: Library) -> Expectation:
        """Find the stored digest to compare a node's logits with, and how its model differs from the open one."""
        model = self.need_model()
        rows: dict[str, NodeState] = {row.state_key: row for row in library.node_states(node_id)}
        if model.state_key in rows:
            return Expectation(rows[model.state_key].logits_digest)
        for other in [state_key, *rows]:
            if not other or other == model.state_key:
                continue
            info = library.model_info(other)
            differs = info.differing_fields(model_info(model)) if info else ("model",)
            # The same model computed by another version of the arithmetic is worth a comparison: it may still agree.
            numerics_only = all(field in NUMERICS_FIELDS for field in differs)
            digest = rows[other].logits_digest if numerics_only and other in rows else ""
            return Expectation(digest, differs, info.name if info else "")
        return Expectation()

    def reach(
        self,
        tokens: Sequence[int],
        dice_key: bytes,
        *,
        digest: str = "",
        emit: Callable[[Event], None],
        cancel: Callable[[], bool],
        phase: str,
    ) -> Reached:
        """Make a session that holds `tokens`; what is live stays until `adopt`. Raises Cancelled, ContextFull."""
        if self._reacher is None:
            raise NoModel("No model is open yet.")
        live = self.ahead.take(tokens, self.session) if self.ahead is not None else self.session
        return self._reacher.reach(
            tokens,
            live,
            dice_key,
            expected_digest=digest,
            emit=emit,
            cancel=cancel,
            phase=phase,
            keep_partial=self._keep,
        )

    def _stop_reading_along(self) -> None:
        """No other session may be fed by a model that is about to be closed."""
        if self.ahead is not None:
            self.ahead.forget()

    def adopt(self, session: Session) -> None:
        """Make a session the live one."""
        self.session = session

    def _keep(self, session: Session) -> None:
        """Keep what a cancelled prefill computed, where it is more than what is live."""
        if self.session is None or session.position > self.session.position:
            self.session = session

    def settings_for(self, values: dict[str, Any], overrides: dict[str, Any]) -> SamplerSettings:
        """Make sampler settings: the model's own, then the savepoint's, then what was asked for."""
        defaults = self.need_model().sampler_defaults.to_json()
        settings = self.engine.settings_from_json({**defaults, **values, **overrides})
        settings.validate()
        return settings

    def close(self) -> None:
        """Give the model back."""
        if self.ahead is not None:
            self.ahead.close()
        if self.model is not None:
            self.model.close()
        self.model = self.session = self._reacher = None
