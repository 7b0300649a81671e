"""Typed errors of the engine: each carries its facts as attributes, and its `str()` is one plain sentence.

The app turns them into sentences and exit codes; nothing here knows how they are shown. Names that come out of a file
are strangers' text, so `shown()` strips what could move a cursor and cuts what is too long.
"""

from __future__ import annotations

from pathlib import Path

_SHOWN_LENGTH = 80


def shown(text: object) -> str:
    """A stranger's text made fit for a sentence: printable characters only, at most 80 of them."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: _SHOWN_LENGTH + 1])
    return clean if len(clean) <= _SHOWN_LENGTH else clean[: _SHOWN_LENGTH - 1] + "…"


class EngineError(Exception):
    """Base of every error that the engine raises on purpose."""


class FileNotReadable(EngineError):  # noqa: N818 - the names say what is the case
    """The path cannot be opened as a regular file."""

    def __init__(self, path: str | Path, why: str):
        self.path = str(path)
        self.why = why
        super().__init__(f"{shown(self.path)} cannot be read: {why}.")


class NotGGUF(EngineError):  # noqa: N818
    """The file does not begin like a GGUF file."""

    def __init__(self, path: str | Path):
        self.path = str(path)
        super().__init__(f"{shown(self.path)} is not a GGUF file.")


class BadGGUF(EngineError):  # noqa: N818
    """The file begins like GGUF and then breaks the format; `field` names the place."""

    def __init__(self, path: str | Path, field: str, why: str):
        self.path = str(path)
        self.field = field
        self.why = why
        super().__init__(f"{shown(self.path)} is a damaged or unsupported GGUF file: {shown(field)}: {why}.")


class UnsupportedArchitecture(EngineError):  # noqa: N818
    """The model's `general.architecture` is none that the engine computes."""

    def __init__(self, name: str):
        self.name = name
        super().__init__(f"The model architecture '{shown(name)}' is not supported.")


class UnsupportedTensorType(EngineError):  # noqa: N818
    """A tensor is stored in a type that the engine has no kernel for."""

    def __init__(self, tensor: str, type: str):
        self.tensor = tensor
        self.type = type
        super().__init__(f"The tensor '{shown(tensor)}' has the type {shown(type)}, which is not supported.")


class UnsupportedTokenizer(EngineError):  # noqa: N818
    """The file's `tokenizer.ggml.model` is none that the engine knows."""

    def __init__(self, name: str):
        self.name = name
        super().__init__(f"The tokenizer '{shown(name)}' is not supported.")


class UnsupportedFeature(EngineError):  # noqa: N818
    """The file asks for something that the engine does not do."""

    def __init__(self, what: str):
        self.what = what
        super().__init__(f"Not supported: {shown(what)}.")


class MissingTensor(EngineError):  # noqa: N818
    """A tensor that the architecture needs is not in the file."""

    def __init__(self, tensor: str):
        self.tensor = tensor
        super().__init__(f"The tensor '{shown(tensor)}' is missing from the model file.")


class BadTensor(EngineError):  # noqa: N818
    """A tensor's bytes or shape cannot be right: overlap, overrun, wrong shape."""

    def __init__(self, tensor: str, why: str):
        self.tensor = tensor
        self.why = why
        super().__init__(f"The tensor '{shown(tensor)}' is unusable: {why}.")


class ContextFull(EngineError):  # noqa: N818
    """`wanted` more tokens do not fit behind `position` in a context of `context` tokens."""

    def __init__(self, position: int, wanted: int, context: int):
        self.position = position
        self.wanted = wanted
        self.context = context
        super().__init__(
            f"The context is full: {wanted} more tokens do not fit behind {position} in a context of {context}."
        )


class NonFiniteLogits(EngineError):  # noqa: N818
    """The logits for the token at index `position` hold NaN or no finite value at all."""

    def __init__(self, position: int):
        self.position = position
        super().__init__(f"The model gave logits that are not numbers at position {position}.")


class DamagedWeights(EngineError):  # noqa: N818
    """The repacked copy of a model's weights is not what was written."""

    def __init__(self, path: str | Path):
        self.path = str(path)
        super().__init__(
            f"The repacked copy of the weights, {shown(self.path)}, was damaged and is removed: start once more."
        )


class StateMismatch(EngineError):  # noqa: N818
    """A saved state belongs to something else; `field` names what differs."""

    def __init__(self, field: str, have: object, want: object):
        self.field = field
        self.have = have
        self.want = want
        super().__init__(
            f"The saved state does not fit this model: {shown(field)} is {shown(have)}, but {shown(want)} is needed."
        )


class SamplerError(EngineError):
    """A sampler setting has a value outside its range."""

    def __init__(self, field: str, value: object, why: str):
        self.field = field
        self.value = value
        self.why = why
        super().__init__(f"The sampler setting {shown(field)} = {shown(value)} is not allowed: {why}.")


class TemplateError(EngineError):
    """A chat template failed, or asked for more than it may have."""

    def __init__(self, why: str):
        self.why = why
        super().__init__(f"The chat template failed: {shown(why).rstrip('.')}.")
