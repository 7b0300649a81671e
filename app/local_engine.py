"""The engine of this project behind the app's protocol. Importing this module imports neither NumPy nor Numba."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from app.config import directories, load_config, make_private
from app.engine_protocol import KVType, LoadProgress, Model, Speculation, StreamDecoder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from engine.sampler import SamplerSettings


@dataclass(frozen=True)
class Prompt:
    """What makes prompts and reads replies: a model file's tokenizer and template, without its weights."""

    tokenizer: Any
    template: Any
    prompt_key: str


class LocalEngine:
    """Models computed in this process by the `engine` package, which is imported at the first use of each part."""

    def open_model(
        self,
        path: Path,
        *,
        context: int | None = None,
        kv_type: KVType = "f16",
        threads: int | None = None,
        progress: LoadProgress | None = None,
    ) -> Model:
        """Open a GGUF file. Raises the typed errors of `engine.errors`; a file that cannot work fails fast, before the
        slow import of the compiler.
        """
        from engine.gguf import GGUF

        GGUF.open(path).close()
        if progress is not None:
            progress("compile", 0, 1)
        import engine.model

        make_private(directories().cache)  # what the engine keeps lies below it
        quota = load_config().weights_cache
        model = engine.model.Model.open(
            path,
            context=context,
            kv_type=kv_type,
            threads=threads,
            progress=progress,
            weights_quota=None if quota is None else quota << 30,
        )
        return cast(Model, model)

    def open_prompt(self, path: Path) -> Prompt:
        """Open a GGUF file's tokenizer and template only. Raises the typed errors of `engine.errors`."""
        from engine.chat_template import ChatTemplate
        from engine.fingerprint import key_of
        from engine.gguf import GGUF
        from engine.tokenizer import Tokenizer

        gguf = GGUF.open(path)
        try:
            tokenizer = Tokenizer.from_gguf(gguf)
            template = ChatTemplate.from_gguf(gguf, tokenizer)
        finally:
            gguf.close()
        return Prompt(tokenizer, template, key_of({"tokenizer": tokenizer.digest, "template": template.digest}))

    def state_from_parts(
        self,
        tokens: Sequence[int],
        chunks: Sequence[tuple[int, int, Mapping[str, npt.NDArray[Any]]]],
        logits: npt.NDArray[np.float32] | None,
        hidden: npt.NDArray[np.float32] | None,
        dice_key: bytes,
    ) -> Any:
        """Make the engine's SessionState of stored parts."""
        from engine.kv import KVChunk
        from engine.session import SessionState

        return SessionState(
            tokens=tuple(tokens),
            chunks=tuple(KVChunk(start=start, stop=stop, arrays=dict(arrays)) for start, stop, arrays in chunks),
            logits=logits,
            hidden=hidden,
            dice_key=dice_key,
        )

    def stream_decoder(self, model: Any, previous: int | None = None) -> StreamDecoder:
        """Give a fresh incremental detokenizer of the model's vocabulary; `previous` is the id in front."""
        from engine.detokenizer import StreamDecoder as Decoder

        return cast(StreamDecoder, Decoder(model.tokenizer, previous))

    def settings_from_json(self, values: Mapping[str, Any]) -> SamplerSettings:
        """Make sampler settings of a JSON object; raises SamplerError with the field."""
        from engine.sampler import SamplerSettings as Settings

        return Settings.from_json(dict(values))

    def sample(
        self,
        logits: npt.NDArray[np.float32],
        tokens: Sequence[int],
        settings: SamplerSettings,
        dice_key: bytes,
        position: int,
        *,
        model: Any = None,
    ) -> int:
        """Choose the token at `position` with dice stream 0 at that position."""
        from engine.sampler import sample

        # Most tokens are chosen without DRY, and each asks here.
        breakers = _breakers(model, settings) if settings.dry_multiplier > 0 else ()
        return sample(logits, tokens, settings, dice_key, position, breakers)

    def likeliest(
        self,
        logits: npt.NDArray[np.float32],
        tokens: Sequence[int],
        settings: SamplerSettings,
        count: int,
        *,
        model: Any = None,
    ) -> list[int]:
        """Give the `count` best tokens after the penalties, the best first."""
        from engine.sampler import likeliest

        return likeliest(logits, tokens, settings, count, _breakers(model, settings))

    def speculation(self, tokens: Sequence[int]) -> Speculation:
        """Begin to guess behind `tokens`."""
        from engine.speculation import Speculation as Lookup

        return Lookup(tokens)

    def branch_dice(self, dice_key: bytes, index: int) -> bytes:
        """Give the dice of a batch's branch; branch 0 has the key itself."""
        from engine.dice import branch_key

        return branch_key(dice_key, index)

    def new_dice(self) -> bytes:
        """Give 16 random bytes."""
        from engine.dice import new_key

        return new_key()

    def dice_from_seed(self, seed: int) -> bytes:
        """Give the dice of a seed."""
        from engine.dice import key_from_seed

        return key_from_seed(seed)


def _breakers(model: Any, settings: SamplerSettings) -> tuple[int, ...]:
    from engine.sampler import dry_breakers

    if model is None or settings.dry_multiplier <= 0:
        return ()
    return dry_breakers(model.tokenizer, settings.dry_sequence_breakers)
