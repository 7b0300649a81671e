"""Feed models whose weights are no numbers, nothing or far too large; print what came of it, one JSON line a case.

    python tests/conformance/trouble.py FOLDER

Run as a process of its own by tests/properties/test_engine_trouble.py: a kernel that raised would leave the other
thread at a barrier for ever, and only a process can be given a deadline.
"""

import json
import sys
from pathlib import Path

import numpy as np

if str(Path(__file__).resolve().parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance import make_models

BAD_TOKEN = 7
VALUES = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "huge": 3e38, "tiny": 1e-42, "zero": 0.0}
PLACES = {
    "row": ("token_embd.weight", BAD_TOKEN),
    "spot": ("blk.1.ffn_down.weight", (3, 5)),
    "key": ("blk.0.attn_k.weight", (0, 5)),
    "value": ("blk.1.attn_v.weight", (0, 5)),
    "norm": ("blk.0.attn_norm.weight", slice(None)),
}
# (tensor type, value, place, KV type)
BAD_TOKEN_CASES = [(kind, "nan", "row", kv) for kind in make_models.TYPES for kv in ("f16", "q8_0")]
NO_NUMBER_CASES = [
    ("F32", "nan", "spot", "f16"),
    ("F32", "inf", "all", "q8_0"),
    ("BF16", "-inf", "spot", "f16"),
    ("F16", "inf", "all", "f16"),
    ("Q8_0", "nan", "norm", "q8_0"),
    ("Q4_0", "inf", "norm", "f16"),
    ("F32", "nan", "key", "q8_0"),
    ("F32", "nan", "key", "f16"),
    ("F16", "nan", "value", "q8_0"),
    ("BF16", "inf", "value", "q8_0"),
]
EXTREME_CASES = [
    ("F32", "huge", "spot", "f16"),
    ("F32", "huge", "norm", "q8_0"),
    ("F32", "huge", "key", "q8_0"),
    ("BF16", "huge", "all", "f16"),
    ("Q8_0", "huge", "norm", "f16"),
    ("F32", "tiny", "all", "f16"),
]
ZERO_CASES = [("F32", "zero", "all", "f16"), ("Q8_0", "zero", "all", "q8_0"), ("Q4_0", "zero", "all", "q8_0")]
CASES = [*BAD_TOKEN_CASES, *NO_NUMBER_CASES, *EXTREME_CASES, *ZERO_CASES]


def spoiler(value, place):
    """A function (name, values) -> values for make_models.write."""

    def change(name, values):
        tensor, where = PLACES.get(place, (name if "norm" not in name else "", slice(None)))
        if name == tensor:
            values = values.copy()
            values[where] = VALUES[value]
        return values

    return change


class Report:
    """How often feeding failed with the typed error or gave numbers, and whether positions tell the truth."""

    def __init__(self):
        self.errors, self.finite, self.positions_kept = 0, 0, True

    def feed(self, call, *sessions):
        """Call; after a NonFiniteLogits no session may have moved, else all must have numbers."""
        from engine.errors import NonFiniteLogits

        before = [s.position for s in sessions]
        try:
            call()
        except NonFiniteLogits:
            self.errors += 1
            self.positions_kept &= before == [s.position for s in sessions]
            return False
        self.finite += int(all(np.isfinite(s.logits).all() for s in sessions))
        self.positions_kept &= all(s.position > n for s, n in zip(sessions, before, strict=True))
        return True


def attempt(folder, kind, value, place, kv_type):
    """One case: a prefill with the bad token; then, without it, two equal sessions, one of which is spoilt alone."""
    from engine.model import Model

    path = make_models.write(Path(folder) / "trouble.gguf", make_models.BITS[kind], spoiler(value, place))
    model, report, equal = Model.open(path, kv_type=kv_type, threads=2), Report(), True
    try:
        one, two, three, four = (model.new_session() for _ in range(4))
        report.feed(lambda: model.prefill(one, [1, 5, BAD_TOKEN, 9] * 20), one)
        if report.feed(lambda: model.prefill(two, [1, 20, 30, 40]), two):
            model.prefill(three, [1, 20, 30, 40])
            equal &= three.logits_digest() == two.logits_digest()
            report.feed(lambda: model.step([three, two], [BAD_TOKEN, 50]), three, two)
            going = two.position == 5 or report.feed(lambda: model.step([two], [50]), two)
            if going and report.feed(lambda: model.prefill(four, [1, 20, 30, 40, 50]), four):
                equal &= four.logits_digest() == two.logits_digest()
    finally:
        model.close()
    return {**vars(report), "equal": equal, "last": four.position}


if __name__ == "__main__":
    for case in CASES:
        print(json.dumps([case, attempt(sys.argv[1], *case)]), flush=True)
