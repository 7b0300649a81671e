"""From logits to a token: settings as llama.cpp's users know them, and the chain in llama.cpp's order.

Penalties (repeat, presence, frequency), DRY, top-k, typical, top-p, min-p, XTC, temperature, draw. A pure function of
logits, tokens, settings, dice key and position (NUMERICS rules 5, 8, 9). Importing this module loads no kernel: they
come with the first token.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine import dice
from engine.errors import NonFiniteLogits, SamplerError
from engine.token_list import TokenList

if TYPE_CHECKING:
    from engine.gguf import GGUF
    from engine.tokenizer import Tokenizer

Ids = npt.NDArray[np.int64]

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
                raise SamplerError(name, value, "is not a setting")
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
    temperature = settings.temperature if settings.temperature >= _GREEDY_BELOW else 0.0
    xtc = False
    if settings.xtc_probability > 0 and settings.xtc_threshold <= 0.5:
        xtc = dice.uniform(dice_key, position, XTC_STREAM) <= settings.xtc_probability
    top_k = settings.top_k
    if temperature == 0 and settings.typical_p >= 1 and not xtc:
        top_k = 1  # nothing in front of the choice can remove the best one
    u = dice.uniform(dice_key, position) if temperature > 0 else 0.0
    token = _workspace().choose(logits, tokens, settings, breakers, top_k, temperature=temperature, xtc=xtc, u=u)
    if token < 0:
        raise NonFiniteLogits(position)
    return token


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
    workspace = _workspace()
    found = workspace.choose(logits, tokens, settings, breakers, count, wanted=count)
    if found < 0:
        raise NonFiniteLogits(len(tokens))
    return [int(token) for token in workspace.scratch[:found]]


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


class _Workspace(threading.local):
    """What the kernel works in; each thread has its own, and it only grows. Four megabytes for 262k tokens."""

    def __init__(self) -> None:
        from engine.kernels import entry

        self._kernels = entry
        self._table = np.zeros(entry.SAMPLING_TABLE_SIZE, np.int64)
        self._numbers = np.zeros(entry.SAMPLING_NUMBERS_SIZE, np.float64)
        self._addresses = self._table.ctypes.data, self._numbers.ctypes.data
        self._marks = np.zeros(0, np.int32)
        self.scratch: Ids = np.zeros(0, np.int64)
        self._breakers: tuple[Sequence[int], Ids] = ((), np.zeros(0, np.int64))
        self._history: tuple[Ids, Ids] = (_NO_IDS, _NO_IDS)
        self._asked: tuple[object, ...] | None = None  # what the tables hold, where no token history is in them

    def choose(
        self,
        logits: npt.ArrayLike,
        tokens: Sequence[int],
        settings: SamplerSettings,
        breakers: Sequence[int],
        top_k: int,
        *,
        temperature: float = 0.0,
        xtc: bool = False,
        u: float = 0.0,
        wanted: int = 0,
    ) -> int:
        """The chosen token, or how many of the `wanted` best ones begin the scratch; negative: not finite."""
        # Contiguous float32 always, whatever came in.
        values = np.ascontiguousarray(logits, np.float32)
        n = values.size
        k = n if top_k <= 0 else min(top_k, n)
        table, numbers = self._table, self._numbers
        # The tables stay as they are from one token to the next, but for penalties, which look at the last ones.
        asked = (settings, n, k, temperature, wanted)
        if asked != self._asked:
            self._asked = None
            history = self._describe(tokens, settings, n, breakers, k, temperature, wanted)
            self._asked = None if history else asked
        table[_LOGITS] = values.ctypes.data
        table[_XTC] = xtc
        numbers[_DICE] = u
        return self._kernels.choose(*self._addresses)

    def _describe(
        self,
        tokens: Sequence[int],
        settings: SamplerSettings,
        n: int,
        breakers: Sequence[int],
        k: int,
        temperature: float,
        wanted: int,
    ) -> bool:
        """Fill the tables, but for what differs from token to token; whether they depend on `tokens`."""
        s = settings
        recent = dry = _NO_IDS
        penalized = s.repeat_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0
        if penalized:
            recent = _last(tokens, s.repeat_last_n)
        if s.dry_multiplier != 0 and s.dry_penalty_last_n != 0:
            dry = _last(tokens, s.dry_penalty_last_n)
            if self._breakers[0] is not breakers:
                self._breakers = (breakers, np.array(breakers, np.int64))
        stops = self._breakers[1] if len(dry) else _NO_IDS
        self._history = recent, dry  # the kernel reads them
        if self._marks.size < n:
            self._marks = np.zeros(n, np.int32)
        size = self._kernels.scratch_bytes(n, k, len(recent), len(dry))
        if self.scratch.nbytes < size:
            self.scratch = np.zeros(-(-size // 8), np.int64)
        self._table[:] = (
            *(0, n, self.scratch.ctypes.data, self._marks.ctypes.data, k, min(wanted, k)),
            *(recent.ctypes.data, len(recent), dry.ctypes.data, len(dry), stops.ctypes.data, len(stops)),
            *(s.dry_allowed_length, 0),
        )
        self._numbers[:] = (
            *(s.repeat_penalty, s.presence_penalty, s.frequency_penalty, s.dry_multiplier, s.dry_base),
            *(s.typical_p, s.top_p, s.min_p, s.xtc_threshold, temperature, 0.0),
        )
        return penalized or s.dry_multiplier != 0


def _last(tokens: Sequence[int], count: int) -> Ids:
    """The last `count` tokens; all for a negative count."""
    if isinstance(tokens, TokenList):
        return tokens.last(count)
    return np.array(tokens if count < 0 else tokens[max(0, len(tokens) - count) :], np.int64)


def _workspace() -> _Workspace:
    """This thread's workspace; its first use imports the kernels."""
    global _loaded  # noqa: PLW0603 - an import that is wanted late and once
    if _loaded is None:
        _loaded = _Workspace()
    return _loaded


_NO_IDS: Ids = np.zeros(0, np.int64)
_LOGITS, _XTC, _DICE = 0, 13, 10  # places in the tables of kernels/sampling.py, which would import Numba
_loaded: _Workspace | None = None
