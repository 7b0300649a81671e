"""Weights that are no numbers, nothing, or far too large: never a hang or an exception in a kernel (NUMERICS rule 7).

A kernel that raised would leave the other thread at a barrier for ever, so each file is tried in a process of its own
with a deadline.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
BAD_TOKEN = 7
TRY = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
from conformance import make_models
from engine.errors import NonFiniteLogits
from engine.model import Model

kind, trouble, kv_type, folder = sys.argv[2:6]
bad = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "huge": 3e38, "tiny": 1e-42, "zero": 0.0}[trouble.split()[0]]

def change(name, values):
    where = trouble.split()[1]
    values = values.copy()
    if where == "row" and name == "token_embd.weight":
        values[7] = bad
    elif where == "spot" and name == "blk.1.ffn_down.weight":
        values[3, 5] = bad
    elif where == "key" and name == "blk.0.attn_k.weight":
        values[0, 5] = bad
    elif where == "value" and name == "blk.1.attn_v.weight":
        values[0, 5] = bad
    elif where == "all" and "norm" not in name:
        values[:] = bad
    elif where == "norm" and name == "blk.0.attn_norm.weight":
        values[:] = bad
    return values

path = make_models.write(Path(folder) / "m.gguf", make_models.BITS[kind], change)
model = Model.open(path, kv_type=kv_type, threads=2)
out = {"errors": 0, "finite": 0, "positions_kept": True, "neighbour": True, "after": None}
good = [1, 20, 30, 40]

def attempt(session, feed):
    before = session.position
    try:
        feed()
    except NonFiniteLogits as e:
        out["errors"] += 1
        out["positions_kept"] &= session.position == before
    else:
        out["finite"] += int(np.isfinite(session.logits).all())
        out["positions_kept"] &= session.position > before

one = model.new_session()
attempt(one, lambda: model.prefill(one, [1, 5, 7, 9] * 20))
two, three = model.new_session(), model.new_session()
attempt(two, lambda: model.prefill(two, good))
if two.position:
    digest = two.logits_digest()
    model.prefill(three, good)
    out["neighbour"] = three.logits_digest() == digest
    attempt(three, lambda: model.step([three, two], [7, 50]))
    if two.position == len(good):
        model.step([two], [50])
    four = model.new_session()
    model.prefill(four, [*good, 50])
    out["after"] = four.logits_digest() == two.logits_digest()
model.close()
print(json.dumps(out))
"""
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0")


def attempt(tmp_path, kind, trouble, kv_type):
    """The report of one process; a hang or a crash fails."""
    command = [sys.executable, "-W", "ignore", "-c", TRY, str(TESTS), kind, trouble, kv_type, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_embedding_spoils_only_its_own_sequence(tmp_path, kind):
    """Token 7's embedding is NaN: every step with it is a typed error that saves nothing; the rest goes on unharmed."""
    report = attempt(tmp_path, kind, "nan row", "f16" if kind in ("F32", "Q4_0") else "q8_0")
    assert report["errors"] == 2
    assert report["positions_kept"]
    assert report["neighbour"]
    assert report["after"] is True


@pytest.mark.parametrize(
    ("kind", "trouble", "kv_type"),
    [
        ("F32", "nan spot", "f16"),
        ("F32", "inf all", "q8_0"),
        ("BF16", "-inf spot", "f16"),
        ("F16", "inf all", "f16"),
        ("Q8_0", "nan norm", "q8_0"),
        ("Q4_0", "inf norm", "f16"),
        ("F32", "nan key", "q8_0"),
        ("F16", "nan value", "q8_0"),
        ("BF16", "inf value", "q8_0"),
    ],
)
def test_weights_that_are_no_numbers_give_a_typed_error(tmp_path, kind, trouble, kv_type):
    report = attempt(tmp_path, kind, trouble, kv_type)
    assert report["errors"] >= 1
    assert report["finite"] == 0
    assert report["positions_kept"]


@pytest.mark.parametrize(
    ("kind", "trouble", "kv_type"),
    [
        ("F32", "huge spot", "f16"),
        ("F32", "huge norm", "q8_0"),
        ("BF16", "huge all", "f16"),
        ("Q8_0", "huge norm", "f16"),
        ("F32", "tiny all", "f16"),
    ],
)
def test_extreme_weights_end_in_numbers_or_in_a_typed_error(tmp_path, kind, trouble, kv_type):
    report = attempt(tmp_path, kind, trouble, kv_type)
    assert report["errors"] + report["finite"] >= 2
    assert report["positions_kept"]


@pytest.mark.parametrize(("kind", "kv_type"), [("F32", "f16"), ("Q8_0", "q8_0"), ("Q4_0", "q8_0")])
def test_zero_weights_give_numbers(tmp_path, kind, kv_type):
    report = attempt(tmp_path, kind, "zero all", kv_type)
    assert report["errors"] == 0
    assert report["finite"] == 3
    assert report["after"] is True
