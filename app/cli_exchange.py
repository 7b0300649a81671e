"""`forkpoint export` and `forkpoint import`: savepoints that travel as one file, through a pipe if need be."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from app.cli import json_option, model_options
from app.cli_library import in_library, node_id_of, plain, print_line
from app.events import Progress
from app.sentences import counted
from app.terminal import ProgressLine, print_json
from app.travelling import document, import_checked, said, write_file
from snapshots import Arrival, Carried, ExportScope, Library, ModelInfo

if TYPE_CHECKING:
    from app.replaying import Replay

_SETTINGS = {"help_option_names": ["-h", "--help"]}


@click.command("export", context_settings=_SETTINGS)
@click.argument("ref", default="HEAD")
@click.option("-o", "--output", metavar="FILE", help="Where to; '-' is stdout.")
@click.option("--tree", "scope", flag_value="tree", help="Also everything behind REF.")
@click.option("--all", "scope", flag_value="conversation", help="The whole conversation of REF, with all branches.")
@click.option("--conversation", "scope", flag_value="conversation", help="The same.")
@click.option("--replay", is_flag=True, help="Leave the replies out: `import --replay` makes and proves them anew.")
@click.option("--format", "kind", type=click.Choice(["file", "md", "json"]), default="file", show_default=True)
@click.option("-f", "--force", is_flag=True, help="Replace FILE.")
def export_command(
    ref: str, output: str | None, scope: ExportScope | None, replay: bool, kind: str, force: bool
) -> None:
    """Write the savepoint REF with the path to it as one file that `forkpoint import` reads.

    It holds text, tokens, dice, settings and digests, and checks itself. Keys and values are not in it: they are
    computed again where it arrives, bit for bit.
    """
    if replay and kind != "file":
        raise click.UsageError("--replay is a file of its own: leave --format out.")
    if output == "":
        raise click.UsageError("-o needs the name of a file, or '-' for stdout.")
    if output is None:
        if kind == "file" and sys.stdout.isatty():
            raise click.UsageError("An export is no text for a terminal; name a file with -o FILE ('-' is stdout).")
        output = "-"
    with in_library(ref) as library:
        node_id = node_id_of(library, ref)
        pieces = _pieces(library, node_id, scope or "savepoint", replay, kind)
        if output == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        else:
            write_file(Path(output), pieces, force=force)


def _pieces(library: Library, node_id: str, scope: ExportScope, replay: bool, kind: str) -> Iterator[bytes]:
    from app.replaying import check_one_model, is_promised

    if replay:
        check_one_model(library, library.chosen(node_id, scope))
    if kind == "file":
        return library.export(node_id, scope, promised=is_promised if replay else None)
    return document(library, node_id, scope, kind)


@contextlib.contextmanager
def _reading(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        if sys.stdin.isatty():
            raise click.UsageError("There is nothing to import on a terminal; name a FILE.")
        yield sys.stdin.buffer
        return
    with open(file, "rb") as stream:
        yield stream


@click.command("import", context_settings=_SETTINGS)
@click.argument("file")
@click.option("--replay", is_flag=True, help="Make every reply again and prove it equal; nothing else is imported.")
@click.option("-f", "--force", is_flag=True, help="Take messages whose tokens do not say their text, and mark them.")
@model_options("the savepoint's, where it is here")
@json_option
def import_command(
    file: str,
    replay: bool,
    force: bool,
    model: Path | None,
    threads: int | None,
    context: int | None,
    cache_type: Any,
    as_json: bool,
) -> int:
    """Read an export FILE ('-' is stdin) into the library. Importing twice changes nothing; `forkpoint undo` undoes it.

    Messages keep their ids and meet those that are here. Where the tokenizer is here, it is checked that the tokens of
    each message say its text. Keys and values are computed when a message is opened, and compared with its digest.
    """
    from app.libraries import own_library

    with _reading(file) as stream:
        if replay:
            return _replay(file, stream, model, threads, context, cache_type, as_json)
        library = own_library()
        assert library is not None
        with library:
            arrival, counts = import_checked(library, stream, file, model, force=force)
    if as_json:
        print_json({**plain(arrival), "renamed": dict(arrival.renamed), **counts})
        return 0
    print_line(said(arrival, counts) + f" Open it with `forkpoint --at {_where(arrival)}`.")
    return 0


def _where(arrival: Arrival) -> str:
    return arrival.names[0] if arrival.names else arrival.node_id[:8]


# -------------------------------------------------------------------------------------------------------------- replay


def _replay(
    file: str,
    stream: BinaryIO,
    model: Path | None,
    threads: int | None,
    context: int | None,
    cache_type: Any,
    as_json: bool,
) -> int:
    from app.libraries import own_library
    from app.local_engine import LocalEngine
    from app.replaying import needed, replay
    from app.saved_model import SavedModel, open_saved

    library = own_library()
    assert library is not None
    line = ProgressLine()
    with library:
        parts = list(library.read_export(stream))
        wanted = needed(parts)
        known = library.model_info(wanted.state_key) if wanted is not None else None  # with its path
        length = max((p.node.n_tokens for p in parts if isinstance(p, Carried)), default=0)
        saved = SavedModel(known or wanted, _kv_type(wanted), length)
        opened = open_saved(saved, model, line.loading, cache_type=cache_type, context=context, threads=threads)
        try:
            found = replay(
                LocalEngine(), opened, parts, lambda done, total: line.show(Progress("replay", done, total, None))
            )
            from app.savepoints import model_info

            if not found.difference:
                library.remember_model(model_info(opened))
                arrival = library.import_parts(found.parts, source="stdin" if file == "-" else Path(file).name)
                library.set_checked([p.node.id for p in found.parts if isinstance(p, Carried)], "replayed")
        finally:
            line.clear()
            opened.close()
    return _report(found, arrival if not found.difference else None, as_json)


def _kv_type(info: ModelInfo | None) -> Any:
    kv_type = info.state_fields.get("kv_type") if info is not None else None
    return kv_type if kv_type in ("f16", "q8_0") else None


def _report(found: Replay, arrival: Arrival | None, as_json: bool) -> int:
    counts = {"replies": found.replies, "tokens": found.tokens, "digests": found.digests, "chosen": found.chosen}
    if as_json:
        told = plain(arrival) | {"renamed": dict(arrival.renamed)} if arrival is not None else {}
        print_json({**told, **counts, "pass": not found.difference, "difference": found.difference or None})
    elif found.difference:
        print_line(f"FAIL: {found.difference}. Nothing was imported.")
    else:
        chosen = f" {found.chosen} began with a token that somebody chose." if found.chosen else ""
        made = "1 reply was" if found.replies == 1 else f"{found.replies} replies were"
        print_line(
            f"PASS: {made} made again, equal in {counted(found.tokens, 'token')} and in "
            f"{counted(found.digests, 'digest')} of logits.{chosen}"
        )
    return 11 if found.difference else 0
