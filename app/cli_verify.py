"""`forkpoint verify`: a proof that a savepoint is what it says. Everything is computed again and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from app.cli import json_option, model_options
from app.errors import OtherModel
from app.events import Progress
from app.saved_model import open_saved, saved_model, was_computed
from app.savepoints import model_info
from app.sentences import counted
from app.terminal import ProgressLine, print_json
from snapshots import Library, Node, UnknownRef


@dataclass(frozen=True)
class Difference:
    """The first thing that is not as it was saved."""

    node_id: str
    position: int  # in tokens
    what: str  # weights | logits | kv | files
    expected: str
    found: str


@click.command("verify", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("ref", default="HEAD")
@model_options("the savepoint's")
@json_option
def verify_command(
    ref: str, model: Path | None, threads: int | None, context: int | None, cache_type: Any, as_json: bool
) -> int:
    """Recompute REF from its tokens, compare every stored digest and every stored byte of KV; say PASS or where not.

    The weights are hashed anew, too. Where nothing is stored to compare, that is said, and it is no PASS.
    """
    from app.libraries import own_library

    library = own_library(must_exist=True)
    if library is None:
        raise UnknownRef(ref)
    with library:
        node = library.resolve(ref).node
        path = library.path(node.id)
        if model is None and not was_computed(library, path):
            result = _nothing(library, node)
        else:
            saved = saved_model(library, path)
            line = ProgressLine()
            opened = open_saved(saved, model, line.loading, cache_type=cache_type, context=context, threads=threads)
            try:
                if saved.info is not None and saved.info.state_key != opened.state_key:
                    raise OtherModel(ref, saved.info.differing_fields(model_info(opened)), saved.info.name)
                result = verify(
                    library, opened, node, lambda done, total: line.show(Progress("restore", done, total, None))
                )
            finally:
                line.clear()
                opened.close()
    return _report(result, as_json)


def _report(result: dict[str, Any], as_json: bool) -> int:
    """Print the outcome; give the exit code."""
    difference: Difference | None = result["difference"]
    compared = result["digests"] + result["kv_tokens"] > 0
    passed = None if difference is None and not compared else difference is None
    if as_json:
        print_json({**result, "pass": passed, "difference": asdict(difference) if difference else None})
    elif difference is not None:
        print(
            f"FAIL: {difference.what} of {difference.node_id[:12]} at token {difference.position}: "
            f"expected {difference.expected}, found {difference.found}."
        )
    elif passed:
        print(
            f"PASS: {counted(result['tokens'], 'token')}, {counted(result['digests'], 'digest')}, "
            f"{counted(result['kv_tokens'], 'token')} of stored KV."
        )
    else:
        print(f"NOTHING PROVEN: {result['tokens']} tokens, but no digest and no KV is stored to compare with.")
    return 0 if passed else 11


def _nothing(library: Library, node: Node) -> dict[str, Any]:
    """What is found out about a path that no model ever computed."""
    counts = {"tokens": len(library.tokens(node.id)), "digests": 0, "kv_tokens": 0}
    return {"id": node.id, **counts, "logits_digest": None, "difference": None}


def verify(
    library: Library, model: Any, node: Node, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Hash the weights and feed a node's whole path anew; compare logits digests message by message, then the stored
    KV byte by byte.
    """
    session = model.new_session()
    tokens = library.tokens(node.id)
    digests, difference = 0, None
    weights = model.weights_digest()
    if weights != model.state_fields["tensors"]:
        difference = Difference(node.id, 0, "weights", model.state_fields["tensors"], weights)
    for at in library.path(node.id) if difference is None else ():
        session.truncate(min(at.keep, session.position))
        row = next((s for s in library.node_states(at.id) if s.state_key == model.state_key), None)
        if at.id != node.id and (row is None or not row.logits_digest):
            continue  # what stands of it is fed with the next one; another model's ids may mean nothing to this one
        ids = library.tokens(at.id)
        if max(ids, default=0) >= model.vocabulary_size:
            difference = Difference(at.id, at.keep, "tokens", f"ids below {model.vocabulary_size}", str(max(ids)))
            break
        if ids[session.position :]:
            model.prefill(session, ids[session.position :])
        progress(session.position, len(tokens))
        if row is None or not row.logits_digest or session.logits is None:
            continue
        digests += 1
        found = session.logits_digest()
        if found != row.logits_digest:
            difference = Difference(at.id, session.position, "logits", row.logits_digest, found)
            break
    kv_tokens = 0
    if difference is None and tokens:
        loaded = library.load_state(model.state_key, tokens)
        kv_tokens = loaded.n_valid
        difference = _compare_kv(node.id, tokens, loaded, model, session)
        if difference is None and loaded.damaged:
            difference = Difference(node.id, loaded.n_valid, "files", "0 damaged", f"{loaded.damaged} damaged")
    return {
        "id": node.id,
        "tokens": len(tokens),
        "digests": digests,
        "kv_tokens": kv_tokens,
        "logits_digest": session.logits_digest() if session.logits is not None else None,
        "difference": difference,
    }


def _compare_kv(node_id: str, tokens: list[int], stored: Any, model: Any, session: Any) -> Difference | None:
    """Compare the stored KV with the fresh one, byte by byte, chunk by chunk.

    Stored chunks may be cut otherwise than fresh ones: a session is built of them and captured like the fresh one.
    """
    from app.local_engine import LocalEngine

    n = stored.n_valid
    parts = [(c.start, c.stop, c.arrays) for c in stored.chunks]
    state = LocalEngine().state_from_parts(tokens[:n], parts, None, None, b"")
    old, new = model.capture(model.restore(state)), session.fork()
    new.truncate(n)
    for was, now in zip(old.chunks, model.capture(new).chunks, strict=True):
        for name, array in now.arrays.items():
            if array.tobytes() != was.arrays[name].tobytes():
                return Difference(node_id, now.start, f"kv ({name})", "the stored bytes", "other bytes")
    return None
