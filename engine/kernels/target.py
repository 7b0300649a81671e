"""What the machine code that Numba makes may use. Kernels choose their instructions by this, never by the host alone.

`NUMBA_CPU_NAME=haswell` or `=generic` therefore really takes other code. The answer comes from LLVM itself: a few
lines of IR are compiled for the target and their assembly is searched for the instruction in question. Imports no
Numba: which CPU is compiled for is decided here, and Numba is told (kernels/options.py).
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

# LLVM has no query "does this CPU have VNNI", and asking for an instruction that is missing aborts the process.
_VNNI_CPUS = frozenset(
    [
        "cascadelake",
        "cooperlake",
        "icelake-client",
        "icelake-server",
        "tigerlake",
        "rocketlake",
        "sapphirerapids",
        "emeraldrapids",
        "graniterapids",
        "graniterapids-d",
        "diamondrapids",
        "znver4",
        "znver5",
        "x86-64-v4-vnni",
    ]
)

_PROBE = """
define <8 x float> @fma8(<8 x float> %a, <8 x float> %b, <8 x float> %c) {
  %r = call <8 x float> @llvm.fma.v8f32(<8 x float> %a, <8 x float> %b, <8 x float> %c)
  ret <8 x float> %r
}
declare <8 x float> @llvm.fma.v8f32(<8 x float>, <8 x float>, <8 x float>)
define <8 x float> @half8(<8 x half> %a) {
  %r = fpext <8 x half> %a to <8 x float>
  ret <8 x float> %r
}
define <8 x i32> @add8(<8 x i32> %a, <8 x i32> %b) {
  %r = add <8 x i32> %a, %b
  ret <8 x i32> %r
}
define <16 x i32> @add64(<64 x i8> %a, <64 x i8> %b) "min-legal-vector-width"="512" {
  %s = add <64 x i8> %a, %b
  %r = bitcast <64 x i8> %s to <16 x i32>
  ret <16 x i32> %r
}
"""


@dataclass(frozen=True)
class Target:
    """Features of the CPU that is compiled for. `dot`, the integer dot product, is vnni, avx512bw, avx2 or plain."""

    cpu: str
    features: str
    x86: bool
    arm64: bool
    fma: bool
    half: bool
    dot: str

    @property
    def label(self) -> str:
        """A short name for logs and benchmarks, such as `znver3 avx2`."""
        return f"{self.cpu} {self.dot}"


@cache
def processor() -> tuple[str, str]:
    """LLVM's name of the CPU that is compiled for, and its feature string: `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES`,
    else the host's. A CPU that was named without features has its own features only, not the host's.
    """
    name, features = os.environ.get("NUMBA_CPU_NAME") or None, os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = ""
        if name is None:
            try:
                features = llvm.get_host_cpu_features().flatten()
            except RuntimeError:  # not known for this architecture
                features = ""
    return name or llvm.get_host_cpu_name(), features


def target_machine() -> llvm.TargetMachine:
    """LLVM's code generator for `processor()`, set up as one that code is run with."""
    _initialize()
    cpu, features = processor()
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return triple.create_target_machine(cpu=cpu, features=features, opt=2, jit=True)


@cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@cache
def target() -> Target:
    """The compile target of this process (shape of the answer: see Target). Raises nothing."""
    cpu, features = processor()
    machine = platform.machine().lower()
    x86, arm64 = machine in ("x86_64", "amd64"), machine in ("aarch64", "arm64")
    assembly = target_machine().emit_assembly(llvm.parse_assembly(_PROBE))
    enabled = {f[1:] for f in features.split(",") if f.startswith("+")}
    dot = "plain"
    if x86 and re.search(r"vpaddd.*%ymm", assembly):
        dot = "avx2"
        if re.search(r"vpaddb.*%zmm", assembly):
            dot = "avx512bw"
            if "avx512vnni" in enabled or (not features and cpu in _VNNI_CPUS):
                dot = "vnni"
    fma = arm64 or "vfmadd" in assembly
    return Target(cpu, features, x86, arm64, fma, arm64 or "vcvtph2ps" in assembly, dot)
