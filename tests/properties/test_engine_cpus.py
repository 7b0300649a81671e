"""The same bits on other CPUs and behind other libraries' floating-point modes (NUMERICS rule 6).

tests/conformance/test_pins.py holds haswell and generic to the pinned bits; here the walks run on them.
"""

import ctypes
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conformance import make_models

X86 = platform.machine().lower() in ("x86_64", "amd64")
FLUSH_TO_ZERO, DENORMALS_ARE_ZERO = 0x8000, 0x0040


@pytest.mark.skipif(not X86, reason="haswell and generic name x86-64 processors")
@pytest.mark.parametrize("cpu", ["haswell", "generic"])
def test_the_walks_hold_on_other_cpus(cpu):
    env = {**os.environ, "NUMBA_CPU_NAME": cpu, "FORKPOINT_TEST_WALKS": "6"}
    env.pop("NUMBA_CPU_FEATURES", None)
    bits = Path(__file__).with_name("test_engine_bits.py")
    chosen = "(any_road or one_prefill) and mixed"
    command = [sys.executable, "-m", "pytest", str(bits), "-k", chosen, "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout


@pytest.mark.skipif(not (X86 and sys.platform == "linux"), reason="knows where Linux keeps x86-64's MXCSR")
def test_flush_to_zero_in_the_calling_thread_changes_nothing(tmp_path):
    """Some libraries switch denormals off for the whole thread; threads that it starts inherit that."""
    from engine.model import Model

    def tiny(name, values):
        return values * np.float32(2.0**-120) if name == "output.weight" else values

    path = make_models.write(tmp_path / "tiny.gguf", make_models.BITS["F32"], tiny)

    def logits():
        model = Model.open(path, threads=2)
        try:
            session = model.new_session()
            model.prefill(session, [1, 20, 30, 40], batch_size=3)
            return session.logits.view(np.uint32).copy()
        finally:
            model.close()

    expected = logits()
    magnitude = expected & 0x7FFFFFFF
    assert ((magnitude > 0) & (magnitude < 0x00800000)).any(), "no denormal among the logits: the test shows nothing"
    libm = ctypes.CDLL("libm.so.6")
    saved, changed = ctypes.create_string_buffer(32), ctypes.create_string_buffer(32)
    libm.fegetenv(saved)
    libm.fegetenv(changed)
    mode = struct.unpack_from("<I", changed, 28)[0] | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO
    struct.pack_into("<I", changed, 28, mode)
    libm.fesetenv(changed)
    try:
        assert np.float32(1e-40) * np.float32(1.0) == 0.0, "flush-to-zero is not on"
        found = logits()
    finally:
        libm.fesetenv(saved)
    assert np.array_equal(found, expected)
