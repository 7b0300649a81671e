"""The GGUF reader: equal to the gguf package on good files, a typed error in bounded time and memory on bad ones."""

import os
import random
import struct
import subprocess
import sys
import time

import gguf
import numpy as np
import pytest

from engine.errors import (
    BadGGUF,
    BadTensor,
    EngineError,
    FileNotReadable,
    MissingTensor,
    NotGGUF,
    UnsupportedFeature,
    UnsupportedTensorType,
)
from engine.gguf import GGUF, TYPES, StringArray


def write_file(path, tensors=True):
    """A small file with a value of every kind and tensors of several types and shapes."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -5)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4_000_000_000)
    writer.add_int32("t.i32", -2_000_000_000)
    writer.add_uint64("t.u64", 1 << 63)
    writer.add_int64("t.i64", -(1 << 62))
    writer.add_float32("t.f32", 0.1)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.yes", True)
    writer.add_bool("t.no", False)
    writer.add_string("t.text", "naïve ☃ text")
    writer.add_array("t.strings", ["", "a", "bc", "😀", "x" * 300])
    writer.add_array("t.ints", [1, -2, 3])
    writer.add_array("t.floats", [0.5, -1.25])
    writer.add_array("t.bools", [True, False, True])
    if tensors:
        rng = np.random.default_rng(1)
        writer.add_tensor("plain", rng.standard_normal((3, 5), np.float32))
        writer.add_tensor("half", rng.standard_normal((2, 3, 4), np.float32).astype(np.float16))
        q8 = gguf.quants.quantize(rng.standard_normal((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor("eighths", q8, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        q4 = gguf.quants.quantize(rng.standard_normal((2, 96), np.float32), gguf.GGMLQuantizationType.Q4_0)
        writer.add_tensor("quarters", q4, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        writer.add_tensor("last", np.arange(7, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def assert_equal_to_oracle(path):
    oracle = gguf.GGUFReader(path)
    with GGUF.open(path) as mine:
        keys = [key for key in oracle.fields if not key.startswith("GGUF.")]
        assert list(mine.metadata) == keys
        for key in keys:
            value, expected = mine.metadata[key], oracle.fields[key].contents()
            if isinstance(value, StringArray):
                assert list(value) == expected
                assert len(value) == len(expected)
            elif isinstance(value, np.ndarray):
                assert value.tolist() == expected
            else:
                assert value == expected
                assert type(value) is type(expected)
        assert list(mine.tensors) == [tensor.name for tensor in oracle.tensors]
        for tensor in oracle.tensors:
            info = mine.tensors[tensor.name]
            assert info.shape == tuple(tensor.shape.tolist())[::-1]
            assert info.type == tensor.tensor_type.name
            assert (info.offset, info.nbytes) == (tensor.data_offset, tensor.n_bytes)
            assert mine.tensor_bytes(info.name).tobytes() == tensor.data.tobytes()


@pytest.mark.parametrize("tensors", [True, False])
def test_equal_to_the_gguf_package(tmp_path, tensors):
    assert_equal_to_oracle(write_file(tmp_path / "a.gguf", tensors))


def test_stories_equal_to_the_gguf_package(stories_path):
    assert_equal_to_oracle(stories_path)


def test_block_sizes_of_every_type_as_ggml_has_them():
    for kind, (block, block_bytes) in gguf.GGML_QUANT_SIZES.items():
        if kind.name != "Q8_1":  # the package counts its two halves as floats; no file holds this type
            assert TYPES[kind.value] == (kind.name, block, block_bytes)


@pytest.mark.parametrize("name", ["qwen2", "llama-bpe"])
def test_large_vocabulary_opens_fast(shared_data, name):
    path = shared_data / "vocab" / f"ggml-vocab-{name}.gguf"
    best = 1e9
    for _ in range(5):
        start = time.process_time()
        with GGUF.open(path) as opened:
            best = min(best, time.process_time() - start)
            assert len(opened.metadata["tokenizer.ggml.tokens"]) > 128_000
            assert len(opened.metadata["tokenizer.ggml.merges"]) > 151_000
            assert not opened.tensors
    assert best < 0.3


def test_views_outlive_close(tmp_path):
    opened = GGUF.open(write_file(tmp_path / "a.gguf"))
    view = opened.tensor_bytes("last")
    opened.close()
    assert view.view(np.float32).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert not view.flags.writeable
    with pytest.raises(MissingTensor) as missing:
        opened.tensor_bytes("nope")
    assert missing.value.tensor == "nope"


def test_typed_getters(tmp_path):
    with GGUF.open(write_file(tmp_path / "a.gguf")) as opened:
        assert opened.architecture == "llama"
        assert opened.integer("t.u16") == 60000
        assert opened.integer("absent", 7) == 7
        assert opened.number("t.f64") == 0.1
        assert opened.flag("t.yes") is True
        for wrong in (
            lambda: opened.integer("t.yes"),
            lambda: opened.integer("t.f32"),
            lambda: opened.integer("t.u64"),
            lambda: opened.integer("t.i8"),
            lambda: opened.text("t.u8"),
            lambda: opened.flag("t.u8"),
            lambda: opened.number("t.text"),
            lambda: opened.text("absent"),
        ):
            with pytest.raises(BadGGUF) as bad:
                wrong()
            assert bad.value.field in str(bad.value)


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotReadable, match="no such file"):
        GGUF.open(tmp_path / "missing.gguf")
    with pytest.raises(FileNotReadable, match="directory"):
        GGUF.open(tmp_path)
    with pytest.raises(FileNotReadable):
        GGUF.open("nul\0byte")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileNotReadable, match="regular"):
        GGUF.open(tmp_path / "fifo")
    for number, content in enumerate([b"", b"GG", b"PK\x03\x04" + bytes(100), b"ggml" + bytes(100)]):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(content)
        with pytest.raises(NotGGUF):
            GGUF.open(path)


# ---- hand-made headers ----


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, kind, payload):
    return text(name) + struct.pack("<I", kind) + payload


def tensor(name, shape, kind, offset):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(keys=(), tensors=(), version=3, tensor_count=None, key_count=None, data=0):
    counts = (len(tensors) if tensor_count is None else tensor_count, len(keys) if key_count is None else key_count)
    raw = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return raw + bytes(-len(raw) % 32) + bytes(data)


def opened(tmp_path, raw):
    path = tmp_path / "made.gguf"
    path.write_bytes(raw)
    return GGUF.open(path)


def test_hand_made_header_is_read(tmp_path):
    for version in (2, 3):
        raw = header([key("a", 4, struct.pack("<I", 5))], [tensor("w", (4, 2), 0, 0)], version, data=32)
        found = opened(tmp_path, raw)
        assert found.metadata["a"] == 5
        assert found.tensors["w"].shape == (2, 4)


HUGE = (1 << 64) - 1
BAD_HEADERS = {
    "version 1": (header(version=1), BadGGUF, "version"),
    "version 4": (header(version=4), BadGGUF, "version"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), BadGGUF, "big-endian"),
    "cut before the counts": (b"GGUF\x03\0\0\0\0", BadGGUF, "tensor_count"),
    "too many keys": (header(key_count=HUGE), BadGGUF, "metadata_kv_count"),
    "too many tensors": (header(tensor_count=HUGE), BadGGUF, "tensor_count"),
    "key reaches beyond": (header([struct.pack("<Q", 500)], data=64), BadGGUF, "key 0"),
    "key of 2^64": (header([struct.pack("<Q", HUGE)], data=64), BadGGUF, "key 0"),
    "key is not UTF-8": (header([struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<IB", 0, 1)]), BadGGUF, "UTF-8"),
    "key twice": (header([key("a", 0, b"\1"), key("a", 0, b"\2")]), BadGGUF, "twice"),
    "unknown value type": (header([key("a", 13, bytes(8))]), BadGGUF, "type 13"),
    "unknown element type": (header([key("a", 9, struct.pack("<IQ", 77, 1))], data=64), BadGGUF, "type 77"),
    "array of arrays": (header([key("a", 9, struct.pack("<IQ", 9, 1))], data=64), BadGGUF, "arrays"),
    "2^61 numbers": (header([key("a", 9, struct.pack("<IQ", 10, 1 << 61))], data=64), BadGGUF, "a"),
    "2^64 strings": (header([key("a", 9, struct.pack("<IQ", 8, HUGE))], data=64), BadGGUF, "a"),
    "string in array beyond": (header([key("a", 9, struct.pack("<IQQ", 8, 1, HUGE))], data=64), BadGGUF, "a"),
    "last string beyond": (header([key("a", 9, struct.pack("<IQQ", 8, 1, 99))], data=64), BadGGUF, "a"),
    "alignment 0": (header([key("general.alignment", 4, bytes(4))]), BadGGUF, "alignment"),
    "alignment 24": (header([key("general.alignment", 4, struct.pack("<I", 24))]), BadGGUF, "alignment"),
    "alignment is text": (header([key("general.alignment", 8, text("32"))]), BadGGUF, "alignment"),
    "tensor twice": (header([], [tensor("w", (1,), 0, 0), tensor("w", (1,), 0, 32)], data=64), BadGGUF, "twice"),
    "no dimensions": (header([], [tensor("w", (), 0, 0)], data=32), BadTensor, "dimensions"),
    "five dimensions": (header([], [tensor("w", (1,) * 5, 0, 0)], data=32), BadTensor, "dimensions"),
    "empty dimension": (header([], [tensor("w", (4, 0), 0, 0)], data=32), BadTensor, "dimension"),
    "product beyond 2^64": (header([], [tensor("w", (1 << 32, 1 << 32, 1 << 32), 0, 0)], data=32), BadTensor, "end"),
    "rows no whole blocks": (header([], [tensor("w", (33, 1), 2, 0)], data=64), BadTensor, "multiple"),
    "unaligned offset": (header([], [tensor("w", (1,), 0, 4)], data=64), BadTensor, "multiple"),
    "beyond the end": (header([], [tensor("w", (9,), 0, 0)], data=32), BadTensor, "end"),
    "offset beyond the end": (header([], [tensor("w", (1,), 0, 1 << 63)], data=32), BadTensor, "end"),
    "overlap": (header([], [tensor("v", (9,), 0, 0), tensor("w", (1,), 0, 32)], data=96), BadTensor, "overlap"),
    "unknown tensor type": (header([], [tensor("w", (32,), 99, 0)], data=64), UnsupportedTensorType, "99"),
    "withdrawn tensor type": (header([], [tensor("w", (32,), 31, 0)], data=64), UnsupportedTensorType, "Q4_0_4_4"),
    "one part of several": (header([key("split.count", 2, b"\2\0")]), UnsupportedFeature, "2 files"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_bad_header(tmp_path, name):
    raw, error, said = BAD_HEADERS[name]
    with pytest.raises(error, match=said):
        opened(tmp_path, raw)


def test_names_from_a_file_cannot_steer_the_terminal(tmp_path):
    with pytest.raises(UnsupportedTensorType) as unsupported:
        opened(tmp_path, header([], [tensor("\x1b[2Jw\n" + "x" * 500, (32,), 99, 0)], data=64))
    assert "\x1b" not in str(unsupported.value)
    assert "\n" not in str(unsupported.value)
    assert len(str(unsupported.value)) < 200


def mutations(raw, count, rng):
    """Copies of `raw` with a few bytes or whole fields of the header overwritten, or cut short."""
    extreme = [0, 1, 2, 8, 9, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 61, 1 << 63, HUGE]
    for _ in range(count):
        out = bytearray(raw)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(out))
            choice = rng.randrange(4)
            if choice == 0:
                out[at] ^= 1 << rng.randrange(8)
            elif choice == 1:
                out[at : at + 8] = struct.pack("<Q", rng.choice(extreme))
            elif choice == 2:
                out[at : at + 4] = struct.pack("<I", rng.choice(extreme) & 0xFFFFFFFF)
            else:
                del out[at:]
                out = out or bytearray(b"G")
        yield bytes(out)


def test_mutated_headers_end_in_a_typed_error_or_a_sound_file(tmp_path):
    raw = write_file(tmp_path / "a.gguf").read_bytes()
    rng = random.Random(5)
    refused = 0
    for number, mutated in enumerate(mutations(raw, 3000, rng)):
        path = tmp_path / "m.gguf"
        path.write_bytes(mutated)
        said = "sound"
        start = time.process_time()
        try:
            with GGUF.open(path) as found:
                for value in found.metadata.values():
                    if isinstance(value, StringArray):
                        assert len(list(value)) == len(value)
                for name, info in found.tensors.items():
                    assert found.tensor_bytes(name).nbytes == info.nbytes
                    assert info.offset + info.nbytes <= len(mutated)
        except EngineError as error:
            refused += 1
            said = str(error)
        assert time.process_time() - start < 1, number
        assert said.isprintable(), number
    assert refused > 1000


WORST = """
import sys, time, resource
from engine.gguf import GGUF
from engine.errors import EngineError
import numpy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        GGUF.open(path)
    except EngineError as error:
        print(error, file=sys.stderr)
    assert time.process_time() - start < 1, path
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_hostile_counts_in_a_large_file_cost_little(tmp_path):
    """Files of 400 MB of zeros (holes, no disk) whose counts claim as much as fits: time and memory stay bounded."""
    heads = {
        "strings": header([key("a", 9, struct.pack("<IQ", 8, 50_000_000))]),
        "many strings": header([key(f"a{i}", 9, struct.pack("<IQ", 8, 2_000_000) + bytes(16_000_000)) for i in (1, 2)]),
        "keys": header(key_count=30_000_000),
        "tensors": header(tensor_count=12_000_000),
        "text": header([key(f"a{i}", 8, text("x" * 15_000_000)) for i in range(3)]),
        "one text": header([key("a", 8, struct.pack("<Q", 300_000_000))]),
        "bools": header([key("a", 9, struct.pack("<IQ", 7, 300_000_000))]),
        "numbers": header([key("a", 9, struct.pack("<IQ", 10, 40_000_000))]),
    }
    paths = []
    for name, head in heads.items():
        paths.append(tmp_path / f"{name}.gguf")
        paths[-1].write_bytes(head)
        os.truncate(paths[-1], 400_000_000)
    done = subprocess.run([sys.executable, "-c", WORST, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 256


def test_imports_no_numba():
    code = "import sys, engine.gguf, engine.errors; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
