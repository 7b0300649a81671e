"""How a chat behaves, said once when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.workbench import ModelOptions

SCRIPT = "run"
"""The window of `forkpoint run`, which ends with its reply: what goes wrong with the library is raised, not told."""


@dataclass(frozen=True)
class ChatOptions:
    """How a chat behaves. `sampler` are defaults below a savepoint's settings, `forced` lie above them."""

    models: ModelOptions = field(default_factory=ModelOptions)
    sampler: Mapping[str, Any] = field(default_factory=dict)
    forced: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    new_dice: bool = False
    limit: int | None = None  # most tokens of a reply
    window: str = ""
    moves_head: bool = True
    autosave: bool = True
    incognito: bool = False
    template_date: str = ""
    speculate: bool = True  # guess repetitions ahead where that is faster; changes no result
    read_along: bool = True  # compute what of a message stands while it is typed; changes no result
    branches: int = 1  # replies to each message, each with dice of its own, computed together
    strict_model: bool = False  # another model than the savepoint's is an error instead of a new rendering
