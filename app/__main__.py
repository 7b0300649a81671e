"""`forkpoint`: the way in. Runs a command; every error becomes one sentence on stderr and a documented exit code."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import threading
from typing import TextIO


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and give its exit code; no traceback reaches a person unless FORKPOINT_DEBUG is set."""
    ending = _end_at_ctrl_c()
    import click

    from app.cli import cli
    from app.sentences import exit_code, one_line, sentence

    _stand_in_for_closed_streams()
    # A name in arguments or in a model file may hold anything: what a terminal cannot encode must not be an error.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            raw = stream is sys.stdout and codecs.lookup(stream.encoding or "ascii").name == "utf-8"
            stream.reconfigure(errors="surrogateescape" if raw else "replace")
    try:
        if ending:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        instruction = os.environ.get("_FORKPOINT_COMPLETE")
        if instruction:
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "forkpoint", "_FORKPOINT_COMPLETE", instruction)
        # Not cli.main(): click would make of a broken pipe the exit code 1.
        with cli.make_context("forkpoint", sys.argv[1:] if arguments is None else arguments) as context:
            result = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as wanted:
        return wanted.exit_code
    except click.ClickException as error:
        _complain(one_line(error.format_message()))
        return error.exit_code
    except click.Abort:
        return 130
    except BrokenPipeError:
        return 0  # whoever read our output has enough
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("FORKPOINT_DEBUG"):
            raise
        _complain(sentence(error))
        return exit_code(error)
    finally:
        _let_go_of_unwritten(sys.stdout)
        _let_go_of_unwritten(sys.stderr)
    return result if isinstance(result, int) else 0


def _end_at_ctrl_c() -> bool:
    """Let Ctrl+C simply end the program: an import that it comes into fails with whatever error. True where it does."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        return True
    return False


def _complain(text: str) -> None:
    """Say what went wrong, if anybody listens: the exit code says it, too."""
    with contextlib.suppress(OSError):
        print(f"forkpoint: {text}", file=sys.stderr, flush=True)


def _let_go_of_unwritten(stream: TextIO) -> None:
    """Drop what a full disk or a reader that left did not take: Python would complain of it at exit, with 120."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stand_in_for_closed_streams() -> None:
    """Put the null device where a stream was closed (`>&-`), which also keeps its number from a file of ours."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it stays to the end


if __name__ == "__main__":
    sys.exit(main())
