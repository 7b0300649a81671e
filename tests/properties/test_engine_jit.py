"""Compilation is paid once: no shape of a model makes another specialization, and a second process compiles nothing."""

import json
import subprocess
import sys

PROGRAM = """
import importlib, json, pkgutil, sys
from pathlib import Path
import engine.kernels
from engine.model import Model
from numba.core.dispatcher import Dispatcher

for path in sys.argv[1:]:
    for kv_type in ("f16", "q8_0"):
        model = Model.open(Path(path), kv_type=kv_type, threads=2)
        session = model.new_session()
        model.prefill(session, [1, 2, 3, 4, 5])
        model.step([session], [6])
        model.close()
found = {}
for info in pkgutil.iter_modules(engine.kernels.__path__):
    module = importlib.import_module("engine.kernels." + info.name)
    for name, value in vars(module).items():
        if isinstance(value, Dispatcher):
            key = f"{value.py_func.__module__}.{value.py_func.__name__}"
            found[key] = [len(value.signatures), sum(value.stats.cache_misses.values())]
print(json.dumps(found))
"""


def run(paths):
    """{"module.kernel": [specializations, of these compiled just now]} after one process used all the models."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, paths)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_all_types_and_shapes_share_few_specializations_and_a_second_start_compiles_none(model_file):
    names = ("F32", "Q8_0", "mixed", "f32-head8", "f32-head64", "f32-head128", "f32-group8", "q4_0")
    run([model_file(name) for name in names])
    second = run([model_file(name) for name in reversed(names)])
    assert second
    assert all(specializations <= 2 for specializations, _ in second.values()), second
    assert sum(compiled for _, compiled in second.values()) == 0, second
