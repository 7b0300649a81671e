"""Compiled once: no shape of a model makes another specialization, and a second process needs no compiler."""

import json
import os
import subprocess
import sys

PROGRAM = """
import json, sys
from pathlib import Path
from engine.model import Model

digests, done = [], []
for path in sys.argv[1:]:
    for kv_type in ("f16", "q8_0"):
        told = lambda phase, *counts: done.append(counts) if phase == "compile" else None
        model = Model.open(Path(path), kv_type=kv_type, threads=2, progress=told)
        session = model.new_session()
        model.prefill(session, [1, 2, 3, 4, 5])
        model.step([session], [6])
        digests.append(session.logits_digest())
        model.close()
found = {}
for name, module in list(sys.modules.items()):
    if name.startswith("engine.kernels."):
        for value in vars(module).values():
            if hasattr(value, "signatures") and hasattr(value, "py_func"):
                found[f"{value.py_func.__module__}.{value.py_func.__name__}"] = len(value.signatures)
print(json.dumps({"digests": digests, "specializations": found, "told": done, "numba": "numba" in sys.modules}))
"""


def run(paths, cache):
    """What a process that used all the models says: logits, specializations a kernel, progress, Numba imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, paths)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_all_types_and_shapes_share_few_specializations_and_a_second_start_needs_no_compiler(model_file, tmp_path):
    names = ("F32", "Q8_0", "mixed", "f32-head8", "f32-head64", "f32-head128", "f32-group8", "q4_0")
    paths = [model_file(name) for name in names]
    cold = run(paths, tmp_path)
    assert cold["numba"]
    assert cold["specializations"]
    counts = cold["specializations"].values()
    assert max(counts) <= 10, cold["specializations"]
    assert sum(counts) <= 1.6 * len(counts), cold["specializations"]
    assert cold["told"]
    for i, (done, total) in enumerate(cold["told"][:-1]):
        following = cold["told"][i + 1]
        assert following == [done + 1, total] or (done == total and following[0] == 0), "progress goes step by step"
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) <= 16, kept
    assert sum(path.stat().st_size for path in kept) < 1 << 20
    warm = run(paths, tmp_path)
    assert not warm["numba"]
    assert warm["told"] == []
    assert warm["digests"] == cold["digests"], "the kept code gives other bits"
