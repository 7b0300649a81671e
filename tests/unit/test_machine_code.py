"""Compiled code is kept, found again by what it was compiled from, and never run when it is not what was written."""

import json
import os
import struct
import subprocess
import sys

import llvmlite.binding as llvm
import pytest

from engine import jit
from engine.kernels import entry
from engine.kernels.target import target_machine
from engine.machine_code import MachineCode, read, write

ADDER = """
define i64 @adder(i64 %a, i64 %b) {
  %r = add i64 %a, %b
  ret i64 %r
}
define double @half(double %a) {
  %r = fmul double %a, 0.5
  ret double %r
}
"""

ROPE = """
import hashlib, sys
import numpy as np
from engine import jit
from engine.kernels import entry
cosines, sines = np.zeros((50, 4), np.float32), np.zeros((50, 4), np.float32)
entry.fill_rope_table(np.array([1.0, 0.1, 0.01, 0.001]), cosines, sines, 0, 50)
print(hashlib.blake2b(cosines.tobytes() + sines.tobytes()).hexdigest()[:16], "numba" in sys.modules)
"""


@pytest.fixture(scope="module")
def code():
    machine = target_machine()
    module = llvm.parse_assembly(ADDER)
    return bytes(machine.emit_object(module))


def python(program, **environment):
    """A process's words; a value of None takes a variable away."""
    env = {**os.environ, **{name: value for name, value in environment.items() if value is not None}}
    for name, value in environment.items():
        if value is None:
            env.pop(name, None)
    return subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True)


def words(process):
    out = process.communicate(timeout=120)[0].split()
    assert process.returncode == 0
    return out


def test_kept_code_runs(tmp_path, code):
    write(tmp_path / "a.code", "key", code)
    kept = read(tmp_path / "a.code", "key")
    assert kept == code
    loaded = MachineCode(kept)
    assert loaded.function("adder", "ii", "i")(2**40, -5) == 2**40 - 5
    assert loaded.function("half", "d", "d")(3.0) == 1.5
    with pytest.raises(RuntimeError, match="nothing"):
        loaded.address("nothing")


def test_a_file_is_kept_for_this_user_alone(tmp_path, code):
    write(tmp_path / "a.code", "key", code)
    assert [path.name for path in tmp_path.iterdir()] == ["a.code"]
    if os.name == "posix":
        assert (tmp_path / "a.code").stat().st_mode & 0o777 == 0o600


def test_damaged_cut_and_foreign_files_are_as_good_as_none(tmp_path, code):
    path = tmp_path / "a.code"
    write(path, "key", code)
    whole = path.read_bytes()
    assert read(path, "another key") is None
    assert read(tmp_path / "missing.code", "key") is None
    for at in [*range(0, 60), *range(60, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert read(path, "key") is None, at
        path.write_bytes(whole[:at])
        assert read(path, "key") is None, at
    path.write_bytes(whole + b"\0")
    assert read(path, "key") is None


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_code_that_others_could_have_written_is_not_run(tmp_path, code):
    path = tmp_path / "a.code"
    write(path, "key", code)
    path.chmod(0o622)
    assert read(path, "key") is None


def test_what_cannot_be_written_is_not_kept(tmp_path, code):
    (tmp_path / "file").write_text("")
    write(tmp_path / "file" / "a.code", "key", code)
    write(tmp_path / "no such" / "a.code", "key", code)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_part_is_compiled_again_and_then_kept(tmp_path):
    first = words(python(ROPE, NUMBA_CACHE_DIR=str(tmp_path)))
    again = words(python(ROPE, NUMBA_CACHE_DIR=str(tmp_path)))
    assert (first[1], again[1]) == ("True", "False")
    (path,) = tmp_path.rglob("rope.code")
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + b"\xcc" * 100 + whole[600:])
    repaired = words(python(ROPE, NUMBA_CACHE_DIR=str(tmp_path)))
    assert repaired == first
    assert words(python(ROPE, NUMBA_CACHE_DIR=str(tmp_path))) == again
    assert first[0] == again[0]


def test_two_processes_compile_the_same_part_at_once(tmp_path):
    both = [python(ROPE, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    one, other = (words(process) for process in both)
    assert one[0] == other[0]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["rope.code"]


def test_without_a_place_to_write_code_lives_in_memory(tmp_path):
    (tmp_path / "file").write_text("")
    for_memory = words(python(ROPE, NUMBA_CACHE_DIR=None, FORKPOINT_CACHE_DIR=str(tmp_path / "file")))
    assert for_memory[1] == "True"
    assert for_memory[0] == words(python(ROPE))[0]


def test_another_cpu_has_a_place_of_its_own():
    program = "from engine import jit; print(jit.fingerprint())"
    prints = [
        words(python(program, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features))[0]
        for name, features in ((None, None), ("generic", None), ("generic", "+sse3"))
    ]
    assert len(set(prints)) == 3
    assert prints[0] == jit.fingerprint()


_C_LIBRARY = {"sched_yield", "nanosleep", "memset", "memcpy", "memmove", "fmaf", "fma", "sqrt"}


RUN = """
import json, sys
from app.__main__ import main
code = main(["run", "--json", "--temp", "0", "-n", "12", "hello"])
print(code, sorted({"numba", "textual"} & set(sys.modules)), file=sys.stderr)
"""


def test_a_run_with_kept_kernels_imports_no_compiler_and_says_the_same(own_directories):
    """Two processes in the places of one person: whatever the first had to compile, the second has."""
    said = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, timeout=300, check=True)
        said.append((json.loads(done.stdout), done.stderr.splitlines()[-1]))
    assert said[0][0]["tokens"] == said[1][0]["tokens"]
    assert said[0][0]["logits_digest"] == said[1][0]["logits_digest"]
    assert said[1][1] == "0 []"


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF")
def test_compiled_parts_call_nothing_but_the_c_library(model_file):
    """LLVM ends a process that loads code which refers to what is not there, such as functions of Numba or Python."""
    from engine.model import Model

    for name, kv_type in (("mixed", "f16"), ("F32", "q8_0")):
        Model.open(model_file(name), kv_type=kv_type, threads=1).close()
    place = jit.place()
    missing = {}
    for path in place.glob("*.code"):
        part = next(part for part in entry.PARTS if entry._file_name(part) == path.name)
        missing[part] = undefined(read(path, entry._key(part)))
    assert {"forward", "rope", "kv f16", "kv q8_0", "matmul F32"} <= set(missing)
    assert set().union(*missing.values()) <= _C_LIBRARY


def undefined(elf):
    """The names that an ELF64 object refers to and does not define."""
    table, count = struct.unpack_from("<Q", elf, 40)[0], struct.unpack_from("<H", elf, 60)[0]
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, table + 64 * i) for i in range(count)]
    found = set()
    for kind, offset, size, link in ((s[1], s[4], s[5], s[6]) for s in sections):
        if kind != 2:  # a symbol table
            continue
        names = sections[link][4]
        for at in range(offset + 24, offset + size, 24):
            name, _, _, section = struct.unpack_from("<IBBH", elf, at)
            if section == 0:
                found.add(elf[names + name : elf.index(b"\0", names + name)].decode())
    return found
