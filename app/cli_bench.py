"""`forkpoint bench`: speed and sizes on one model file, in the fields and by the rules of the llama.cpp comparison.

pp512: prefill of 512 tokens, best of three; tg: decode of 32 tokens behind 16, best of three; reprefill_s and pp2048:
prefill of 2048 tokens; tg_at_2048: decode of 16 behind them. Saving is what a chat does: compress, write, fsync.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from app.cli import OF_TOOLS, json_option, model_options
from app.events import Progress
from app.terminal import ProgressLine, print_json, print_table, size

CONTEXT = 4096
SHORT, LONG, TURN = 512, 2048, 200
READ_BYTES = 1 << 28


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@model_options(OF_TOOLS)
@click.option("--quick", is_flag=True, help="Skip the part behind 2048 tokens.")
@json_option
def bench_command(
    model: Path | None, threads: int | None, context: int | None, cache_type: Any, quick: bool, as_json: bool
) -> None:
    """Measure prefill, decode, saving and restoring on one model file."""
    from app.cli_model import chosen_model
    from app.local_engine import LocalEngine

    line = ProgressLine()
    begin = time.perf_counter()
    opened: Any = LocalEngine().open_model(
        chosen_model(model),
        context=context or CONTEXT,
        kv_type=cache_type or "f16",
        threads=threads,
        progress=lambda phase, done, total: line.show(Progress(phase, done, total, None)),
    )
    result: dict[str, Any] = {
        "peer": "forkpoint",
        "version": _version(),
        "threads": opened.threads,
        "load_s": time.perf_counter() - begin,
        "ready_s": _since_process_start(),
    }
    line.clear()
    try:
        result |= measure(opened, quick=quick or opened.context_length < LONG + TURN + 64)
    finally:
        opened.close()
    result["peak_rss_bytes"] = _peak_rss_bytes()
    result = {k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}
    if as_json:
        print_json(result)
    else:
        rows = [(name, _shown(name, value), _MEANING.get(name, "")) for name, value in result.items()]
        print_table(("FIELD", "VALUE", "MEANING"), rows)


_MEANING = {
    "load_s": "opening the model, imports included",
    "ready_s": "from the start of the process to the first token that could be asked for",
    "pp512": "tok/s, prefill of 512 tokens",
    "tg": "tok/s, decode at short context",
    "pp2048": "tok/s, prefill of 2048 tokens",
    "reprefill_s": "what a restore of 2048 tokens saves",
    "tg_at_2048": "tok/s, decode behind 2048 tokens",
    "save_s": "the whole state to disk, compressed and synced",
    "load_state_s": "the whole state from disk into a session",
    "state_bytes": "the state's files",
    "state_tokens": "tokens in that state",
    "turn_save_s": "200 new tokens behind 2048, incrementally",
    "restore_s": "a savepoint of 2248 tokens, digest compared",
    "fork_us": "a fork in memory",
    "branches4_tok_s": "4 branches in one batch, together",
    "read_gb_s": "reading memory and doing nothing else",
    "peak_rss_bytes": "most memory in use",
}


def _shown(name: str, value: Any) -> str:
    return size(value) if name.endswith("_bytes") else f"{value:.4g}" if isinstance(value, float) else str(value)


def measure(model: Any, *, quick: bool) -> dict[str, Any]:
    """Run every measurement on an open model; figures in the units of their names, speeds in tok/s."""
    import numpy as np

    tokens = np.random.default_rng(0).integers(3, model.vocabulary_size, 2200).tolist()

    def prefill(n: int) -> tuple[Any, float]:
        session = model.new_session()
        begin = time.perf_counter()
        model.prefill(session, tokens[:n])
        return session, time.perf_counter() - begin

    def decode(session: Any, n: int) -> float:
        begin = time.perf_counter()
        for token in tokens[-n:]:
            model.step([session], [token])
        return n / (time.perf_counter() - begin)

    result: dict[str, Any] = {"read_gb_s": read_gb_s(model.threads)}
    prefill(32)
    result["pp512"] = SHORT / min(prefill(SHORT)[1] for _ in range(3))
    session, _ = prefill(16)
    result["tg"] = max(decode(session, 32) for _ in range(3))
    result["fork_us"] = _median_us(session.fork)
    result["branches4_tok_s"] = _branches(model, session, tokens)
    if not quick:
        session, result["reprefill_s"] = prefill(LONG)
        result["pp2048"] = LONG / result["reprefill_s"]
        result["tg_at_2048"] = decode(session, 16)
        result |= _saving(model, session, tokens)
    return result


def _branches(model: Any, session: Any, tokens: list[int]) -> float:
    branches = [session.fork() for _ in range(4)]
    model.step(branches, tokens[:4])
    begin = time.perf_counter()
    for at in range(16):
        model.step(branches, tokens[at : at + 4])
    return 64 / (time.perf_counter() - begin)


def _saving(model: Any, session: Any, tokens: list[int]) -> dict[str, Any]:
    """Save, load and restore through the store, in a library of its own on the disk of temporary files."""
    from app.local_engine import LocalEngine
    from app.savepoints import Reacher
    from snapshots import Chunk, Library

    with tempfile.TemporaryDirectory(prefix="forkpoint-bench-") as root:
        library = Library.open(Path(root) / "data", Path(root) / "cache")

        def save() -> Any:
            state = model.capture(session, library.save_from(model.state_key, session.tokens))
            chunks = [Chunk(c.start, c.stop, c.arrays) for c in state.chunks if c.start < c.stop]
            return library.save_state(
                None, model.state_key, state.tokens, chunks, logits=state.logits, hidden=state.hidden
            )

        result: dict[str, Any] = {}
        begin = time.perf_counter()
        result["state_bytes"] = save().bytes_written
        result["save_s"] = time.perf_counter() - begin
        result["state_tokens"] = session.position
        begin = time.perf_counter()
        loaded = library.load_state(model.state_key, session.tokens)
        parts = [(c.start, c.stop, c.arrays) for c in loaded.chunks]
        engine = LocalEngine()
        model.restore(engine.state_from_parts(session.tokens, parts, loaded.logits, loaded.hidden, b""))
        result["load_state_s"] = time.perf_counter() - begin
        model.prefill(session, tokens[:TURN])
        begin = time.perf_counter()
        save()
        result["turn_save_s"] = time.perf_counter() - begin
        digest = session.logits_digest()
        begin = time.perf_counter()
        reached = Reacher(engine, model, library).reach(session.tokens, None, b"", expected_digest=digest)
        result["restore_s"] = time.perf_counter() - begin
        if reached.rung != "bundle" or not reached.bit_exact:
            raise RuntimeError(f"the restore was {reached.rung}, bit-exact: {reached.bit_exact}")
        library.close()
    return result


def read_gb_s(threads: int) -> float:
    """Bytes a second that `threads` threads read from memory by adding them up; best of three, GB = 10^9."""
    import numpy as np

    data = np.ones(READ_BYTES // 8, np.uint64)
    parts = np.array_split(data, threads)

    def once() -> float:
        workers = [threading.Thread(target=np.add.reduce, args=(part,)) for part in parts]
        begin = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return READ_BYTES / (time.perf_counter() - begin) / 1e9

    return max(once() for _ in range(3))


def _median_us(action: Callable[[], object], count: int = 200) -> float:
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def _version() -> str:
    from importlib.metadata import version

    return version("forkpoint")


def _since_process_start() -> float | None:
    """Seconds since this process began, where the system tells (Linux)."""
    import os

    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _peak_rss_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
