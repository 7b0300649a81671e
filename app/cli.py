"""The command line's tree of commands. Each command's module is imported when it is used, so that --help is fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from app.config import LONGEST_CONTEXT, MOST_THREADS
from app.sentences import exit_code_table

_COMMANDS = {
    "run": "app.cli_run",
    "list": "app.cli_library",
    "tree": "app.cli_library",
    "show": "app.cli_library",
    "diff": "app.cli_library",
    "find": "app.cli_library",
    "rename": "app.cli_library",
    "delete": "app.cli_library",
    "undo": "app.cli_library",
    "stats": "app.cli_library",
    "pin": "app.cli_library",
    "gc": "app.cli_library",
    "export": "app.cli_exchange",
    "import": "app.cli_exchange",
    "verify": "app.cli_verify",
    "fsck": "app.cli_fsck",
    "models": "app.cli_model",
    "tokenize": "app.cli_model",
    "eval": "app.cli_model",
    "bench": "app.cli_bench",
}
_HELP = {
    "run": "One reply on stdout, no screen.",
    "list": "List conversations and savepoints.",
    "tree": "Show a conversation as a tree.",
    "show": "Show the messages up to a savepoint.",
    "diff": "Show where two savepoints part.",
    "find": "Find messages by their words.",
    "rename": "Give a savepoint another name.",
    "delete": "Delete a message and what is behind it; undo brings it back.",
    "undo": "Reverse the last action.",
    "stats": "Count what is saved, or what one savepoint takes.",
    "pin": "Keep a savepoint's state on disk.",
    "gc": "Remove states that nothing needs.",
    "export": "Write savepoints as one file.",
    "import": "Read an exported file.",
    "verify": "Recompute a savepoint and compare every digest.",
    "fsck": "Check everything that is saved; --repair mends it.",
    "models": "List models.",
    "tokenize": "Print a text's token ids.",
    "eval": "Perplexity and logits of a text.",
    "bench": "Measure speed and sizes.",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports their modules only to run them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        module = _COMMANDS.get(name)
        return getattr(importlib.import_module(module), f"{name}_command") if module else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' list without importing one of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _HELP[name]) for name in _COMMANDS])


_Command = Callable[..., Any]
OF_CHATS = "the savepoint's, else the config file's, the last used or the bundled one"
OF_TOOLS = "the config file's or the bundled one"


def model_options(default: str) -> Callable[[_Command], _Command]:
    """Add the options that say how a model is opened; `default` says which one is taken without -m."""

    def decorate(command: _Command) -> _Command:
        for decorator in _how_to_open:
            command = decorator(command)
        return model_option(default)(command)

    return decorate


_how_to_open = (
    click.option("--cache-type", type=click.Choice(["f16", "q8_0"]), help="How keys and values are kept."),
    click.option(
        "-c", "--ctx-size", "context", type=click.IntRange(1, LONGEST_CONTEXT), metavar="N", help="Context size."
    ),
    click.option("-t", "--threads", type=click.IntRange(1, MOST_THREADS), metavar="N", help="Threads to compute with."),
)


def model_option(default: str) -> Callable[[_Command], _Command]:
    """Add -m; `default` says which model is taken without it."""
    kind: Any = click.Path(path_type=Path)
    return click.option("-m", "--model", type=kind, metavar="FILE", help=f"GGUF model file [default: {default}].")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"forkpoint {version('forkpoint')}")
        ctx.exit()


def _refuse_options_in_front(ctx: click.Context) -> None:
    """Options in front of a command are the screen's; passing over them would do something else than was asked for."""
    given = [
        max(parameter.opts, key=len)
        for parameter in ctx.command.params
        if parameter.expose_value and ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(
            f"{', '.join(given)} in front of “{ctx.invoked_subcommand}” has no effect: put it behind."
        )


_EPILOG = (
    "REF is a name, an id prefix, `quick` or `HEAD`; REF~n is n turns back, REF@n a token inside.\n\n\b\nExit codes:\n"
)


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    epilog=_EPILOG + exit_code_table(),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@model_options(OF_CHATS)
@click.option("--at", metavar="REF", help="Open a savepoint.")
@click.option("--resume", is_flag=True, help="Pick what to open from a list.")
@click.option("--no-save", is_flag=True, help="Incognito: nothing of the chat is written.")
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version")
@click.pass_context
def cli(
    ctx: click.Context,
    model: Path | None,
    at: str | None,
    resume: bool,
    no_save: bool,
    threads: int | None,
    context: int | None,
    cache_type: Any,
) -> int:
    """Chat with a local model. Every moment of a conversation can be saved, named, forked and restored, bit for bit.

    Without a command the screen opens where it was left.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options_in_front(ctx)
        return 0
    # The screen is painted on stderr: with that in a file, a person would look at nothing.
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise click.UsageError("The screen needs a terminal; `forkpoint run PROMPT` works without one.")
    from app.config import TuiOptions, configured_model
    from app.tui.app import run_tui
    from snapshots import StoreFull, StoreReadOnly

    if model is None:
        configured_model()  # a missing file is said before anything is painted

    options = TuiOptions(
        model=model,
        at=at,
        resume=resume,
        no_save=no_save,
        threads=threads,
        context=context,
        cache_type=cache_type,
    )
    try:
        return int(run_tui(options) or 0)
    except (StoreFull, StoreReadOnly) as error:
        error.add_note("`forkpoint --no-save` chats without writing anything.")
        raise
