"""What the machine code that Numba makes may use. Kernels choose their instructions by this, never by the host alone.

`NUMBA_CPU_NAME=haswell` or `=generic` therefore really takes other code. The answer comes from LLVM itself: a few
lines of IR are compiled for Numba's target and their assembly is searched for the instruction in question.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm
from numba.core import config
from numba.core.registry import cpu_target

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
    """Features of the CPU that Numba compiles for. `dot`, the integer dot product, is vnni, avx512bw, avx2 or plain."""

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


def _compiler_target() -> tuple[str, str]:
    """The CPU name and feature string that Numba hands to LLVM."""
    codegen = cpu_target.target_context.codegen()
    cpu = config.CPU_NAME if config.CPU_NAME is not None else llvm.get_host_cpu_name()
    return cpu, codegen._tm_features


@cache
def target() -> Target:
    """The compile target of this process (shape of the answer: see Target). Raises nothing."""
    cpu, features = _compiler_target()
    machine = platform.machine().lower()
    x86, arm64 = machine in ("x86_64", "amd64"), machine in ("aarch64", "arm64")
    emitter = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=cpu, features=features, opt=2
    )
    assembly = emitter.emit_assembly(llvm.parse_assembly(_PROBE))
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
