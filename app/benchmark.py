"""What `forkpoint bench` measures on an open model, in the fields and by the rules of the llama.cpp comparison.

pp512: prefill of 512 tokens, best of three; tg: decode of 32 tokens behind 16, best of three; reprefill_s and pp2048:
prefill of 2048 tokens; tg_at_2048: decode of 16 behind them. Saving is what a chat does: compress, write, fsync.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SHORT, LONG, TURN = 512, 2048, 200
QUOTED = 96
SAVES, STEPS = 9, 8  # saves of a turn, and tokens decoded before, while and after each
READ_BYTES = 1 << 28


def measure(model: Any, *, quick: bool) -> dict[str, Any]:
    """Run every measurement on an open model; figures in the units of their names, speeds in tok/s."""
    import numpy as np

    tokens = np.random.default_rng(0).integers(3, model.vocabulary_size, LONG + 2 * TURN).tolist()

    def prefill(n: int) -> tuple[Any, float]:
        session = model.new_session()
        begin = time.perf_counter()
        model.prefill(session, tokens[:n])
        return session, time.perf_counter() - begin

    result: dict[str, Any] = {"read_gb_s": read_gb_s(model.threads)}
    prefill(32)
    result["pp512"] = SHORT / min(prefill(SHORT)[1] for _ in range(3))
    session, _ = prefill(16)
    result["tg"] = max(_decode(model, session, tokens, 32) for _ in range(3))
    result["branches4_tok_s"] = max(_branches(model, session, tokens) for _ in range(2))
    result |= _speculation(model)
    if not quick:
        session, result["reprefill_s"] = prefill(LONG)
        result["pp2048"] = LONG / result["reprefill_s"]
        result["tg_at_2048"] = _decode(model, session, tokens, 16)
        session.truncate(LONG - 1)  # the logits of the place must be there to be saved
        model.prefill(session, tokens[LONG - 1 : LONG])
    result["fork_us"] = _median_us(session.fork)
    if not quick:
        result |= _saving(model, session, tokens)
    return result


def _decode(model: Any, session: Any, tokens: Sequence[int], n: int) -> float:
    begin = time.perf_counter()
    for token in tokens[-n:]:
        model.step([session], [token])
    return n / (time.perf_counter() - begin)


def _branches(model: Any, session: Any, tokens: list[int]) -> float:
    branches = [session.fork() for _ in range(4)]
    model.step(branches, tokens[:4])
    begin = time.perf_counter()
    for at in range(16):
        model.step(branches, tokens[at : at + 4])
    return 64 / (time.perf_counter() - begin)


class _Dictation:
    """The engine, but what is chosen is dictated: a reply of known words, whatever the model would say."""

    def __init__(self, words: Sequence[int], behind: int) -> None:
        from app.local_engine import LocalEngine

        self._engine, self._words, self._behind = LocalEngine(), words, behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def sample(self, logits: Any, tokens: Any, settings: Any, dice_key: bytes, position: int, *, model: Any) -> int:
        """Give the word whose turn it is; choosing is paid for all the same."""
        self._engine.sample(logits, tokens, settings, dice_key, position, model=model)
        return self._words[position - self._behind]


def _speculation(model: Any) -> dict[str, float]:
    """How much sooner a reply ends that quotes its prompt word for word, and one that repeats nothing, by guessing."""
    import numpy as np

    from app.generation import Decoding, Reply, Writing, generate
    from engine.sampler import SamplerSettings

    rng = np.random.default_rng(1)
    words = [t for t in rng.permutation(model.vocabulary_size).tolist() if not model.tokenizer.is_end_of_turn(t)]
    document, other = words[:QUOTED], words[QUOTED : 2 * QUOTED]
    prompt = model.new_session(bytes(16))
    model.prefill(prompt, [*document, *words[-4:]])

    def seconds(said: list[int], speculate: bool) -> float:
        engine: Any = _Dictation(said, prompt.position)
        decoding = Decoding.begin(engine, model, ())
        writing = Writing(engine, model, prompt.fork(), SamplerSettings(), Reply(), decoding, len(said))
        begin = time.perf_counter()
        generate(writing, speculate=speculate)
        return time.perf_counter() - begin

    rounds = 2 if seconds(other[:8], True) > 0.05 else 16  # a small model's reply is over before a clock is warm
    found = {}
    for name, said in (("spec_quote_ratio", document), ("spec_fresh_ratio", other)):
        plain = guessed = float("inf")
        for _ in range(rounds):
            plain, guessed = min(plain, seconds(said, False)), min(guessed, seconds(said, True))
        found[name] = plain / guessed
    return found


def _saving(model: Any, session: Any, tokens: list[int]) -> dict[str, Any]:
    """Save, load and restore through the store, in a library of its own on the disk of temporary files."""
    from app.local_engine import LocalEngine
    from app.savepoints import Reacher
    from snapshots import Chunk, Library

    with tempfile.TemporaryDirectory(prefix="forkpoint-bench-") as root:
        library = Library.open(Path(root) / "data", Path(root) / "cache")
        engine = LocalEngine()

        def save(state: Any = None) -> Any:
            state = state or model.capture(session, library.save_from(model.state_key, session.tokens))
            chunks = [Chunk(c.start, c.stop, c.arrays) for c in state.chunks if c.start < c.stop]
            return library.save_state(
                None, model.state_key, state.tokens, chunks, logits=state.logits, hidden=state.hidden
            )

        def restore() -> float:
            begin = time.perf_counter()
            reached = Reacher(engine, model, library).reach(list(session.tokens), None, b"", expected_digest=digest)
            seconds = time.perf_counter() - begin
            if reached.rung != "bundle" or not reached.bit_exact:
                raise RuntimeError(f"the restore was {reached.rung}, bit-exact: {reached.bit_exact}")
            return seconds

        result: dict[str, Any] = {}
        begin = time.perf_counter()
        result["state_bytes"] = save().bytes_written
        result["save_s"] = time.perf_counter() - begin
        result["state_tokens"] = session.position
        digest = session.logits_digest()
        begin = time.perf_counter()
        loaded = library.load_state(model.state_key, session.tokens)
        parts = [(c.start, c.stop, c.arrays) for c in loaded.chunks]
        model.restore(engine.state_from_parts(session.tokens, parts, loaded.logits, loaded.hidden, b""))
        result["load_state_s"] = time.perf_counter() - begin
        result["restore_s"] = min(restore() for _ in range(3))
        if _forget_pages(Path(root)):
            result["restore_cold_s"] = restore()
        model.prefill(session, tokens[LONG : LONG + TURN])
        state = model.capture(session, library.save_from(model.state_key, session.tokens))
        result |= _turns(model, session, state, save)
        library.close()
    return result


def _turns(model: Any, session: Any, state: Any, save: Callable[[Any], Any]) -> dict[str, Any]:
    """What saving a turn takes, and what decoding loses meanwhile: in turn, medians, and how far the samples lie apart.

    Every save is of another turn, because one that is on disk is not written again: other ids over the same bytes. A
    delay is compared with the CPU time of that very save, for beside decoding, which fills the memory's lanes and the
    caches, the same work takes a tenth to a fourth more.
    """
    wall, cpu, lost, own = [], [], [], []

    def decode(saver: threading.Thread | None = None) -> list[float]:
        """Seconds of some tokens, and of all until the saver is done."""
        steps: list[float] = []
        while len(steps) < STEPS or (saver is not None and saver.is_alive()):
            begin = time.perf_counter()
            model.step([session], [3 + len(steps) % 7])
            steps.append(time.perf_counter() - begin)
        session.truncate(position)
        return steps

    position = session.position
    turns = iter(range(2 * SAVES + 1))

    def another() -> Any:
        turn = next(turns)
        tokens = list(state.tokens)
        tokens[LONG:] = [3 + (turn + i * (turn + 1)) % (model.vocabulary_size - 3) for i in range(TURN)]
        return dataclasses.replace(state, tokens=tuple(tokens))

    save(another())
    for _ in range(SAVES):
        turn, begin, used = another(), time.perf_counter(), time.process_time()
        save(turn)
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - used)
        before = decode()
        saver = threading.Thread(target=save, args=(another(),))
        all_used, used = time.process_time(), _engine_cpu_s()
        saver.start()
        during = decode(saver)
        saver.join()
        own.append(time.process_time() - all_used - (_engine_cpu_s() - used) if TOLD_APART else cpu[-1])
        after = decode()
        lost.append(sum(during) - len(during) * statistics.median([*before, *after]))
    each = sorted(delay / seconds for delay, seconds in zip(lost, own, strict=True))
    return {
        "turn_save_s": statistics.median(wall),
        "turn_save_cpu_s": statistics.median(cpu),
        "save_delay_s": statistics.median(lost),
        "save_delay_cpu_s": statistics.median(own),
        "save_delay_ratio": max(0.0, statistics.median(each)),
        "save_delay_low": each[len(each) // 4],
        "save_delay_high": each[-1 - len(each) // 4],
        "save_delay_samples": len(each),
    }


TOLD_APART = hasattr(time, "pthread_getcpuclockid")  # macOS and Windows do not say what a thread used


def _engine_cpu_s() -> float:
    """CPU time of the threads that decode: this one, and the pool's."""
    from engine.pool import THREAD_NAME

    threads = [t for t in threading.enumerate() if t is threading.current_thread() or t.name.startswith(THREAD_NAME)]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(t.ident)) for t in threads if t.ident and TOLD_APART)


def _forget_pages(root: Path) -> bool:
    """Have the system forget what it holds of the files in memory; False where it cannot be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in root.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
    return True


def read_gb_s(threads: int) -> float:
    """Bytes a second that memory is read with, by adding it up; the best of 1 to `threads` threads, three times each.

    GB = 10^9. NumPy's sum of integers is an unrolled vector loop.
    """
    import numpy as np

    data = np.ones(READ_BYTES // 8, np.uint64)

    def once(count: int) -> float:
        parts = np.array_split(data, count)
        workers = [threading.Thread(target=np.add.reduce, args=(part,)) for part in parts]
        begin = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return READ_BYTES / (time.perf_counter() - begin) / 1e9

    return max(once(count) for count in sorted({1, threads}) for _ in range(3))


def _median_us(action: Callable[[], object], count: int = 200) -> float:
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6
