"""What a stranger's file says is checked before anybody goes on from it: do the tokens say what the text says?

Keys and values are never taken from a file: they could encode a prompt that the text does not show. Text and tokens
could part in the same way, so they are compared as far as the tokenizer they were made with is at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import prompting
from app.engine_protocol import Engine
from app.errors import AppError
from app.generation import Decoding
from app.place import SETTINGS, Place
from snapshots import Library, Node

_LONGEST_TOKEN = 256  # characters that the token which completes a stop string may have shown in front of it
_MOST_RENDERINGS = 64


@dataclass(frozen=True)
class Agreement:
    """Ids of messages: whose tokens say their text, whose tokens say something else, and those not looked at."""

    agreeing: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def check(engine: Engine, prompts: Mapping[str, Any], library: Library, node_ids: Iterable[str]) -> Agreement:
    """Compare text and tokens of messages. `prompts` maps prompt keys to what has a tokenizer and a template.

    A reply's tokens are spelled out; a person's message is rendered again where its frame was not met before.
    """
    agreeing, differing, unchecked = list[str](), list[str](), list[str]()
    frames: dict[tuple[str, str], bool] = {}
    renderings = 0
    for node_id in node_ids:
        node = library.node(node_id)
        prompt = prompts.get(node.prompt_key)
        if not node.tokens and node.role != "user":
            agreeing.append(node_id)
            continue
        if prompt is None:
            unchecked.append(node_id)
            continue
        if max(node.tokens, default=0) >= prompt.tokenizer.vocabulary_size:
            differing.append(node_id)
            continue
        if node.role == "assistant":
            try:
                same = _reply_agrees(engine, prompt, library, node)
            except IndexError:  # the part in front of it was made with another vocabulary
                same = False
        else:
            frame = _frame(prompt, node)
            known = frames.get((node.prompt_key, frame)) if frame else None
            if known is None and renderings >= _MOST_RENDERINGS:
                unchecked.append(node_id)
                continue
            if known is None:
                renderings += 1
                known = _message_agrees(prompt, library, node)
                if frame and known:
                    frames[node.prompt_key, frame] = True
            same = known
        (agreeing if same else differing).append(node_id)
    return Agreement(tuple(agreeing), tuple(differing), tuple(unchecked))


def _reply_agrees(engine: Engine, prompt: Any, library: Library, node: Node) -> bool:
    """Spell a reply's tokens out as they were when they came."""
    if node.stop == "edited" and list(node.tokens) == prompt.tokenizer.encode(
        node.text, add_bos=False, continuation=True
    ):
        return True
    before = said_before(_upwards(library, node.parent_id))
    in_front = node.keep - len(before) - 1
    previous = _token_at(library, node.parent_id, in_front) if in_front >= 0 else None
    decoding = Decoding.begin(engine, prompt, (), before, previous)
    said = "".join(decoding.decoder.push(token) for token in node.tokens)
    if node.text in (said, said + decoding.decoder.flush()):
        return True
    stops = [*node.sampler.get("stop", ()), *prompt.template.stop] if node.stop in ("stop", "saved") else []
    longer, shorter = (said, node.text) if len(said) > len(node.text) else (node.text, said)
    if not stops or not longer.startswith(shorter):
        return False
    rest = longer[len(shorter) :]
    if longer is said:  # the tokens begin a stop string that was not shown
        return any((isinstance(stop, str) and stop.startswith(rest)) or rest.startswith(stop) for stop in stops if stop)
    return len(rest) <= _LONGEST_TOKEN  # the token that completed it is not listed, but began with some of the text


def said_before(upwards: Iterable[Node]) -> list[int]:
    """Ids of the reply that goes on behind a message: of it and those above it, nearest first, up to a person's."""
    parts: list[Sequence[int]] = []
    for node in upwards:
        if node.role != "assistant":
            break
        if node.stop != SETTINGS:
            parts.append(node.tokens)
    return [token for part in reversed(parts) for token in part]


def _upwards(library: Library, node_id: str | None) -> Iterator[Node]:
    """A message and those above it, each read when it is asked for: all of a long path would be read for each reply."""
    while node_id is not None:
        node = library.node(node_id)
        yield node
        node_id = node.parent_id


def _token_at(library: Library, node_id: str | None, place: int) -> int | None:
    """The token at a place of the list that a message ends."""
    for node in _upwards(library, node_id):
        if place >= node.keep:
            return node.tokens[place - node.keep] if place < node.n_tokens else None
    return None


def _frame(prompt: Any, node: Node) -> str:
    """What the tokens say around the message's own text; "" where that cannot be told."""
    text = node.text.strip()
    whole = prompt.tokenizer.decode(list(node.tokens), skip_special=False)
    if len(text) < 1 or whole.count(text) != 1:
        return ""
    front, behind = whole.split(text)
    return f"{len(front)} {front}{behind}" if len(front) + len(behind) < 2048 else ""


def _message_agrees(prompt: Any, library: Library, node: Node) -> bool:
    """Make the tokens of a person's message again, as if it were sent now."""
    place = Place(library)
    place.conversation = library.conversation(node.conversation_id)
    place.path = tuple(library.path(node.parent_id))
    try:
        plan = prompting.next_turn(prompt, place, node.text, raw=node.role == "raw")
    except (AppError, ValueError, RuntimeError):
        return False
    return (plan.keep, plan.tokens) == (node.keep, node.tokens)


def prompts_at_hand(engine: Any, wanted: set[str], files: Iterable[Path | None]) -> dict[str, Any]:
    """Tokenizers and templates by prompt key, of model files that are here; opens no weights."""
    from engine.errors import EngineError

    found: dict[str, Any] = {}
    for file in dict.fromkeys(files):
        if file is None or not wanted - set(found):
            continue
        try:
            prompt = engine.open_prompt(file)
        except (EngineError, OSError):
            continue
        found[prompt.prompt_key] = prompt
    return found
