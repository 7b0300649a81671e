"""Commands on model files: models, tokenize, eval."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli import OF_TOOLS, json_option, model_option, model_options
from app.errors import BadInput
from app.events import Progress
from app.sentences import exit_code, sentence
from app.terminal import ProgressLine, print_json, print_table, size

if TYPE_CHECKING:
    from engine.gguf import GGUF

_SETTINGS = {"help_option_names": ["-h", "--help"]}


def chosen_model(path: Path | None) -> Path:
    """Give the file of -m, the config file's, or the bundled one. Raises ConfigError."""
    from app.config import bundled_model, configured_model

    return path or configured_model() or bundled_model()


@click.command("models", context_settings=_SETTINGS)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@json_option
def models_command(paths: tuple[Path, ...], as_json: bool) -> int:
    """List the bundled model, the config file's and the last used one, and the GGUF files in PATHS.

    What of PATHS is missing or no model, or a folder without one, is listed with the reason and gives the exit code.
    """
    from engine.errors import EngineError

    rows, code = [], 0
    for kind, path in _known(paths):
        try:
            rows.append({"kind": kind, **_facts(path)})
        except (EngineError, OSError, BadInput) as error:
            rows.append({"kind": kind, "path": str(path), "name": None, "error": sentence(error)})
            code = code or (exit_code(error) if path in paths else 0)
    if as_json:
        print_json(rows)
        return code
    shown = [
        (r["kind"], r["name"] or "", r.get("architecture", ""), r.get("types", ""), r.get("context_length", ""),
         size(r["size_bytes"]) if "size_bytes" in r else "", r.get("error") or _with_reason(r))
        for r in rows
    ]  # fmt: skip
    print_table(("", "NAME", "ARCHITECTURE", "TYPES", "CONTEXT", "SIZE", "FILE"), shown)
    return code


def _known(paths: tuple[Path, ...]) -> list[tuple[str, Path]]:
    from app.config import bundled_model, load_config
    from app.errors import NoModel
    from app.libraries import own_library
    from app.starting import LAST_MODEL

    found: list[tuple[str, Path]] = []
    with contextlib.suppress(NoModel):  # the list is for finding another one
        found.append(("bundled", bundled_model()))
    config = load_config()
    if config.model is not None:
        found.append(("config", config.model))
    library = own_library(must_exist=True)
    if library is not None:
        with library:
            last = library.remembered_settings().get(LAST_MODEL)
        if last and all(Path(last) != path for _, path in found):
            found.append(("last used", Path(last)))
    for path in paths:
        found += [("", p) for p in (sorted(path.glob("**/*.gguf")) or [path] if path.is_dir() else [path])]
    return found


def _facts(path: Path) -> dict[str, Any]:
    from collections import Counter

    from engine.gguf import GGUF

    if path.is_dir():
        raise BadInput(str(path), "holds no GGUF file")
    gguf = GGUF.open(path)
    try:
        types = Counter(tensor.type for tensor in gguf.tensors.values())
        context = gguf.metadata.get(f"{gguf.architecture}.context_length")
        return {
            "path": str(path),
            "name": str(gguf.metadata.get("general.name", path.stem)),
            "architecture": gguf.architecture,
            "types": ", ".join(name for name, _ in types.most_common()),
            "context_length": int(context) if isinstance(context, int) else None,
            "size_bytes": path.stat().st_size,
            "unsupported": _unsupported(gguf),
        }
    finally:
        gguf.close()


def _unsupported(gguf: GGUF) -> str | None:
    """Why the engine would refuse the file, as far as its header tells."""
    from engine.errors import EngineError, UnsupportedTensorType
    from engine.hyperparameters import Hyperparameters
    from engine.quants import SUPPORTED

    try:
        Hyperparameters.from_gguf(gguf)
    except EngineError as error:
        return str(error)
    lacking = next((tensor for tensor in gguf.tensors.values() if tensor.type not in SUPPORTED), None)
    return str(UnsupportedTensorType(lacking.name, lacking.type)) if lacking else None


def _with_reason(row: dict[str, Any]) -> str:
    return f"{row['path']}: {row['unsupported']}" if row.get("unsupported") else str(row["path"])


def _read_text(text: str | None) -> str:
    """The argument, or stdin for '-' and for none."""
    if text is not None and text != "-":
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return sys.stdin.buffer.read().decode("utf-8", "replace")


@click.command("tokenize", context_settings=_SETTINGS)
@model_option(OF_TOOLS)
@click.option("--no-special", is_flag=True, help="Add no BOS or EOS; take special tokens in the text as text.")
@click.option("--json", is_flag=True, hidden=True, help="Always so.")
@click.argument("text", required=False)
def tokenize_command(model: Path | None, no_special: bool, text: str | None, **_: object) -> None:
    """Print the ids of TEXT as one JSON list; '-' or nothing reads stdin."""
    from engine.gguf import GGUF
    from engine.tokenizer import Tokenizer

    gguf = GGUF.open(chosen_model(model))
    try:
        tokenizer = Tokenizer.from_gguf(gguf)
    finally:
        gguf.close()
    special: dict[str, Any] = {"add_bos": False} if no_special else {"parse_special": True}
    print_json(tokenizer.encode(_read_text(text), **special))


@click.command("eval", context_settings=_SETTINGS)
@model_options(OF_TOOLS)
@click.option("--tokens-file", type=click.Path(path_type=Path), metavar="IDS.json", help="JSON list of ids.")
@click.option("--logits", "out", type=click.Path(path_type=Path), metavar="OUT.npy", help="Write the float32 logits.")
@click.argument("textfile", required=False)
@json_option
def eval_command(
    model: Path | None,
    threads: int | None,
    context: int | None,
    cache_type: Any,
    tokens_file: Path | None,
    out: Path | None,
    textfile: str | None,
    as_json: bool,
) -> None:
    """Perplexity of TEXTFILE ('-' is stdin) or of a list of ids; the logits behind every token.

    A text longer than the context is read in windows of one context each, that begin anew.
    """
    if (textfile is None) == (tokens_file is None):
        raise click.UsageError("Either a TEXTFILE or --tokens-file IDS.json is needed.")
    if out is not None and not out.parent.is_dir():  # said before anything is computed
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(out))
    ids = _ids(tokens_file) if tokens_file is not None else None
    text = None if textfile is None else _file_text(textfile)
    if not (text or ids):
        raise BadInput(str(tokens_file or textfile), "holds nothing to evaluate")
    from app.local_engine import LocalEngine

    line = ProgressLine()
    opened: Any = LocalEngine().open_model(
        chosen_model(model),
        context=context,
        kv_type=cache_type or "f16",
        threads=threads,
        progress=line.loading,
    )
    try:
        ids = ids if ids is not None else opened.tokenizer.encode(text or "")
        bad = next((i for i in ids if not 0 <= i < opened.vocabulary_size), None)
        if bad is not None:
            raise BadInput(str(tokens_file), f"{bad} is not a token of this model")
        result = _evaluate(opened, ids, out, line)
    finally:
        line.clear()
        opened.close()
    if as_json:
        print_json(result)
        return
    shown = "too short for a perplexity" if result["perplexity"] is None else f"perplexity {result['perplexity']:.4f}"
    print(f"{result['tokens']} tokens, {shown}, {result['tok_s']:.1f} tok/s")


def _evaluate(model: Any, ids: list[int], out: Path | None, line: ProgressLine) -> dict[str, Any]:
    """Walk over the windows; NLL in float64 over log-softmax of the float32 logits."""
    import numpy as np

    nll, predicted, kept = 0.0, 0, []
    begin = time.perf_counter()
    for at in range(0, len(ids), model.context_length):
        window = ids[at : at + model.context_length]
        logits = model.all_logits(window)
        wide = logits[:-1].astype(np.float64)
        top = wide.max(axis=1, initial=-math.inf)
        log_sum = top + np.log(np.exp(wide - top[:, None]).sum(axis=1))
        nll += float((log_sum - wide[np.arange(len(window) - 1), window[1:]]).sum())
        predicted += len(window) - 1
        if out is not None:
            kept.append(logits)
        line.show(Progress("prefill", min(len(ids), at + len(window)), len(ids), None))
    seconds = time.perf_counter() - begin
    if out is not None:
        with out.open("wb") as file:
            np.save(file, np.concatenate(kept) if kept else np.zeros((0, model.vocabulary_size), np.float32))
    return {
        "tokens": len(ids),
        "predicted": predicted,
        "nll": nll / predicted if predicted else None,
        "perplexity": math.exp(nll / predicted) if predicted else None,
        "windows": -(-len(ids) // model.context_length),
        "logits": str(out) if out is not None else None,
        "seconds": round(seconds, 6),
        "tok_s": round(len(ids) / seconds, 3) if seconds > 0 else 0.0,
    }


def _ids(path: Path) -> list[int]:
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(str(path), "is not JSON") from error
    if not isinstance(ids, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise BadInput(str(path), "is not a list of token ids")
    return ids


def _file_text(name: str) -> str:
    return _read_text(None) if name == "-" else Path(name).read_text(encoding="utf-8", errors="replace")
