"""The tensors' digest: remembered by the file's identity, and no memory is ever needed."""

import os
from pathlib import Path

import pytest

from engine.fingerprint import key_of, remembered_tensors_digest, tensors_digest
from engine.gguf import GGUF


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    import gguf
    import numpy as np

    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tensor("a", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.add_tensor("b", np.zeros(7, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_digest_does_not_depend_on_threads_and_changes_with_a_bit(gguf_file: Path) -> None:
    with GGUF.open(gguf_file) as opened:
        one = tensors_digest(opened, 1)
        assert tensors_digest(opened, 3) == one
        at = opened.tensors["a"].offset
    raw = bytearray(gguf_file.read_bytes())
    raw[at + 5] ^= 1
    gguf_file.write_bytes(raw)
    with GGUF.open(gguf_file) as opened:
        assert tensors_digest(opened, 1) != one


def test_a_remembered_digest_is_forgotten_when_the_file_changes(gguf_file: Path) -> None:
    with GGUF.open(gguf_file) as opened:
        first = remembered_tensors_digest(opened, 1)
        assert remembered_tensors_digest(opened, 1) == first
        at = opened.tensors["b"].offset
    raw = bytearray(gguf_file.read_bytes())
    raw[at] ^= 1
    gguf_file.write_bytes(raw)
    os.utime(gguf_file, ns=(1, 1))
    with GGUF.open(gguf_file) as opened:
        assert remembered_tensors_digest(opened, 1) == tensors_digest(opened, 1) != first


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/none"])
def test_a_cache_that_cannot_be_written_is_no_error(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("FORKPOINT_CACHE_DIR", place)
    with GGUF.open(gguf_file) as opened:
        assert remembered_tensors_digest(opened, 1) == tensors_digest(opened, 1)


def test_keys_follow_from_fields_alone() -> None:
    assert key_of({"a": 1, "b": "x"}) == key_of({"b": "x", "a": 1}) != key_of({"a": 1, "b": "y"})
