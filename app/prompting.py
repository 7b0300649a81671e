"""From messages to the tokens of the next turn: append-only, and generated ids are never made again from text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.engine_protocol import Model
from app.place import Past, Place
from app.savepoints import common_length
from app.thinking import count_tokens, parted

ROOM_LEFT = 0.75  # a branch without the oldest turns begins with at most this share of the context


@dataclass(frozen=True)
class TurnPlan:
    """What a new node holds: the first `keep` tokens of its parent stand, `tokens` follow, `dropped` fall away."""

    keep: int
    tokens: tuple[int, ...]
    dropped: int
    thinking: int = 0  # how many of the dropped ones are thinking that the template leaves out

    @property
    def length(self) -> int:
        """Tokens in front of the reply."""
        return self.keep + len(self.tokens)


def next_turn(model: Model, place: Place, text: str, *, raw: bool = False) -> TurnPlan:
    """Give the tokens that lead from a place to the reply to `text`: template's suffix, header, text, header.

    `raw` takes the text as it is, without template; a BOS only at the very beginning.
    """
    tokens = place.tokens()
    readable = place.readable_by(model.prompt_key, model.tokenizer.vocabulary_size)
    if raw:
        keep = len(tokens) if readable else 0
        new = model.tokenizer.encode(text, add_eos=False, continuation=keep > 0)
        return TurnPlan(keep, tuple(new), len(tokens) - keep)
    history = [*place.history(model.prompt_key), Past("user", text, ())]
    grows = readable and place.system() == place.system_was()
    return _plan(model, history, place.system(), place.date, tokens, readable, grows)


def turns_to_drop(model: Model, place: Place, text: str) -> int:
    """Give the fewest oldest turns whose removal makes room for `text`; 0 where nothing helps."""
    history = [*place.history(model.prompt_key), Past("user", text, ())]
    turns = sum(past.role != "assistant" for past in history) - 1
    fits = 0
    for drop in range(1, turns + 1):
        plan = _plan(model, without_turns(history, drop), place.system(), place.date, [], False, False)
        if plan.length <= ROOM_LEFT * model.context_length:
            return drop
        if plan.length < model.context_length and not fits:
            fits = drop
    return fits


def without_turns(history: Sequence[Past], turns: int) -> list[Past]:
    """Give a history without its first questions and what follows each."""
    left = turns
    for at, past in enumerate(history):
        if past.role != "assistant":
            if left == 0:
                return list(history[at:])
            left -= 1
    return []


def _plan(
    model: Model,
    history: Sequence[Past],
    system: str,
    date: str,
    tokens: list[int],
    readable: bool,
    grows: bool,
) -> TurnPlan:
    """Plan a turn. `readable`: the tokens are of this model's vocabulary; `grows`: they may go on as they are."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "assistant" if p.role == "assistant" else "user", "content": p.text} for p in history]
    day = date or None
    # Questions behind the last reply that got no answer are rendered together with the new one.
    at = next((p.end for p in reversed(history) if p.role == "assistant"), len(tokens))
    if grows and at >= 0:
        turn = model.template.next_turn(model.tokenizer, messages, tokens[:at], date=day)
        if turn.dropped == 0:
            ids = [*tokens[:at], *turn.new]
            keep = common_length(tokens, ids)
            return TurnPlan(keep, tuple(ids[keep:]), len(tokens) - keep)
    known = [() if p.role != "assistant" or not readable else p.tokens for p in history]
    ids, text = _rendered(model, messages, [(), *known] if system else known, day)
    keep = common_length(tokens, ids) if readable else 0
    thinking = _dropped_thinking(model, history, text, keep) if readable else 0
    return TurnPlan(keep, tuple(ids[keep:]), len(tokens) - keep, thinking)


def _dropped_thinking(model: Any, history: Sequence[Past], text: str, keep: int) -> int:
    """Count the thinking of replies that stand behind `keep` now and is not in the history's new `text`."""
    dropped = 0
    for past in history:
        thought = parted(past.text).thinking if past.role == "assistant" and past.end > keep else None
        if thought and thought.strip() not in text:
            before = max(0, keep - (past.end - len(past.tokens)))
            dropped += max(0, count_tokens(model.tokenizer, past.tokens) - before)
    return dropped


def _rendered(
    model: Any, messages: list[dict[str, str]], known: Sequence[tuple[int, ...]], day: str | None
) -> tuple[list[int], str]:
    """Render a history anew, give ids and text; where a reply's text stands whole, its own ids stand for it."""
    from engine.chat_template import RenderedPrompt

    whole = model.template.render(messages, add_generation_prompt=True, date=day)
    ids: list[int] = []
    run: list[Any] = []

    def close_run() -> None:
        nonlocal run
        if run or not ids:
            prompt = RenderedPrompt(tuple(run), whole.guarded)
            ids.extend(prompt.encode(model.tokenizer, continuation=bool(ids)))
        run = []

    for piece in whole.pieces:
        own = known[piece.message] if piece.message is not None else ()
        if own and piece.message is not None and piece.text.strip() == messages[piece.message]["content"].strip():
            close_run()
            ids.extend(own)
        else:
            run.append(piece)
    if run:
        close_run()
    return ids, whole.text
