"""How arrays become bytes: nothing is lost, noise is left alone, old files are read, and no header is believed."""

import base64
import json
import struct
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snapshots import DamagedFile, StoreError, codec, frames, segment

HERE = Path("here.seg")

WRITTEN_BY_FORMAT_1 = (
    "RktQVFNUQVQBAAEAtwAAAD0BAAAAAAAAoAIAAAAAAAC1Cj/arYXIycl5Kx9qVNSx4NAsvqhBEymkTFiwnTGNtHsiYXJyYXlzIjpbeyJkdHlwZSI6"
    "Ijx1MiIsIm5hbWUiOiJrIiwic2hhcGUiOlsyLDQsMTJdfSx7ImR0eXBlIjoifGkxIiwibmFtZSI6InEiLCJzaGFwZSI6WzIsMywxNl19LHsiZHR5"
    "cGUiOiI8ZjQiLCJuYW1lIjoicyIsInNoYXBlIjpbOTZdfV0sImtpbmQiOiJibG9ja3MiLCJzdGFydCI6MCwidG9rZW5zIjpbMSwyLDNdfSi1L/1g"
    "oAGdCQCW1EYsgMUtBizGSqFDDYw3eKg5AKn3MoSRfEGKt9+eMlbpcAd/ho+XN73/Hq/snQI0ADwAOgAQyP9rrfXee3ue52GM8f/nnLPWWkspZYwx"
    "Qgjh/2cymQwGg8HsvTeAlFJCCOGcc8YY4/8Hc855XdclkUgklFL6//feO+ec/77vq1QqlUAgEMAY4+d5HofD4RAIBIL/v1wuF8uyrCzLspxzTiQS"
    "CQgkTdP8/2QymTQajYa11v5/rbU6juMwGAwGpZQOBoNBJBKJWCwWy/9TKBRKrbU+Ho/HvfdSFEVt27b9f1NAwP8vFouFQqFQIBAIxOFwOBgMBkOh"
    "UCgQCASCtdbWWmvXdR3HcZymaRqGYVhVVdU0TZMkSVIURREEQVATBwAMkPABKBnwA6ulfqLOuOnKQycT"
)


def keys_and_values(dims=16, tokens=64, seed=4):
    """Halves whose channels each have a magnitude and a sign of their own, as a model's have."""
    dice = np.random.default_rng(seed)
    scale = 2.0 ** dice.integers(-6, 6, (2, dims, 1)) * dice.choice([-1, 1], (2, dims, 1))
    k = (scale * (2 + dice.standard_normal((2, dims, tokens)))).astype("f2").view("u2")
    return {"k": k, "v": np.ascontiguousarray(k.swapaxes(1, 2))}


def there_and_back(arrays, tokens=0):
    found = codec.encode(arrays, tokens)
    body = memoryview(b"".join(found.parts))
    fields = json.loads(json.dumps(found.fields))
    return found, codec.decode(found.codec, codec.layout(fields, found.size), body, found.size)


def same(arrays, back):
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].shape == array.shape
        assert back[name].tobytes() == np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        assert not back[name].flags.writeable


def test_a_file_of_format_1_still_reads():
    contents = segment.decode(HERE, base64.b64decode(WRITTEN_BY_FORMAT_1))
    r = np.arange(24)
    wanted = {
        "k": (r * 37 % 5 + 15360).astype("u2").reshape(2, 4, 3),
        "q": (r % 7 - 3).astype("i1").reshape(2, 3, 4),
        "s": np.sqrt(r).astype("f4"),
    }
    same({name: np.repeat(array, 4, axis=-1) for name, array in wanted.items()}, contents.arrays)
    assert base64.b64decode(WRITTEN_BY_FORMAT_1)[10] == codec.PLANES_ZSTD


def test_channels_that_differ_get_references_along_the_tokens():
    arrays = keys_and_values()
    found, back = there_and_back(arrays, 64)
    same(arrays, back)
    assert found.codec == codec.PLANES_APART
    assert [entry["axis"] for entry in found.fields["arrays"]] == [-1, -2]
    assert [entry["packed"] for entry in found.fields["arrays"]] == [[1], [1]]
    stored, raw = sum(map(len, found.parts)), sum(a.nbytes for a in arrays.values())
    assert stored < 0.8 * raw  # without references the exponents of twelve magnitudes and two signs are mixed: 0.86


def test_the_axis_is_found_where_the_count_of_tokens_does_not_tell():
    arrays = keys_and_values(dims=64)
    for tokens in (0, 64):
        found, back = there_and_back(arrays, tokens)
        same(arrays, back)
        assert [entry["axis"] for entry in found.fields["arrays"]] == [-1, -2]


def test_noise_is_stored_as_it_is():
    arrays = {"a": np.random.default_rng(1).integers(0, 256, 5000, "u1")}
    found, back = there_and_back(arrays)
    same(arrays, back)
    assert found.codec == codec.RAW
    assert sum(map(len, found.parts)) == 5000


def test_what_is_nearly_empty_is_not_packed_like_a_bomb():
    for size in (1000, 5_000_000):
        arrays = {"zeros": np.zeros(size, "f4")}
        found, back = there_and_back(arrays)
        same(arrays, back)
        assert (found.codec == codec.RAW) == (size > frames.SMALL)


def test_references_that_would_open_like_a_bomb_are_not_written():
    """Two million channels whose usual byte is the same, while the numbers themselves pack as any do."""
    halves = np.random.default_rng(6).integers(0x3C00, 0x4000, (1 << 21, 8), "u2")
    found, back = there_and_back({"k": halves}, tokens=8)
    same({"k": halves}, back)
    assert found.codec == codec.RAW


_arrays = hnp.arrays(
    st.sampled_from(["u1", "i1", "u2", "<f2", ">f4", "i8", "f8"]), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)
)


@given(st.lists(_arrays, max_size=4), st.integers(0, 8))
def test_any_arrays_come_back_bit_for_bit(arrays, tokens):
    named = {str(at): array for at, array in enumerate(arrays)}
    same(named, there_and_back(named, tokens)[1])


@given(hnp.arrays("u2", st.tuples(st.integers(1, 3), st.integers(8, 40), st.integers(8, 40))), st.integers(0, 40))
def test_any_halves_with_references_come_back_bit_for_bit(array, tokens):
    for more in (array, np.full((40, 40), 0x3C00, "u2") + array[0, :1, :1]):
        same({"k": more}, there_and_back({"k": more}, tokens)[1])


def sealed(header, body, codec_id=codec.PLANES_APART, size=None):
    """A state file whose digest is right, whatever it says."""
    text = json.dumps(header).encode()
    head = struct.pack("<8sHHIQQ", b"FKPTSTAT", 1, codec_id, len(text), len(body), size or 0)
    return head + blake2b(head + text + body, digest_size=32).digest() + text + body


GOOD = segment.encode({"kind": "blocks", "tokens": [1] * 64}, keys_and_values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "<u3"),
        ("dtype", "O"),
        ("dtype", ["<u2"]),
        ("shape", [2, 16, 65]),
        ("shape", [-2, -16, 64]),
        ("shape", [2.0, 16, 64]),
        ("shape", [1 << 60, 1 << 60]),
        ("shape", "264"),
        ("shape", [True, 32, 64]),
        ("shape", [1] * 9),
        ("axis", 1),
        ("axis", -3),
        ("axis", True),
        ("axis", "x"),
        ("packed", [2]),
        ("packed", [-1]),
        ("packed", [1, 0]),
        ("packed", [1, 1]),
        ("packed", []),
        ("packed", [0, 1]),
        ("packed", None),
        ("name", "v"),
        ("name", 5),
    ],
)
def test_a_header_that_lies_is_refused_though_its_digest_holds(field, value):
    header, _, size, body = segment.check(HERE, GOOD)
    header["arrays"][0][field] = value
    with pytest.raises(DamagedFile):
        segment.decode(HERE, sealed(header, bytes(body), size=size))


@pytest.mark.parametrize("frames", [None, {}, [], [0], [1 << 40] * 3, [-5, 10, 3], ["1"] * 3, [1.0] * 3, [10] * 4])
def test_frames_that_do_not_fit_are_refused(frames):
    header, _, size, body = segment.check(HERE, GOOD)
    with pytest.raises(DamagedFile):
        segment.decode(HERE, sealed({**header, "frames": frames}, bytes(body), size=size))


def test_references_without_a_packed_plane_and_other_codecs_are_read_as_they_say():
    """An axis without `packed` is nothing that a writer makes, and still no reason to stumble."""
    array = keys_and_values()["k"]
    entry = {"name": "k", "dtype": "<u2", "shape": list(array.shape), "axis": -1}
    low, high = array.astype("u1"), (array >> 8).astype("u1")
    references = high[..., :1].copy()
    frame = frames.compress(references)
    body = frame + low.tobytes() + (high - references).tobytes()
    data = sealed({"arrays": [entry], "frames": [len(frame)]}, body, size=array.nbytes)
    assert segment.decode(HERE, data).arrays["k"].tobytes() == array.tobytes()
    for unknown in (3, 99, 65535):
        with pytest.raises(DamagedFile, match="codec"):
            segment.decode(HERE, sealed({"arrays": [entry]}, body, unknown, array.nbytes))


def test_many_segments_coded_at_once_are_the_same_numbers_and_one_damaged_file_is_one_files_trouble():
    dice = np.random.default_rng(5)
    alike = [{"k": dice.standard_normal((3, 16, 64)).astype("f2"), "n": np.arange(9, dtype="<i4")} for _ in range(9)]
    alike[4] = {"k": np.zeros((3, 16, 64), "f2"), "n": np.arange(9, dtype="<i4")}  # other planes are worth packing
    headers = [{"kind": "blocks", "tokens": [number] * 64} for number in range(9)]
    files = segment.encode_alike(headers, alike)
    broken = files[6][:-1] + bytes([files[6][-1] ^ 1])
    found = segment.decode_alike([(Path(str(at)), broken if at == 6 else data) for at, data in enumerate(files)])
    assert isinstance(found[6], DamagedFile)
    for at in {*range(9)} - {6}:
        assert found[at].header["tokens"] == [at] * 64
        alone = segment.decode(Path("alone"), files[at]).arrays
        for name, array in alike[at].items():
            assert found[at].arrays[name].tobytes() == alone[name].tobytes() == array.tobytes()
            assert not found[at].arrays[name].flags.writeable


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:40], "cut short"),
        (lambda data: b"X" + data[1:], "no state file"),
        (lambda data: data[:8] + b"\x09" + data[9:], "version 9"),
        (lambda data: data[:12] + b"\xff\xff\xff\xff" + data[16:], "too large"),
        (lambda data: data + b"x", "wrong length"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "fails its digest"),
    ],
)
def test_a_state_file_that_is_not_one_says_why(tmp_path, change, why):
    data = segment.encode({"kind": "blocks", "tokens": [1]}, {"k": np.arange(4, dtype="<i4")})
    with pytest.raises(DamagedFile, match=why):
        segment.decode(tmp_path, change(data))


def test_more_than_the_format_has_room_for_is_refused(tmp_path):
    with pytest.raises(StoreError, match="too large"):
        codec.encode({str(number): np.zeros(1, "u1") for number in range(65)})
    with pytest.raises(StoreError, match="too large"):
        segment.encode({"kind": "blocks", "words": "x" * (1 << 20)}, {"k": np.zeros(1, "u1")})


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "k", "dtype": "<f2", "shape": [4], "axis": -2, "packed": [1]},
        {"name": "k", "dtype": "<f2", "shape": [4], "axis": 1},
        {"name": "k", "dtype": "<f2", "shape": [4], "packed": [1, 0]},
        {"name": "k", "dtype": "<f2", "shape": [4], "packed": [2]},
        {"name": "k", "dtype": "<f2", "shape": [-4]},
        {"name": "k", "dtype": "object", "shape": [4]},
        {"name": 1, "dtype": "<f2", "shape": [4]},
    ],
)
def test_a_layout_that_cannot_be_is_refused_before_memory_is_taken(entry):
    with pytest.raises(frames.CannotDecode, match="unreadable list"):
        codec.layout({"arrays": [entry]}, 8)


def test_a_body_of_another_length_and_a_bomb_are_refused():
    described = codec.layout({"arrays": [{"name": "k", "dtype": "|u1", "shape": [4]}]}, 4)
    with pytest.raises(frames.CannotDecode, match="wrong length"):
        codec.decode(codec.RAW, described, memoryview(b"abc"), 4)
    with pytest.raises(frames.CannotDecode, match="unknown codec"):
        codec.decode(9, described, memoryview(b"abcd"), 4)
    with pytest.raises(frames.CannotDecode, match="far more"):
        frames.decompress(memoryview(frames.compress(bytes(1 << 24))), 1 << 24)
    with pytest.raises(frames.CannotDecode, match="another size"):
        frames.decompress(memoryview(frames.compress(b"abc")), 4)
