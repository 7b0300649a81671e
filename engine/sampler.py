"""From logits to a token: settings as llama.cpp's users know them, and the chain in llama.cpp's order.

Penalties (repeat, presence, frequency), DRY, top-k, typical, top-p, min-p, XTC, temperature, draw. A pure function of
logits, tokens, settings, dice key and position (NUMERICS rules 5, 8, 9). Importing this module imports no Numba: the
kernels come with the first token, or with `warm_up`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine import dice
from engine.errors import NonFiniteLogits, SamplerError

if TYPE_CHECKING:
    from engine.gguf import GGUF
    from engine.tokenizer import Tokenizer

FloatArray = npt.NDArray[np.float64]

MAX_TOKENS = (1 << 31) - 1
XTC_STREAM = 1  # of the dice; the draw itself has stream 0
_GREEDY_BELOW = 1e-6

# name: (lowest, highest, what is said of a value outside)
_RANGES: Mapping[str, tuple[float, float, str]] = MappingProxyType(
    {
        "temperature": (0.0, 100.0, "it must be between 0 (always the likeliest token) and 100"),
        "top_k": (0, MAX_TOKENS, "it must be 0 (off) or a number of tokens"),
        "top_p": (0.0, 1.0, "it must be between 0 and 1 (off)"),
        "min_p": (0.0, 1.0, "it must be between 0 (off) and 1"),
        "typical_p": (0.0, 1.0, "it must be between 0 and 1 (off)"),
        "repeat_penalty": (0.01, 100.0, "it must be between 0.01 and 100 (1 is off)"),
        "repeat_last_n": (-1, MAX_TOKENS, "it must be -1 (all), 0 (off) or a number of tokens"),
        "presence_penalty": (-1000.0, 1000.0, "it must be between -1000 and 1000 (0 is off)"),
        "frequency_penalty": (-1000.0, 1000.0, "it must be between -1000 and 1000 (0 is off)"),
        "dry_multiplier": (0.0, 1000.0, "it must be between 0 (off) and 1000"),
        "dry_base": (1.0, 100.0, "it must be between 1 and 100"),
        "dry_allowed_length": (1, MAX_TOKENS, "it must be a number of tokens"),
        "dry_penalty_last_n": (-1, MAX_TOKENS, "it must be -1 (all), 0 (off) or a number of tokens"),
        "xtc_probability": (0.0, 1.0, "it must be between 0 (off) and 1"),
        "xtc_threshold": (0.0, 1.0, "it must be between 0 and 1 (above 0.5 is off)"),
    }
)
_TEXT_LISTS = ("dry_sequence_breakers", "stop")
_MAX_TEXTS, _MAX_TEXT = 64, 1000

# Names in model files (general.sampling.*) and here.
_FILE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "xtc_probability": "xtc_probability",
        "xtc_threshold": "xtc_threshold",
        "penalty_last_n": "repeat_last_n",
        "penalty_repeat": "repeat_penalty",
    }
)


@dataclass(frozen=True)
class SamplerSettings:
    """How a token is chosen. The defaults are llama.cpp's; construction does not check, `validate` does."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    stop: tuple[str, ...] = ()

    def validate(self) -> SamplerSettings:
        """Give self, or raise SamplerError with the first field whose value cannot be used."""
        for name, (low, high, said) in _RANGES.items():
            value = getattr(self, name)
            whole = isinstance(_DEFAULTS[name], int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise SamplerError(name, value, "it must be a whole number" if whole else "it must be a number")
            if not low <= value <= high:
                raise SamplerError(name, value, said)
        for name in _TEXT_LISTS:
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise SamplerError(name, texts, "it must be a list of texts")
            if len(texts) > _MAX_TEXTS or any(not 0 < len(text) <= _MAX_TEXT for text in texts):
                raise SamplerError(
                    name, texts, f"at most {_MAX_TEXTS} texts, none empty or above {_MAX_TEXT} characters"
                )
        return self

    def to_json(self) -> dict[str, Any]:
        """All fields, lists for tuples."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SamplerSettings:
        """Settings of a JSON object; what it lacks takes the default. Raises SamplerError, also for unknown names."""
        made: dict[str, Any] = {}
        for name, value in values.items():
            if name not in _DEFAULTS:
                raise SamplerError(name, value, "there is no such setting")
            if isinstance(value, list):
                value = tuple(value)
            # One spelling of a number: 1 and 1.0 must not make two savepoints of one.
            if isinstance(_DEFAULTS[name], float) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value) if abs(value) < 1 << 53 else value
            made[name] = value
        return cls(**made).validate()

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> SamplerSettings:
        """The file's own defaults (`general.sampling.*`) over the built-in ones. A value out of range is passed over:
        a bad hint is no reason to refuse a model.
        """
        made = cls()
        for file_name, name in _FILE_NAMES.items():
            value = gguf.metadata.get(f"general.sampling.{file_name}")
            if isinstance(value, float) and value == value:  # noqa: PLR0124 - not NaN
                value = float(np.format_float_positional(np.float32(value)))  # 0.7, not 0.699999988079071
            if value is not None and isinstance(_DEFAULTS[name], int) and isinstance(value, float) and value % 1 == 0:
                value = int(value)
            if value is None:
                continue
            try:
                made = cls.from_json(made.to_json() | {name: value})
            except SamplerError:
                continue
        return made


_DEFAULTS: Mapping[str, Any] = MappingProxyType({field.name: field.default for field in fields(SamplerSettings)})


def sample(
    logits: npt.ArrayLike,
    tokens: Sequence[int],
    settings: SamplerSettings,
    dice_key: bytes,
    position: int,
    breakers: Sequence[int] = (),
) -> int:
    """The token at `position`, the index that it will have in the list.

    logits float32 (vocabulary,); tokens the whole list so far; `breakers` the ids that end a repetition for DRY
    (`dry_breakers`), ascending. Raises NonFiniteLogits; ValueError for a dice key that is not 16 bytes.
    """
    kernels = _kernels()
    values = _penalized(logits, tokens, settings, breakers)
    temperature = settings.temperature if settings.temperature >= _GREEDY_BELOW else 0.0
    xtc = False
    if settings.xtc_probability > 0 and settings.xtc_threshold <= 0.5:
        xtc = dice.uniform(dice_key, position, XTC_STREAM) <= settings.xtc_probability
    k = len(values) if settings.top_k <= 0 else min(settings.top_k, len(values))
    if temperature == 0 and settings.typical_p >= 1 and not xtc:
        k = min(k, 1)  # nothing in front of the choice can remove the best one
    sorted_whole = k > kernels.HEAP_LIMIT
    token = kernels.choose(
        values,
        np.empty(k, np.float64),
        np.empty(k, np.int64),
        np.empty(k, np.float64),
        np.empty(k, np.float64),
        *_sorting(len(values) if sorted_whole else k if settings.typical_p < 1 else 0),
        float(settings.typical_p),
        float(settings.top_p),
        float(settings.min_p),
        xtc,
        float(settings.xtc_threshold),
        float(temperature),
        dice.uniform(dice_key, position) if temperature > 0 else 0.0,
    )
    if token < 0:
        raise NonFiniteLogits(position)
    return int(token)


def likeliest(
    logits: npt.ArrayLike,
    tokens: Sequence[int],
    settings: SamplerSettings,
    count: int = 2,
    breakers: Sequence[int] = (),
) -> list[int]:
    """The `count` best tokens after the penalties, the best first: at temperature 0 the choice and its runner-up.

    Gives fewer where fewer have a chance. Raises NonFiniteLogits.
    """
    kernels = _kernels()
    values = _penalized(logits, tokens, settings, breakers)
    k = min(count, len(values))
    ids = np.empty(k, np.int64)
    scratch = _sorting(len(values) if k > kernels.HEAP_LIMIT else 0)
    found = kernels.best(values, np.empty(k, np.float64), ids, *scratch)
    if found < 0:
        raise NonFiniteLogits(len(tokens))
    return [int(token) for token in ids[:found]]


@lru_cache(maxsize=8)
def dry_breakers(tokenizer: Tokenizer, texts: tuple[str, ...]) -> tuple[int, ...]:
    """The ids, ascending, of all tokens whose text holds one of `texts`, and of all special tokens.

    Simpler than llama.cpp, which also looks for breakers that lie across tokens. Takes tens of milliseconds for a large
    vocabulary, once: the last results are kept.
    """
    raw = [text.encode("utf-8", "replace") for text in texts]
    found = []
    for token in range(tokenizer.vocabulary_size):
        said = tokenizer.token_bytes(token)
        if tokenizer.is_special(token) or any(text in said for text in raw):
            found.append(token)
    return tuple(found)


def warm_up() -> None:
    """Compile, or load from the cache, every kernel that a choice can need. Raises nothing of its own."""
    logits = np.zeros(8, np.float32)
    plain = SamplerSettings(typical_p=0.5, xtc_probability=1.0)
    for settings in (plain, SamplerSettings(repeat_penalty=1.1, dry_multiplier=0.5)):
        sample(logits, [1, 2, 1], settings, bytes(dice.KEY_BYTES), 3)
        likeliest(logits, [1, 2, 1], settings)


def _penalized(
    logits: npt.ArrayLike, tokens: Sequence[int], settings: SamplerSettings, breakers: Sequence[int]
) -> FloatArray:
    """A float64 copy of the logits with the penalties in it."""
    kernels = _kernels()
    s = settings
    # A fresh float64 array always: one type, so one compilation, whatever came in (a restored state may be read-only).
    values = np.array(logits, np.float64)
    recent = np.zeros(0, np.int64)
    if s.repeat_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0:
        recent = _last(tokens, s.repeat_last_n)
    if len(recent):
        counts = np.zeros(len(values), np.int64)
        kernels.penalize(
            values,
            recent,
            counts,
            float(s.repeat_penalty),
            float(s.presence_penalty),
            float(s.frequency_penalty),
        )
    if s.dry_multiplier != 0 and s.dry_penalty_last_n != 0:
        recent = _last(tokens, s.dry_penalty_last_n)
        kernels.penalize_repetition(
            values,
            recent,
            np.empty(len(recent), np.int64),
            np.zeros(len(values), np.int64),
            np.array(breakers, np.int64),
            float(s.dry_multiplier),
            float(s.dry_base),
            int(s.dry_allowed_length),
        )
    return values


def _sorting(size: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Scratch for sorting `size` candidates: keys, their copies, counts."""
    return np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty((3, 2048), np.int64)


def _last(tokens: Sequence[int], count: int) -> npt.NDArray[np.int64]:
    """The last `count` tokens; all for a negative count."""
    return np.array(tokens if count < 0 else tokens[max(0, len(tokens) - count) :], np.int64)


class _Kernels:
    """The kernels' module, once it is imported."""

    HEAP_LIMIT: int
    choose: Callable[..., int]
    best: Callable[..., int]
    penalize: Callable[..., None]
    penalize_repetition: Callable[..., None]


def _kernels() -> _Kernels:
    global _loaded  # noqa: PLW0603 - an import that is wanted late and once
    if _loaded is None:
        from engine import jit

        jit.prepare()
        import engine.kernels.sampling

        _loaded = engine.kernels.sampling  # type: ignore[assignment]
    return _loaded  # type: ignore[return-value]


_loaded: _Kernels | None = None
