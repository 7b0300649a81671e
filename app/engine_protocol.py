"""What the app asks of an engine, as protocols: open a model, feed tokens, read logits, capture, restore.

The screens and the command line see these types only, so that a remote engine can stand behind them later.
`app/local_engine.py` is the one implementation today; importing this module imports no engine and no NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from engine.sampler import SamplerSettings

    FloatArray = npt.NDArray[np.float32]

KVType = Literal["f16", "q8_0"]
PrefillProgress = Callable[[int, int], None]
LoadProgress = Callable[[str, int, int], None]


class KVChunk(Protocol):
    """KV of the tokens [start, stop), all inside one absolute 64-token block; arrays are C-contiguous."""

    @property
    def start(self) -> int:
        """Position of the first token."""

    @property
    def stop(self) -> int:
        """Position behind the last token."""

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Named arrays."""


class SessionState(Protocol):
    """A copy of a session, or of its tail: plain arrays and values."""

    @property
    def tokens(self) -> Sequence[int]:
        """Every token that was fed, also when `chunks` holds only a tail."""

    @property
    def chunks(self) -> Sequence[KVChunk]:
        """Chunks in order, without gaps."""

    @property
    def logits(self) -> FloatArray | None:
        """float32 (vocabulary,) for the next position, or None."""

    @property
    def hidden(self) -> FloatArray | None:
        """float32 (dim,), the last hidden state, or None."""

    @property
    def dice_key(self) -> bytes:
        """16 bytes."""


class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a turn."""

    def encode(
        self,
        text: str,
        *,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
        parse_special: bool = False,
        continuation: bool = False,
    ) -> list[int]:
        """Give the ids of a text; `continuation` adds neither BOS and EOS nor a dummy prefix."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Give the text of ids."""

    def token_bytes(self, token: int) -> bytes:
        """Give the bytes that an id puts into text."""

    def is_end_of_turn(self, token: int) -> bool:
        """Tell whether the id ends a turn."""


class StreamDecoder(Protocol):
    """Incremental detokenizer that never splits a character."""

    def push(self, token: int) -> str:
        """Add one id, give the text that became complete."""

    def flush(self) -> str:
        """Give what is left."""


class Session(Protocol):
    """Mutable and small: the tokens that were fed and what the model says next."""

    dice_key: bytes

    @property
    def tokens(self) -> Sequence[int]:
        """Every token that was fed."""

    @property
    def position(self) -> int:
        """`len(tokens)`."""

    @property
    def logits(self) -> FloatArray | None:
        """float32 (vocabulary,) for the next position; None where it has to be computed again."""

    def fork(self) -> Session:
        """Give an independent session that shares the KV blocks."""

    def truncate(self, n: int) -> None:
        """Forget the tokens from n on; logits become None unless n is the position."""

    def logits_digest(self) -> str:
        """blake2b-256 hex of the float32 little-endian logits."""


class Model(Protocol):
    """Immutable and shared: one open model file."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def context_length(self) -> int:
        """Most tokens that a session can hold."""

    @property
    def vocabulary_size(self) -> int:
        """Length of the logits."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The file's own tokenizer."""

    @property
    def template(self) -> Any:
        """The file's chat template (engine.chat_template.ChatTemplate)."""

    @property
    def sampler_defaults(self) -> SamplerSettings:
        """The file's own sampler settings over the built-in ones."""

    @property
    def state_key(self) -> str:
        """Names everything that decides about KV and logits."""

    @property
    def state_fields(self) -> Mapping[str, str]:
        """What `state_key` hashes."""

    @property
    def prompt_key(self) -> str:
        """Names everything that decides how a new turn becomes tokens."""

    @property
    def prompt_fields(self) -> Mapping[str, str]:
        """What `prompt_key` hashes."""

    def new_session(self, dice_key: bytes = b"") -> Session:
        """Give an empty session."""

    def prefill(
        self,
        session: Any,
        tokens: Sequence[int],
        *,
        batch_size: int = 512,
        progress: PrefillProgress | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> int:
        """Feed tokens; give how many were really fed (fewer if cancelled between chunks)."""

    def step(
        self, sessions: Sequence[Any], tokens: Sequence[int], drafts: Sequence[Sequence[int]] | None = None
    ) -> int:
        """Feed one token to each session in one pass over the weights; give the rows that were computed.

        `drafts` are guesses of what follows each token: they may be computed along, and change no result.
        """

    def weights_digest(self) -> str:
        """The tensors' digest, computed again from the file; `state_fields["tensors"]` unless the file changed."""

    @property
    def unkept_weights(self) -> str:
        """Why the next start has to arrange the weights anew; "" where it need not."""

    def capture(self, session: Any, start: int = 0) -> SessionState:
        """Copy a session; KV of the tokens [start, position)."""

    def restore(self, state: Any) -> Session:
        """Build a session in fresh buffers from a state that holds every chunk from 0 on."""

    def close(self) -> None:
        """Give the weights and threads back."""


class Speculation(Protocol):
    """Guesses what follows, for one reply; decides by what pays, never about results."""

    @property
    def drafted(self) -> int:
        """Guesses that were computed along."""

    @property
    def accepted(self) -> int:
        """Of these, such as came true."""

    def asleep(self) -> bool:
        """Count a token; True where the next step needs neither `draft` nor `took`."""

    def draft(self, token: int, room: int) -> Sequence[int]:
        """Give guesses of what follows `token`, which is fed next, `room` of them at most."""

    def took(self, rows: int, seconds: float, between: float = 0.0) -> None:
        """Learn what a step cost that computed so many rows, and what else its token took since the step before."""


class Engine(Protocol):
    """Where models come from and how a token is chosen from logits."""

    def open_model(
        self,
        path: Path,
        *,
        context: int | None = None,
        kv_type: KVType = "f16",
        threads: int | None = None,
        progress: LoadProgress | None = None,
    ) -> Model:
        """Open a model file; `progress(phase, done, total)`, phases "read", "compile", "pack"."""

    def state_from_parts(
        self,
        tokens: Sequence[int],
        chunks: Sequence[tuple[int, int, Mapping[str, npt.NDArray[Any]]]],
        logits: FloatArray | None,
        hidden: FloatArray | None,
        dice_key: bytes,
    ) -> Any:
        """Make what `Model.restore` takes from stored parts; chunks as (start, stop, arrays)."""

    def stream_decoder(self, model: Any, previous: int | None = None) -> StreamDecoder:
        """Give a fresh incremental detokenizer; `previous` is the id in front of the first one, None: in mid-text."""

    def settings_from_json(self, values: Mapping[str, Any]) -> SamplerSettings:
        """Make sampler settings of a JSON object; raises SamplerError with the field."""

    def sample(
        self,
        logits: FloatArray,
        tokens: Sequence[int],
        settings: SamplerSettings,
        dice_key: bytes,
        position: int,
        *,
        model: Model | None = None,
    ) -> int:
        """Choose the token at `position` (its index in the list) with dice stream 0 at that position.

        `model` is the one that the logits are of: DRY needs its vocabulary to find the sequence breakers.
        """

    def likeliest(
        self,
        logits: FloatArray,
        tokens: Sequence[int],
        settings: SamplerSettings,
        count: int,
        *,
        model: Model | None = None,
    ) -> list[int]:
        """Give the `count` best tokens behind `tokens` after the penalties, the best first; fewer where there are."""

    def speculation(self, tokens: Sequence[int]) -> Speculation:
        """Begin to guess behind `tokens`."""

    def branch_dice(self, dice_key: bytes, index: int) -> bytes:
        """Give the dice of a batch's branch; branch 0 has the key itself."""

    def new_dice(self) -> bytes:
        """Give fresh dice: 16 random bytes."""

    def dice_from_seed(self, seed: int) -> bytes:
        """Give the dice of a seed."""
