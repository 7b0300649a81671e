"""`forkpoint run`: one reply on stdout. Writes to the library only with --save."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from app.cli import OF_CHATS, json_option, model_options
from app.errors import BadInput, TooLong
from app.events import (
    BranchDelta,
    ContextFullOffer,
    Delta,
    Event,
    ModelReady,
    Notice,
    Progress,
    ReplyDone,
    Restored,
    TurnCommitted,
)
from app.sentences import fields_as_said
from app.terminal import BranchPrinter, ProgressLine, print_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.chat import Chat
    from app.generation import Reply

_SAMPLER_OPTIONS: tuple[tuple[tuple[str, ...], type, str], ...] = (
    (("--temp", "temperature"), float, "Temperature; 0 is greedy."),
    (("--top-k", "top_k"), int, "Keep the k likeliest tokens; 0: all."),
    (("--top-p", "top_p"), float, "Keep the likeliest tokens up to this sum."),
    (("--min-p", "min_p"), float, "Keep tokens at least this likely beside the best."),
    (("--typical", "typical_p"), float, "Locally typical sampling; 1: off."),
    (("--repeat-penalty", "repeat_penalty"), float, "Penalty on repeated tokens; 1: off."),
    (("--repeat-last-n", "repeat_last_n"), int, "Tokens that penalties look back on; -1: all."),
    (("--presence-penalty", "presence_penalty"), float, "Penalty on tokens that occurred."),
    (("--frequency-penalty", "frequency_penalty"), float, "Penalty by how often a token occurred."),
    (("--dry-multiplier", "dry_multiplier"), float, "DRY penalty on repeated sequences; 0: off."),
    (("--dry-base", "dry_base"), float, "Base of the DRY penalty."),
    (("--dry-allowed-length", "dry_allowed_length"), int, "Longest repetition that DRY lets pass."),
    (("--dry-penalty-last-n", "dry_penalty_last_n"), int, "Tokens that DRY looks back on; -1: all."),
    (("--xtc-probability", "xtc_probability"), float, "Chance of leaving out the top choices."),
    (("--xtc-threshold", "xtc_threshold"), float, "What counts as a top choice."),
)


def _sampler_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--stop", multiple=True, metavar="TEXT", help="End the reply at this text (repeatable).")(
        command
    )
    for names, kind, text in reversed(_SAMPLER_OPTIONS):
        command = click.option(*names, type=kind, metavar="N" if kind is int else "X", help=text)(command)
    return command


@click.command("run", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("prompt", nargs=-1)
@model_options(OF_CHATS)
@click.option("--at", metavar="REF", help="Go on from a savepoint.")
@click.option("--save", "save_name", metavar="NAME", help="Keep the result under a name.")
@click.option("-f", "--force", is_flag=True, help="Let --save move a name that is taken.")
@click.option("-sys", "--system", metavar="TEXT", help="System message.")
@click.option("--raw", is_flag=True, help="No template; when appending, no BOS and no space in front.")
@click.option("-s", "--seed", type=int, metavar="N", help="Dice from a number: same seed, same text.")
@click.option("--new-dice", is_flag=True, help="New dice instead of the savepoint's.")
@click.option("-n", "--predict", type=click.IntRange(-1), metavar="N", help="Most tokens to write; -1: no limit.")
@click.option(
    "--branches", type=click.IntRange(1, 64), metavar="K", help="K replies at once, each with dice of its own."
)
@click.option(
    "--speculate/--no-speculate",
    default=None,
    help="Guess repetitions ahead where that is faster; the text stays the same. [default: on]",
)
@click.option("-b", "--batch-size", type=click.IntRange(1), default=512, metavar="N", help="Tokens per prefill step.")
@_sampler_options
@json_option
def run_command(prompt: tuple[str, ...], as_json: bool, save_name: str | None, force: bool, **given: Any) -> int:
    """Write one reply to PROMPT on stdout. '-' reads stdin, also beside PROMPT; no PROMPT continues from --at."""
    text = _prompt_text(prompt)
    if text is None and given["at"] is None:
        raise click.UsageError("A PROMPT is needed ('-' reads stdin), or --at REF to continue.")
    from app.chat import Chat

    listener = _Listener(as_json, given["branches"] or 1, keeps=save_name is not None)
    chat = Chat(listener, _options(save_name, given), model=given["model"], config=_config())
    try:
        with _interruptible(chat, listener):
            _check_names(chat, save_name, force, given["branches"] or 1)
            chat.start(given["at"], fresh=given["at"] is None)
            chat.load_model()
            listener.ready()
            if given["system"] is not None:
                chat.set_system(given["system"])
            if text is not None:
                chat.send(text, raw=given["raw"])
            else:
                chat.continue_reply(past_end=False)
        listener.done()
        result = _result(chat, listener, given["at"] is not None, given["branches"])
        try:
            _save(chat, save_name, force, result)
        finally:
            if as_json:  # also where saving fails: the text is not lost with it
                print_json(result)
        if save_name is not None:
            _back_up(chat)
        if listener.unsaid is not None:
            raise listener.unsaid
    finally:
        listener.progress.clear()
        chat.close()
    return 130 if listener.interrupted else 0


def _prompt_text(prompt: tuple[str, ...]) -> str | None:
    """Join the arguments; '-' is what stdin holds."""
    if prompt.count("-") > 1 or len(prompt) > 2 or (len(prompt) == 2 and "-" not in prompt):
        raise click.UsageError("One PROMPT, and '-' once: put a prompt of several words in quotes.")
    parts = []
    for part in prompt:
        if part == "-":
            if sys.stdin.isatty():
                click.echo("Reading the prompt from the terminal; Ctrl+D ends it.", err=True)
            raw = sys.stdin.buffer.read()
            part = raw.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
        # An argument that is not UTF-8 arrives with lone surrogates, which no tokenizer takes.
        parts.append(os.fsencode(part).decode("utf-8", "replace"))
    return "\n\n".join(parts) if prompt else None


def _config() -> Any:
    from app.config import load_config

    return load_config()


def _options(save_name: str | None, given: dict[str, Any]) -> Any:
    from app.chat import ChatOptions
    from app.chat_options import SCRIPT
    from app.workbench import ModelOptions

    config = _config()
    cache_type, context = _how_to_open(given, config)
    forced = {names[1]: given[names[1]] for names, _, _ in _SAMPLER_OPTIONS if given[names[1]] is not None}
    if given["stop"]:
        forced["stop"] = list(given["stop"])
    limit = given["predict"]
    return ChatOptions(
        models=ModelOptions(
            threads=given["threads"] or config.threads,
            context=context,
            cache_type=cache_type,
            batch_size=given["batch_size"],
        ),
        sampler=config.sampler,
        forced=forced,
        seed=given["seed"],
        new_dice=given["new_dice"],
        limit=None if limit is None or limit < 0 else limit,
        window=SCRIPT,
        moves_head=given["at"] is None,  # a script that goes on from a savepoint leaves people where they are
        incognito=save_name is None,
        speculate=config.speculate if given["speculate"] is None else given["speculate"],
        branches=given["branches"] or 1,
        strict_model=True,
    )


def _how_to_open(given: dict[str, Any], config: Any) -> tuple[Any, int | None]:
    """KV type and context size: the options', else those of the savepoint that --at names, else the config file's.

    Raises UnknownRef, AmbiguousRef, ConfigError.
    """
    from app.config import configured_model
    from app.libraries import own_library
    from app.saved_model import SavedModel, how_to_open, saved_model

    saved = SavedModel()
    library = own_library(must_exist=True) if given["at"] is not None else None
    if library is not None:
        with library:
            saved = saved_model(library, library.path(library.resolve(given["at"]).node.id))
    file = given["model"] or saved.file or configured_model()
    return how_to_open(saved, file, config, cache_type=given["cache_type"], context=given["context"])


class _Listener:
    """Writes what a chat reports, and remembers what the JSON result needs."""

    def __init__(self, as_json: bool, branches: int, *, keeps: bool) -> None:
        self.unsaid: OSError | None = None
        self._keeps = keeps
        self.progress = ProgressLine()
        self.load_s = self.restore_s = 0.0
        self.restored: Restored | None = None
        self.reply: ReplyDone | None = None
        self.interrupted = False
        self.loading = True
        self._as_json = as_json
        self._wrote = ""
        self._branches = BranchPrinter(branches)
        self._begin = time.perf_counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.progress.show(event)
        elif isinstance(event, ModelReady):
            self.load_s, self._begin = event.load_s, time.perf_counter()
            self.loading = False
        elif isinstance(event, Restored):
            self.restored = event
            self._warn(event)
        elif isinstance(event, Delta):
            self.progress.clear()
            if not self._as_json:
                self._say(write_text, event.text)
                self._wrote = event.text
        elif isinstance(event, BranchDelta):
            self.progress.clear()
            if not self._as_json:
                self._say(self._branches.hear, event)
        elif isinstance(event, ReplyDone):
            self.reply = event
        elif isinstance(event, ContextFullOffer):
            raise TooLong(event.needed, event.limit)
        elif isinstance(event, Notice) and not self.interrupted:
            self.progress.clear()
            click.echo(f"forkpoint: {event.sentence}", err=True)
        elif isinstance(event, TurnCommitted):
            return

    def _warn(self, restored: Restored) -> None:
        """Say it where the promise does not hold: going on gives other tokens than those that would have come."""
        if not restored.differs and restored.bit_exact is not False:
            return
        why = f"with another {fields_as_said(restored.differs) or 'version of the arithmetic'}"
        self.progress.clear()
        click.echo(
            f"forkpoint: The savepoint was made {why}: what follows may differ from what would have come.", err=True
        )

    def ready(self) -> None:
        """Everything is loaded and restored."""
        self.progress.clear()
        self.restore_s = time.perf_counter() - self._begin

    def done(self) -> None:
        """The reply ended: a terminal's next line begins a new one."""
        self.progress.clear()
        if self._wrote and not self._wrote.endswith("\n") and sys.stdout.isatty():
            self._say(write_text, "\n")

    def _say(self, write: Callable[[Any], None], what: Any) -> None:
        """Write as long as somebody reads; what is to be kept comes to its end all the same, and then it is told."""
        if self.unsaid is None:
            try:
                write(what)
            except OSError as error:
                if not self._keeps:
                    raise
                self.unsaid = error


@contextmanager
def _interruptible(chat: Chat, listener: _Listener) -> Iterator[None]:
    """The first Ctrl+C ends the reply and keeps it, the second one ends the program."""

    def interrupt(*_: object) -> None:
        if listener.interrupted or listener.loading:
            raise KeyboardInterrupt
        listener.interrupted = True
        chat.stop()

    old = None
    with suppress(ValueError):  # not in the main thread: whoever runs us there handles signals
        old = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if old is not None:
            signal.signal(signal.SIGINT, old)


def branch_names(name: str, branches: int) -> list[str]:
    """NAME, NAME-2, NAME-3, …"""
    return [name, *(f"{name}-{number}" for number in range(2, branches + 1))]


def _check_names(chat: Chat, name: str | None, force: bool, branches: int) -> None:
    """Refuse a name before the model works for minutes."""
    if name is None:
        return
    from snapshots import NameTaken
    from snapshots.names import check_name

    labels = chat.labels()
    for each in branch_names(name, branches):
        check_name(each)
        taken = labels.get(each)
        if taken is not None and not force:
            raise NameTaken(each, taken)


def _result(chat: Chat, listener: _Listener, restored: bool, branches: int | None) -> dict[str, Any]:
    """Make the JSON object of DESIGN §6: with `branches` one that holds such an object for each."""
    rung = listener.restored.rung if restored and listener.restored else None
    if branches is None:
        digest = chat.logits_digest() if chat.last_reply else None  # stopped in the prompt: of no place that is listed
        return _one_result(listener, chat.last_reply, chat.status().tokens, rung, chat.dice_key, digest)
    made = [
        _one_result(listener, b.reply, b.session.position, rung, b.session.dice_key, b.session.logits_digest())
        for b in chat.branches
    ]
    if not made and chat.last_reply is not None:  # a batch of one is a plain reply
        made = [_result(chat, listener, restored, None)]
    return {"branches": made}


def _one_result(
    listener: _Listener, reply: Reply | None, position: int, rung: str | None, dice_key: bytes, digest: str | None
) -> dict[str, Any]:
    done = listener.reply
    tokens = list(reply.tokens) if reply else []
    prompt = position - len(tokens)
    stats = done.stats if done else None
    prefilled = (listener.restored.prefilled if listener.restored else 0) + (stats.prefilled_tokens if stats else 0)
    prefilled = min(prompt, prefilled)
    prefill_s = stats.prefill_s if stats else 0.0
    decode_s = reply.decode_s if reply else 0.0
    return {
        "text": reply.text if reply else "",
        "tokens": tokens,
        "stop": reply.stop if reply else "cancelled",
        "prompt_tokens": prompt,
        "reused_tokens": prompt - prefilled,
        "prefilled_tokens": prefilled,
        "restored_from": rung,
        "logits_digest": digest,
        "rng": {"key": dice_key.hex(), "position": position},
        "savepoint": None,
        "timings": {
            "load_s": round(listener.load_s, 6),
            "restore_s": round(listener.restore_s, 6),
            "prefill_s": round(prefill_s, 6),
            "decode_s": round(decode_s, 6),
            "save_s": 0.0,
            "prefill_tok_s": round(stats.prefill_tok_s, 3) if stats else 0.0,
            "decode_tok_s": round(len(tokens) / decode_s, 3) if decode_s > 0 else 0.0,
            "drafted_tokens": reply.drafted if reply else 0,
            "accepted_tokens": reply.accepted if reply else 0,
        },
    }


def _save(chat: Chat, name: str | None, force: bool, result: dict[str, Any]) -> None:
    """Name the result, or each branch of it, and wait until all of it is on disk; mutates `result`."""
    if name is None:
        return
    begin = time.perf_counter()
    made = result.get("branches", [result])
    names = branch_names(name, len(made))
    if chat.branches:
        ids = [chat.name_branch(index, each, force=force) for index, each in enumerate(names)]
    else:
        chat.save(name, force=force)
        ids = [chat.status().node_id or ""]
    if not chat.flush():
        raise BadInput(name, "could not be written in time")
    save_s = round(time.perf_counter() - begin, 6)
    for each, node_id, own in zip(names, ids, made, strict=False):
        own["savepoint"] = {"id": node_id, "name": each}
        own["timings"]["save_s"] = save_s


def _back_up(chat: Chat) -> None:
    """Make the library's daily copy where one is due. The reply is out and saved: trouble here is only told."""
    from app.sentences import sentence
    from snapshots import StoreError

    try:
        chat.back_up()
    except StoreError as error:
        click.echo(f"forkpoint: There is no backup of today: {sentence(error)}", err=True)
