"""Messages to tokens, by the model file's own Jinja template or a plain one, without ever obeying the messages' text.

A template gives one string; which part of it the template wrote and which part a person decides whether `<|end|>` in it
is the token or seven characters. So a template is rendered twice: with the real messages, and with unguessable numbers
in place of their contents. The second one cut at the numbers gives the template's own words in order; laying them over
the first one shows what is content. Special tokens are looked for in the template's words only.

Token lists are append-only (DESIGN §4.1): `next_turn` gives the ids to add for a new message behind a reply, and finds
out when the rendered history does not go on from what is there.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from engine.errors import TemplateError
from engine.gguf import GGUF
from engine.template_pieces import Marker, Piece, laid_over
from engine.tokenizer import Parse, Tokenizer

Message = Mapping[str, str]  # "role" (system, user, assistant) and "content"

PLAIN_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{- message.content + '\\n\\n' -}}
{%- else -%}
{{- ('User: ' if message.role == 'user' else 'Assistant: ') + message.content + '\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""
PLAIN_STOP = ("\nUser:",)
_RENDERINGS_KEPT = 8
CHATML_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


@dataclass(frozen=True)
class RenderedPrompt:
    """A rendered history. `fallback` says why the file's own template was not used, or is None."""

    pieces: tuple[Piece, ...]
    guarded: frozenset[str]  # texts that content never turns into tokens, besides CONTROL tokens
    fallback: str | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece.text for piece in self.pieces)

    def encode(self, tokenizer: Tokenizer, *, continuation: bool = False) -> list[int]:
        """The ids. At a text's start BOS stands in front exactly once where the model wants one."""
        parts = [(piece.text, piece.parse) for piece in self.pieces]
        ids = tokenizer.encode_parts(parts, add_bos=False, continuation=continuation, guarded=self.guarded)
        bos = tokenizer.bos_id
        if not continuation and tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids


@dataclass(frozen=True, slots=True)
class Turn:
    """How a token list goes on: its first `keep` ids stand, `new` follow, `dropped` of the old ones fall away."""

    keep: int
    new: list[int]
    dropped: int
    fallback: str | None = None


@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template. Immutable; safe to share between threads.

    `source` is the Jinja text in use; `builtin` names it where the file has none ("chatml", "plain"). `stop` are texts
    at which a reply has to end because no token of the vocabulary says so.
    """

    source: str
    builtin: str | None
    bos_text: str
    eos_text: str
    special_texts: tuple[str, ...] = ()
    stop: tuple[str, ...] = field(default=())

    @classmethod
    def from_gguf(cls, gguf: GGUF, tokenizer: Tokenizer) -> ChatTemplate:
        """The file's `tokenizer.chat_template`; else ChatML where the vocabulary has its tokens; else a plain one.

        Compiles nothing: a template that cannot be compiled or rendered falls back at each `render`, which says why.
        """
        source = gguf.metadata.get("tokenizer.chat_template")
        specials = tokenizer.special_texts
        bos, eos = ("" if token is None else tokenizer.piece(token) for token in (tokenizer.bos_id, tokenizer.eos_id))
        if isinstance(source, str) and source.strip():
            return cls(source, None, bos, eos, specials)
        if {"<|im_start|>", "<|im_end|>"} <= set(specials):
            return cls(CHATML_TEMPLATE, "chatml", bos, eos, specials)
        return cls(PLAIN_TEMPLATE, "plain", bos, eos, specials, PLAIN_STOP)

    @cached_property
    def digest(self) -> str:
        """blake2b-256 hex of everything that decides the rendered text."""
        hashed = hashlib.blake2b(digest_size=32)
        for text in (self.source, self.bos_text, self.eos_text, PLAIN_TEMPLATE):
            raw = text.encode("utf-8", "surrogatepass")
            hashed.update(len(raw).to_bytes(8, "little") + raw)
        return hashed.hexdigest()

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        date: datetime.date | str | None = None,
    ) -> RenderedPrompt:
        """Render a history. `date` is what the template may print as today (a date, or its ISO form; None: today).

        Where the file's template refuses the history, it is tried with the system message put into the first message of
        the user, then with neighbours of one role joined. Where it still fails, the plain template is used and
        `fallback` says why. Never raises for what a template does. The last renderings for a given day are kept: a
        turn asks for that of the turn before again, and whoever types asks for the same history with every pause.
        """
        said = tuple((str(message["role"]), str(message["content"])) for message in messages)
        if date is None:
            return self._render_first_shape(said, add_generation_prompt, _date(date))
        return self._kept(said, add_generation_prompt, _date(date))

    @cached_property
    def _kept(self) -> Callable[[tuple[tuple[str, str], ...], bool, datetime.date], RenderedPrompt]:
        return lru_cache(maxsize=_RENDERINGS_KEPT)(self._render_first_shape)

    def _render_first_shape(
        self, said: tuple[tuple[str, str], ...], add_generation_prompt: bool, day: datetime.date
    ) -> RenderedPrompt:
        """Render (role, content) pairs in the first shape that the template takes."""
        messages = [{"role": role, "content": content} for role, content in said]
        why = ""
        for number, shaped in enumerate(_shapes(messages)):
            try:
                return self._render(self._compiled, shaped, add_generation_prompt, day)
            except TemplateError as error:
                why = why if number else error.why
        from engine.template_sandbox import compiled

        rendered = self._render(compiled(PLAIN_TEMPLATE), _plainly(messages), add_generation_prompt, day)
        return RenderedPrompt(rendered.pieces, rendered.guarded, why)

    def next_turn(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        parent_tokens: Sequence[int],
        *,
        date: datetime.date | str | None = None,
        same_prompt: bool = True,
        add_generation_prompt: bool = True,
    ) -> Turn:
        """The ids that lead from `parent_tokens` to the next reply.

        `messages` is the whole history, the new message last (several new ones are fine). `parent_tokens` are all ids
        up to the end of the last assistant message in it, its generated ids included: they are never made again from
        text. If there is no assistant message, or `same_prompt` is False (these ids were made by another template or
        tokenizer), or the template now renders the past in another way (drops thinking, say), then the history is
        encoded anew and as many of the parent's tokens are kept as are equal.
        """
        whole = self.render(messages, add_generation_prompt=add_generation_prompt, date=date)
        reply = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
        if same_prompt and parent_tokens and reply is not None:
            before = self.render(messages[:reply], add_generation_prompt=True, date=date)
            suffix = _behind_reply(before, whole, reply, messages[reply]["content"])
            if suffix is not None and before.fallback == whole.fallback:
                added = RenderedPrompt(suffix, whole.guarded).encode(tokenizer, continuation=True)
                return Turn(len(parent_tokens), added, 0, whole.fallback)
        ids = whole.encode(tokenizer)
        keep = 0
        while keep < min(len(ids), len(parent_tokens)) and ids[keep] == parent_tokens[keep]:
            keep += 1
        return Turn(keep, ids[keep:], len(parent_tokens) - keep, whole.fallback)

    @cached_property
    def _compiled(self) -> Any:
        """The compiled template, or the TemplateError that compiling gave: kept, since compiling takes milliseconds."""
        from engine.template_sandbox import compiled

        try:
            return compiled(self.source)
        except TemplateError as error:
            return error

    def _render(
        self,
        template: Any,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        day: datetime.date,
    ) -> RenderedPrompt:
        from engine.template_sandbox import render

        if isinstance(template, TemplateError):
            raise template
        fixed = {
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self.bos_text,
            "eos_token": self.eos_text,
            "tools": None,
            "documents": None,
        }
        marker = Marker()
        size = sum(len(part) for message in messages for part in message["parts"])

        def rendered(shown: Any) -> str:
            return render(template, fixed | {"messages": [_message(message, shown) for message in messages]}, day, size)

        real = rendered(lambda index, text: text)
        marked = rendered(lambda index, text: marker.mark(index))
        contents = {i: text for m in messages for i, text in zip(m["indices"], m["parts"], strict=True)}
        cut = marker.split(marked)
        shown = set(cut[1::2])
        if any(index not in shown and text.strip() for index, text in contents.items()):
            raise TemplateError("it leaves out a message")
        pieces = laid_over(real, cut, contents, self.special_texts)
        if pieces is None:
            # The template looks into the contents. Take what could be read as a token out of them, so that whatever
            # the template makes of the rest, tokens in the result are the template's own.
            taken: list[str] = []
            pieces = marker.put_back(rendered(lambda i, text: marker.take_out(text, self.special_texts, taken)), taken)
        guarded = frozenset(text for text in self.special_texts if text in self.source)
        return RenderedPrompt(tuple(piece for piece in pieces if piece.text or piece.message is not None), guarded)


def _message(message: Mapping[str, Any], shown: Any) -> dict[str, str]:
    parts = [shown(index, text) for index, text in zip(message["indices"], message["parts"], strict=True)]
    return {"role": message["role"], "content": "\n\n".join(parts)}


def _plainly(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as role, content parts, and the indices of the messages that the parts come from."""
    return [
        {"role": str(message["role"]), "parts": [str(message["content"])], "indices": [index]}
        for index, message in enumerate(messages)
    ]


def _shapes(messages: Sequence[Message]) -> list[list[dict[str, Any]]]:
    """The history as it is; with system messages put into the next message of the user; with neighbours joined."""
    plain = _plainly(messages)
    shapes = [plain]
    folded: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    for message in plain:
        if message["role"] == "system":
            waiting.append(message)
        else:
            if message["role"] == "user" and waiting:
                message = _joined([*waiting, message], "user")
                waiting = []
            folded.append(message)
    if len(folded) < len(plain) and not waiting:
        shapes.append(folded)
        plain = folded
    merged: list[dict[str, Any]] = []
    for message in plain:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1] = _joined([merged[-1], message], message["role"])
        else:
            merged.append(message)
    if len(merged) < len(plain):
        shapes.append(merged)
    return shapes


def _joined(messages: Sequence[Mapping[str, Any]], role: str) -> dict[str, Any]:
    return {
        "role": role,
        "parts": [part for message in messages for part in message["parts"]],
        "indices": [index for message in messages for index in message["indices"]],
    }


def _behind_reply(before: RenderedPrompt, whole: RenderedPrompt, reply: int, content: str) -> tuple[Piece, ...] | None:
    """The pieces of `whole` behind message `reply`, if `whole` goes on from `before` by exactly that reply.

    White space at the reply's borders does not count: the generated ids stand as they are, and templates strip.
    """
    at = next((i for i, piece in enumerate(whole.pieces) if piece.message == reply), None)
    if at is None or whole.pieces[at].text.strip() != content.strip():
        return None
    past = _runs(whole.pieces[:at])
    had = _runs(before.pieces)
    # Compare with the borders of content: the same text from another hand is another history.
    if len(past) != len(had) or past[:-1] != had[:-1]:
        return None
    if past:
        (text, parse), (had_text, had_parse) = past[-1], had[-1]
        if parse != had_parse or not text.startswith(had_text) or text[len(had_text) :].strip():
            return None
    return whole.pieces[at + 1 :]


def _runs(pieces: Sequence[Piece]) -> list[tuple[str, Parse]]:
    """The pieces with neighbours of one kind joined."""
    runs: list[tuple[str, Parse]] = []
    for piece in pieces:
        if runs and runs[-1][1] is piece.parse:
            runs[-1] = (runs[-1][0] + piece.text, piece.parse)
        elif piece.text:
            runs.append((piece.text, piece.parse))
    return runs


def _date(date: datetime.date | str | None) -> datetime.date:
    if date is None:
        return datetime.datetime.now()
    if isinstance(date, str):
        return datetime.datetime.fromisoformat(date)
    return date
