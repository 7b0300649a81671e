"""What a savepoint says about how its model was opened, for whoever opens it again without saying otherwise.

The same weights with another KV type are another arithmetic and give other tokens; a context that is smaller than the
savepoint cannot hold it. Both are the savepoint's unless a person asks for something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from app.config import LONGEST_CONTEXT, Config, bundled_model
from app.engine_protocol import KVType, LoadProgress, Model
from snapshots import Library, ModelInfo, Node

_USUAL_CONTEXT = 4096  # what the engine opens at most when it is not told
_ROOM = 1024  # tokens that a conversation should be able to grow by where its context has to be guessed


@dataclass(frozen=True)
class SavedModel:
    """How the model of a savepoint was opened. None leaves the choice to whoever opens it."""

    info: ModelInfo | None = None
    cache_type: KVType | None = None
    n_tokens: int = 0
    opened_with: int = 0  # the context that the model had when it was opened last; 0: not on record

    @property
    def file(self) -> Path | None:
        """The model's file, where it still is."""
        found = Path(self.info.path) if self.info is not None else None
        return found if found is not None and found.is_file() else None

    def context(self, file: Path | None) -> int | None:
        """Give the context to open a model file with: None, its own default, wherever that holds the savepoint.

        Where the savepoint is longer than that, it is the context that the model was opened with last, or, if that is
        not on record, the next power of two with some room. Reads the file's header; where it cannot, gives None.
        """
        from engine.errors import EngineError
        from engine.gguf import GGUF

        if self.n_tokens == 0 or file is None:
            return None
        try:
            gguf = GGUF.open(file)
            trained = gguf.metadata.get(f"{gguf.architecture}.context_length")
            gguf.close()
        except (EngineError, OSError):  # whoever opens the model says it better
            return None
        usual = min(trained, _USUAL_CONTEXT) if isinstance(trained, int) else _USUAL_CONTEXT
        if self.n_tokens <= usual:
            return None
        if self.n_tokens <= self.opened_with <= LONGEST_CONTEXT:
            return self.opened_with
        return min(LONGEST_CONTEXT, 1 << (self.n_tokens + _ROOM - 1).bit_length())


def how_to_open(
    saved: SavedModel,
    file: Path | None,
    config: Config,
    *,
    cache_type: KVType | None = None,
    context: int | None = None,
) -> tuple[KVType, int | None]:
    """Give KV type and context size (None: the file's default): as asked for, else the savepoint's, else config's.

    The config file's context counts where it holds the savepoint.
    """
    if context is None and config.context is not None and config.context >= saved.n_tokens:
        context = config.context
    if context is None:
        context = saved.context(file)
    return cache_type or saved.cache_type or config.cache_type, context


def open_saved(
    saved: SavedModel,
    file: Path | None,
    progress: LoadProgress,
    *,
    cache_type: KVType | None,
    context: int | None,
    threads: int | None,
) -> Model:
    """Open a file, else the savepoint's own model where it still is, else the bundled one, as it was saved."""
    from app.local_engine import LocalEngine

    file = file or saved.file or bundled_model()
    kv_type, context = how_to_open(saved, file, Config(), cache_type=cache_type, context=context)
    return LocalEngine().open_model(file, context=context, kv_type=kv_type, threads=threads, progress=progress)


def saved_model(library: Library, path: Sequence[Node]) -> SavedModel:
    """Give the model of the last node of a path that was computed by one. Reads rows only."""
    info = next((i for i in map(library.model_info, _keys(library, path)) if i is not None), None)
    kv_type = info.state_fields.get("kv_type") if info is not None else None
    cache_type = next((known for known in get_args(KVType) if known == kv_type), None)
    opened_with = library.remembered_settings().get(_context_key(info.state_key), "") if info is not None else ""
    return SavedModel(
        info, cache_type, path[-1].n_tokens if path else 0, int(opened_with) if opened_with.isdecimal() else 0
    )


def remember_context(library: Library, state_key: str, context: int) -> None:
    """Keep the context that a model was opened with; writes only where it is another one. Raises StoreError."""
    if library.remembered_settings().get(_context_key(state_key)) != str(context):
        library.remember_setting(_context_key(state_key), str(context))


def _context_key(state_key: str) -> str:
    return f"context {state_key[:32]}"


def was_computed(library: Library, path: Sequence[Node]) -> bool:
    """Tell whether a model ever computed anything of a path."""
    return bool(_keys(library, path))


def _keys(library: Library, path: Sequence[Node]) -> list[str]:
    """The state keys of a path, the last node's first; those of its rows where the nodes name none."""
    named = [node.state_key for node in reversed(path) if node.state_key]
    return named or [row.state_key for node in reversed(path) for row in library.node_states(node.id)]
