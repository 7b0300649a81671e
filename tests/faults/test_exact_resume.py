"""Row 19: bit-exact resume. Going on from n tokens gives the same 256 tokens and the same last logits, bit for bit, in
a fresh process, after a heal, and after a restore that failed, greedy and sampled.

n: nothing, one token, around one block and around two, 256 below a full context (so that the last token fills it),
and a full context, behind which nothing fits and the logits alone are compared.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import Cancelled
from engine.kv import BLOCK
from tests.faults.kit import state_files
from tests.faults.report import report
from tests.faults.resuming import CONTEXT, KINDS, LENGTHS, MORE, End, Resuming

CASES = [(n, kind) for n in LENGTHS for kind in KINDS]
ROOT = Path(__file__).resolve().parents[2]


class Row:
    """One model with one kind of KV, and a library that states of all cases were saved to."""

    def __init__(self, model: Path, kv_type: str, folder: Path, seed: int = 1) -> None:
        self.model, self.kv_type, self.folder = model, kv_type, folder
        self.here = Resuming(model, kv_type, folder, seed)
        self.digests, self.whole = {}, {}
        for n, kind in CASES:
            session = self.here.start(n, kind)
            if n:
                self.digests[n, kind] = session.logits_digest()
                self.here.save(session)
            self.whole[n, kind] = self.here.go_on(session, kind)

    def in_a_fresh_process(self, *, heal: bool = False) -> dict:
        """Another process restores and goes on: case -> (rung, whether the digest agreed, its end)."""
        cases = [[n, kind, self.digests.get((n, kind), "")] for n, kind in CASES]
        file = self.folder / "cases.json"
        file.write_text(json.dumps({"seed": self.here.seed, "heal": heal, "cases": cases}))
        command = [sys.executable, str(ROOT / "tests/faults/resuming.py")]
        command += [str(self.model), self.kv_type, str(self.folder), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ}, timeout=600)
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return {
            case: (rung, exact, End(tuple(tokens), digest))
            for case, (rung, exact, tokens, digest) in zip(CASES, found, strict=True)
        }

    def damage(self, dice: random.Random) -> None:
        """Remove, cut short or change a bit of each file, as the dice say; some stay as they are."""
        for path in state_files(self.folder):
            data = bytearray(path.read_bytes())
            match dice.randrange(4):
                case 0:
                    path.unlink()
                case 1:
                    path.write_bytes(data[: dice.randrange(len(data))])
                case 2:
                    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
                    path.write_bytes(data)

    def check(self, found: dict, what: str, rungs: set) -> int:
        for case, (rung, exact, end) in found.items():
            assert len(end.tokens) == min(MORE, CONTEXT - max(case[0], 1)), (what, case)
            assert end == self.whole[case], (what, case)
            if case[0]:
                assert exact is True, (what, case)
                assert rung in rungs, (what, case, rung)
        return len(found)


def run(model, kv_type, folder, seed=1) -> dict:
    """All of it; gives counts."""
    row = Row(model, kv_type, folder, seed)
    here, equal = row.here, 0
    try:
        equal += row.check(row.in_a_fresh_process(), "fresh process", {"bundle"})
        row.damage(random.Random(seed))
        healed = row.in_a_fresh_process(heal=True)
        equal += row.check(healed, "while healing", {"bundle", "partial", "recomputed"})
        equal += row.check(row.in_a_fresh_process(), "after the heal", {"bundle"})
        for n, kind in CASES:
            # Somebody is in the middle of it when a restore of something else fails.
            live = here.restore(n, kind).session
            before = here.go_on(live, kind, 100)
            other = [*here.tokens(n, kind)[: BLOCK // 2], *range(3, 3 + BLOCK)]
            with pytest.raises(Cancelled):
                here.reacher.reach(other, live, here.dice(n), cancel=lambda: True)
            after = here.go_on(live, kind, MORE - len(before.tokens))
            assert End(before.tokens + after.tokens, after.digest) == row.whole[n, kind], ("live", n, kind)
            # And the same restore, tried again.
            again = here.go_on(here.restore(n, kind, live=live).session, kind)
            assert again == row.whole[n, kind], ("failed restore", n, kind)
            equal += 2
    finally:
        here.close()
    rungs = [rung for rung, *_ in healed.values()]
    return {"cases": len(CASES), "equal": equal, "of": 5 * len(CASES), "healed": len(rungs) - rungs.count("bundle")}


@pytest.mark.parametrize(("model", "kv_type"), [("stories260K", "f16"), ("gemma3", "f16"), ("gemma3", "q8_0")])
def test_going_on_from_a_saved_state_is_exact(model, kv_type, model_file, tmp_path, request):
    path = request.getfixturevalue("stories_path") if model == "stories260K" else model_file(model)
    figures = run(path, kv_type, tmp_path)
    report(19, model=model, kv=kv_type, **figures)
    assert figures["healed"] > 0


# 8-bit keys and values want heads of whole 32 dims.
FAMILIES = [(model, "f16") for model in ("llama3", "smollm3", "qwen3", "gemma3", "granite", "stories260K")]
FAMILIES += [("qwen3", "q8_0"), ("gemma3", "q8_0")]


@pytest.mark.soak
@pytest.mark.parametrize(("model", "kv_type"), FAMILIES)
def test_going_on_is_exact_for_every_family(model, kv_type, model_file, tmp_path, request):
    path = request.getfixturevalue("stories_path") if model == "stories260K" else model_file(model)
    equal = total = 0
    for seed in range(2, 6):
        figures = run(path, kv_type, tmp_path / str(seed), seed)
        equal, total = equal + figures["equal"], total + figures["of"]
    report(19, model=model, kv=kv_type, equal=equal, of=total)
