"""Where files live, the config file, and what the screen is started with."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from app.engine_protocol import KVType
from app.errors import NoModel

APP_NAME = "forkpoint"
CONFIG_FILE = "config.toml"
MOST_THREADS = 256  # the engine's bounds, said here because importing it takes a second
LONGEST_CONTEXT = 1 << 20
_MOST = {"threads": MOST_THREADS, "context": LONGEST_CONTEXT}


class ConfigError(Exception):
    """The config file cannot be used. Fields: `path`, `field` (None: the whole file) and `why`."""

    def __init__(self, path: Path, field: str | None, why: str) -> None:
        super().__init__(path, field, why)
        self.path = path
        self.field = field
        self.why = why


@dataclass(frozen=True)
class Directories:
    """The three roots: `data` is small and precious, `cache` can be rebuilt, `config` is written by people."""

    data: Path
    cache: Path
    config: Path


@dataclass(frozen=True)
class TuiOptions:
    """What `forkpoint` was started with; None leaves the choice to the config file and the library."""

    model: Path | None = None
    at: str | None = None
    resume: bool = False  # pick from a list first
    no_save: bool = False  # incognito: nothing is written
    threads: int | None = None
    context: int | None = None
    cache_type: KVType | None = None


@dataclass(frozen=True)
class Config:
    """The config file, `config.toml` in the config directory. Every field may be missing."""

    model: Path | None = None  # GGUF file to open when -m is not given; default: the bundled one
    threads: int | None = None  # worker threads; default: the machine's cores
    context: int | None = None  # context size in tokens; default: the model's own
    cache_type: KVType = "f16"  # how keys and values are kept: "f16" or "q8_0"
    theme: str | None = None  # name of a Textual theme
    weights_cache: int | None = None  # GiB of disk for repacked weights, 0: none; default: 10, or a tenth of the disk
    autosave: bool = True  # keep the state of every message on disk, not only its text
    quota: int | None = None  # most bytes of states on disk; default: the smaller of 10 GiB and a tenth of the disk
    prefill_ahead: bool = True  # compute what of a message stands while it is typed
    speculate: bool = True  # guess repetitions ahead where that is faster; changes no text
    sampler: dict[str, Any] = field(default_factory=dict)  # [sampler] temperature = 0.7, top_k = 20, ...


def directories() -> Directories:
    """Give the roots: FORKPOINT_DATA_DIR, FORKPOINT_CACHE_DIR, FORKPOINT_CONFIG_DIR, else the platform's own places."""
    found: dict[str, Path] = {}
    for name in ("data", "cache", "config"):
        override = os.environ.get(f"FORKPOINT_{name.upper()}_DIR")
        if override:
            found[name] = Path(override).expanduser().absolute()
            continue
        import platformdirs

        found[name] = Path(getattr(platformdirs, f"user_{name}_dir")(APP_NAME, appauthor=False))
    return Directories(**found)


def make_private(directory: Path) -> None:
    """Make a root where it is missing, for its owner alone, with the parents as the system makes them.

    One that cannot be made is for those to say who write there.
    """
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def bundled_model() -> Path:
    """Give the model that comes with forkpoint. Raises NoModel where it is missing."""
    import assets

    try:
        return assets.bundled_model_path()
    except FileNotFoundError as error:
        raise NoModel("The bundled model is missing; name a GGUF file with -m FILE.") from error


def _text_of(path: Path) -> str:
    """The text of a file; a pipe is not waited for. Raises OSError, UnicodeDecodeError."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8") as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "It is not a file")
        return file.read()


def load_config(root: Path | None = None) -> Config:
    """Read the config file of `root` (default: the config directory); a missing one gives the defaults.

    Raises ConfigError with the field for anything that cannot be understood.
    """
    path = (root or directories().config) / CONFIG_FILE
    try:
        text = _text_of(path)
        import tomllib  # most have no such file

        values = tomllib.loads(text)
    except FileNotFoundError:
        return Config()
    except OSError as e:
        raise ConfigError(path, None, (e.strerror or str(e)).lower()) from e
    except UnicodeDecodeError as e:
        raise ConfigError(path, None, "it is not UTF-8 text") from e
    except (ValueError, RecursionError) as e:  # no TOML, a number of thousands of digits, nested too deep
        raise ConfigError(path, None, str(e)) from e
    known = {f.name for f in fields(Config)}
    given: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(path, key, f"is not a setting; settings are {', '.join(sorted(known)).replace('_', '-')}")
        given[name] = _checked(path, name, value)
    if given.get("sampler"):
        _check_sampler(path, given["sampler"])
    return Config(**given)


def _check_sampler(path: Path, values: dict[str, Any]) -> None:
    """Refuse a [sampler] table now that would else break every reply later. Raises ConfigError."""
    from engine.errors import SamplerError
    from engine.sampler import SamplerSettings

    try:
        SamplerSettings.from_json(values)
    except SamplerError as error:
        raise ConfigError(path, f"sampler.{error.field}", error.why) from error


def configured_model() -> Path | None:
    """Give the config file's model, or None where it names none. Raises ConfigError where that file is missing."""
    found = load_config().model
    if found is not None and not found.is_file():
        raise ConfigError(directories().config / CONFIG_FILE, "model", f"names a file that is not there: {found}")
    return found


_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


def _bytes(path: Path, value: object) -> int:
    """A size as people write it: 5000000, "20 GB", "1.5 GiB"."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is not None and len(found[1]) < 20:
        base = 1024 if found[3] else 1000
        value = int(float(found[1]) * base ** " KMGT".index(found[2].upper() or " "))
    if type(value) is not int or value < 0:
        raise ConfigError(path, "quota", 'must be a size, such as "20 GB"')
    return value


_KINDS = {str: "text in quotes", int: "a whole number", bool: "true or false", dict: "a table"}


def _checked(path: Path, name: str, value: object) -> Any:
    """Check one setting's type and give it as the dataclass holds it."""
    wanted: dict[str, type] = {"model": str, "theme": str, "cache_type": str, "sampler": dict}
    wanted |= {"autosave": bool, "speculate": bool, "prefill_ahead": bool}
    if name == "quota":
        return _bytes(path, value)
    kind = wanted.get(name, int)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(path, name, f"must be {_KINDS[kind]}")
    if name == "cache_type" and value not in get_args(KVType):
        raise ConfigError(path, name, f"must be one of {', '.join(get_args(KVType))}")
    least = 0 if name == "weights_cache" else 1
    if isinstance(value, int) and kind is int and value < least:
        raise ConfigError(path, name, f"must be at least {least}")
    if name in _MOST and isinstance(value, int) and value > _MOST[name]:
        raise ConfigError(path, name, f"must be at most {_MOST[name]}")
    if name == "model" and isinstance(value, str):
        return (path.parent / Path(value).expanduser()).absolute()
    return value
