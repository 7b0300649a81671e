"""How conversations leave a library and come into one: whole files, and checked imports."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from app.errors import BadInput
from snapshots import Arrival, BadExport, ExportScope, Library, Node


def document(library: Library, node_id: str, scope: ExportScope, kind: str) -> Iterator[bytes]:
    """Give a conversation as Markdown (`md`) or JSON (`json`), encoded."""
    from app.documents import as_json, as_markdown, depth_first, node_row

    nodes = library.chosen(node_id, scope)
    names = {node.id: library.names_of(node.id) for node in nodes}
    conversation = library.conversation(nodes[-1].conversation_id)
    if kind == "json":
        rows = [node_row(n, names[n.id], [s._asdict() for s in library.node_states(n.id)]) for n in nodes]
        yield json.dumps(as_json(conversation, node_id, rows), ensure_ascii=True).encode() + b"\n"
        return
    for piece in as_markdown(conversation.title, depth_first(nodes), names):
        yield piece.encode("utf-8", "replace")


def write_file(path: Path, pieces: Iterable[bytes], *, force: bool, way_out: str = "-f replaces it") -> None:
    """Write a file that appears when it is whole; pipes and devices are written as they are.

    Raises BadInput where it is there already and `force` is not set; OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "wb") as there:
                there.writelines(pieces)
            return
        if not force:
            raise BadInput(str(path), f"is there already; {way_out}")
    try:
        draft = tempfile.NamedTemporaryFile(dir=path.parent, prefix=".forkpoint-", delete=False)  # noqa: SIM115
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error  # the name that people gave
    with draft:
        try:
            for piece in pieces:
                draft.write(piece)
            draft.flush()
            os.fsync(draft.fileno())
            os.replace(draft.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # stopped right behind its renaming
                os.unlink(draft.name)
            raise
    _sync_names(path.parent)


def _sync_names(directory: Path) -> None:
    """Make a file's new name survive a power cut, where the file system has that."""
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def import_checked(
    library: Library, stream: Any, source: str, model: Path | None = None, *, force: bool = False, engine: Any = None
) -> tuple[Arrival, dict[str, int]]:
    """Import and compare tokens with text; give what came and how many messages agree, differ, were not checked.

    Raises BadExport where tokens do not say their text, unless `force`; then nothing stays of it.
    """
    from app.config import bundled_model, configured_model
    from app.importing import check, prompts_at_hand
    from app.local_engine import LocalEngine

    engine = engine or LocalEngine()
    counts: dict[str, int] = {}

    def inspect(arrival: Arrival) -> dict[str, str]:
        nodes = library.chosen(arrival.node_id, "conversation")
        origins = library.origins([node.id for node in nodes])
        fresh = [n for n in nodes if n.id in origins and origins[n.id].checked in ("", "differs")]
        infos = {key: library.model_info(key) for key in {node.state_key for node in fresh}}
        files = [model, *(Path(i.path) for i in infos.values() if i is not None and i.path), *usual]
        prompts = prompts_at_hand(engine, {node.prompt_key for node in fresh}, files)
        found = check(engine, prompts, library, [node.id for node in fresh])
        if found.differing and not force:
            raise BadExport(f"the tokens of message {found.differing[0][:12]} do not say its text")
        trouble = _unusable_settings(engine, fresh)
        if trouble:
            raise BadExport(trouble)
        counts.update(agree=len(found.agreeing), differ=len(found.differing), unchecked=len(found.unchecked))
        return dict.fromkeys(found.agreeing, "text") | dict.fromkeys(found.differing, "differs")

    usual = [configured_model(), bundled_model()]
    name = "stdin" if source == "-" else Path(source).name
    return library.import_stream(stream, source=name, inspect=inspect), counts


def _unusable_settings(engine: Any, nodes: Iterable[Node]) -> str:
    """A sentence's end about the first message whose sampler settings no sampler takes; "" where all are good."""
    from engine.errors import SamplerError

    seen: set[str] = set()
    for node in nodes:
        text = json.dumps(dict(node.sampler), sort_keys=True)
        if text in seen:
            continue
        seen.add(text)
        try:
            engine.settings_from_json(node.sampler)
        except SamplerError:
            return f"the settings of message {node.id[:12]} cannot be used"
    return ""


def said(arrival: Arrival, counts: dict[str, int]) -> str:
    """Give the sentence about an import."""
    text = f"{arrival.added} of {arrival.messages} messages are new"
    if arrival.title:
        text += f" in “{arrival.title}”"
    if counts["differ"]:
        text += f"; the tokens of {counts['differ']} do not say their text: they are marked"
    elif counts["unchecked"]:
        text += f"; {counts['unchecked']} could not be checked: their tokenizer is not here"
    elif counts["agree"]:
        text += "; their tokens say their text"
    for old, new in arrival.renamed.items():
        text += f"; “{old}” is taken, so it is “{new}” here"
    return text + "."
