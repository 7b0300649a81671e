"""`forkpoint bench`: speed and sizes on one model file, as a table with bars, as JSON, or beside another run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from app.benchmark import LONG, TURN, measure
from app.cli import OF_TOOLS, json_option, model_options
from app.errors import BadInput
from app.sentences import one_line
from app.terminal import ProgressLine, print_json, print_table, size

CONTEXT = 4096
_BAR = 24

# field: (unit, whether more is better (None: neither), meaning)
_FIELDS: dict[str, tuple[str, bool | None, str]] = {
    "pp512": ("tok/s", True, "prefill of 512 tokens"),
    "pp2048": ("tok/s", True, "prefill of 2048 tokens"),
    "tg": ("tok/s", True, "decode"),
    "tg_at_2048": ("tok/s", True, "decode behind 2048 tokens"),
    "branches4_tok_s": ("tok/s", True, "4 branches in one batch, together"),
    "spec_quote_ratio": ("times", True, "guessing ahead in a reply that quotes its prompt"),
    "spec_fresh_ratio": ("times", True, "guessing ahead in a reply that repeats nothing"),
    "read_gb_s": ("GB/s", True, "reading memory and doing nothing else"),
    "load_s": ("s", False, "opening the model, imports included"),
    "ready_s": ("s", False, "from the start of the process to the first token that could be asked for"),
    "reprefill_s": ("s", False, "what a restore of 2048 tokens saves"),
    "save_s": ("s", False, "the whole state to disk, compressed and synced"),
    "load_state_s": ("s", False, "the whole state from disk into a session"),
    "restore_s": ("s", False, "a savepoint of 2048 tokens, digest compared"),
    "restore_cold_s": ("s", False, "the same, nothing of its files in memory"),
    "turn_save_s": ("s", False, "200 new tokens behind 2048, incrementally (median)"),
    "turn_save_cpu_s": ("s", False, "CPU time of that (median)"),
    "save_delay_s": ("s", False, "what decoding loses while such a save runs beside it (median)"),
    "save_delay_cpu_s": ("s", False, "CPU time of those saves (median)"),
    "save_delay_ratio": ("times", False, "that loss in CPU time of the same save (median)"),
    "save_delay_low": ("times", None, "a quarter of these saves cost less"),
    "save_delay_high": ("times", None, "a quarter of these saves cost more"),
    "save_delay_samples": ("", None, "saves that this was measured with"),
    "fork_us": ("µs", False, "a fork in memory"),
    "state_bytes": ("", False, "the state's files"),
    "peak_rss_bytes": ("", False, "most memory in use"),
    "state_tokens": ("", None, "tokens in that state"),
    "threads": ("", None, "threads"),
}


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@model_options(OF_TOOLS)
@click.option("--quick", is_flag=True, help="Skip the part behind 2048 tokens.")
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="OTHER.json",
    help="Print ratios to another run: of `bench --json` or of the llama.cpp script. Above 1 is better.",
)
@json_option
def bench_command(
    model: Path | None,
    threads: int | None,
    context: int | None,
    cache_type: Any,
    quick: bool,
    compare: Path | None,
    as_json: bool,
) -> None:
    """Measure prefill, decode, saving and restoring on one model file."""
    from app.cli_model import chosen_model
    from app.local_engine import LocalEngine

    other = _other_run(compare) if compare is not None else None
    line = ProgressLine()
    begin = time.perf_counter()
    opened: Any = LocalEngine().open_model(
        chosen_model(model),
        context=context or CONTEXT,
        kv_type=cache_type or "f16",
        threads=threads,
        progress=line.loading,
    )
    result: dict[str, Any] = {
        "peer": "forkpoint",
        "version": _version(),
        "model": opened.path.name,
        "kv_type": opened.kv_type,
        "threads": opened.threads,
        "load_s": time.perf_counter() - begin,
        "ready_s": _since_process_start(),
    }
    line.clear()
    try:
        result |= measure(opened, quick=quick or opened.context_length < LONG + 2 * TURN + 256)
    finally:
        opened.close()
    result["peak_rss_bytes"] = _peak_rss_bytes()
    result = {k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}
    if other is not None:
        result["ratios"] = ratios(result, other)
    if as_json:
        print_json(result)
    elif other is None:
        _print_heading(result)
        print_table(("WHAT", "THIS RUN", "", "BARS: BESIDE THE LARGEST OF THE SAME UNIT"), _rows(result))
    else:
        _print_beside(result, other)


def _rows(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, value, bar and meaning; a bar's length is the share of the largest figure of the same unit."""
    shown = [(name, result[name]) for name in _FIELDS if isinstance(result.get(name), int | float)]
    most: dict[str, float] = {}
    for name, value in shown:
        unit = _FIELDS[name][0]
        most[unit] = max(most.get(unit, 0.0), value)
    rows = []
    for name, value in shown:
        unit, _, meaning = _FIELDS[name]
        length = round(_BAR * value / most[unit]) if unit and most[unit] > 0 else 0
        rows.append((name, _shown(name, value), "█" * length, meaning))
    return rows


def _shown(name: str, value: float) -> str:
    unit = _FIELDS[name][0]
    if name.endswith("_bytes"):
        return size(int(value))
    return f"{value:.0f} {unit}".rstrip() if value >= 1000 else f"{value:.4g} {unit}".rstrip()


def _other_run(path: Path) -> dict[str, float]:
    """The figures of another run: one JSON object, or a list of them, of which each field's best counts.

    Raises BadInput for a file that is not that, OSError.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise BadInput(str(path), "is not JSON") from None
    runs = values if isinstance(values, list) else [values]
    best: dict[str, float] = {}
    for run in runs:
        if not isinstance(run, dict):
            raise BadInput(str(path), "is not what `bench --json` prints")
        for name, value in run.items():
            more = _FIELDS.get(name, ("", None, ""))[1]
            if more is not None and isinstance(value, int | float) and not isinstance(value, bool):
                best[name] = value if name not in best else (max if more else min)(best[name], value)
    if not best:
        raise BadInput(str(path), "holds none of the figures that `bench --json` prints")
    return best


def ratios(mine: Mapping[str, Any], other: Mapping[str, float]) -> dict[str, float]:
    """How much better each figure is that both have; above 1 is better."""
    found = {}
    for name, (_, more, _) in _FIELDS.items():
        a, b = mine.get(name), other.get(name)
        if more is not None and isinstance(a, int | float) and b and a:
            found[name] = round(a / b if more else b / a, 3)
    return found


def _print_heading(result: Mapping[str, Any]) -> None:
    print(f"{one_line(result['model'])} · {result['threads']} threads · keys and values {result['kv_type']}")


def _print_beside(result: Mapping[str, Any], other: Mapping[str, float]) -> None:
    better = ratios(result, other)
    rows = []
    for name, value, _, meaning in _rows(result):
        theirs = _shown(name, other[name]) if name in other else ""
        ratio = f"{better[name]:.2f}" if name in better else ""
        rows.append((name, value, theirs, ratio, "█" * min(_BAR, round(8 * better.get(name, 0.0))), meaning))
    _print_heading(result)
    print_table(("WHAT", "THIS RUN", "OTHER", "RATIO", "████████ = 1", "ABOVE 1 THIS RUN IS BETTER"), rows)


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
