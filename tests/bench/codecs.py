"""Compares ways to compress keys and values, on real ones and on random ones. Measures; asserts only that none loses.

    python tests/bench/codecs.py [MODEL.gguf ...] [--seconds S]

Every way gets the same segments of 64 tokens, small ones in one thread and large ones in two, as the store does it;
MB/s are of raw bytes. `codec 2` is what is written, a megabyte of segments in a call as a save makes and a load
reads them, `+ digest` the whole of the files' bytes with headers and digests.
"""

import argparse
import os
import platform
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import zstandard

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from snapshots import codec, frames, pieces, planes, segment  # noqa: E402

THREADS = 2


def kv_of(path, n_tokens, kv_type="f16", size=6 << 20):
    """Full blocks, six megabytes of them, of conversations of n_tokens that a model writes at temperature 0.8."""
    from engine.model import Model

    model = Model.open(path, context=n_tokens + 8, kv_type=kv_type)
    dice, found = np.random.default_rng(3), []
    while sum(a.nbytes for arrays in found for a in arrays.values()) < size:
        session = model.new_session()
        model.prefill(session, model.tokenizer.encode("Once upon a time there was a lighthouse on a hill by the sea."))
        while session.position < n_tokens:
            shares = np.exp((session.logits - session.logits.max()).astype("f8") / 0.8)
            model.step([session], [int(dice.choice(len(shares), p=shares / shares.sum()))])
        found += [dict(c.arrays) for c in model.capture(session).chunks if c.stop - c.start == 64]
    model.close()
    return found


def joined(segments):
    """The same numbers in one piece, where the interpreter's part of the work no longer counts; one for each thread."""
    size = sum(array.nbytes for array in segments[0].values())
    some = segments[: max(1, (1 << 20) // size)]
    return [{name: np.stack([arrays[name] for arrays in some]) for name in some[0]}] * (2 * THREADS)


def random_kv(shape=(22, 4, 64, 64), segments=8):
    dice = np.random.default_rng(1)
    return [{n: dice.standard_normal(shape).astype("f2").view("u2") for n in "kv"} for _ in range(segments)]


class Way:
    """One file at a time, where a way knows nothing better."""

    def encode_many(self, several):
        return [self.encode(arrays) for arrays in several]

    def decode_many(self, several, likes):
        return [self.decode(packed, like) for packed, like in zip(several, likes, strict=True)]


class Planes(Way):
    """All low bytes, then all high bytes, in one frame; `turned`: channel after channel, `delta`: their steps."""

    def __init__(self, level, turned=False, delta=False):
        self.level, self.turned, self.delta = level, turned, delta

    def encode(self, arrays):
        parts = []
        for name, array in arrays.items():
            each = array.swapaxes(-1, -2) if self.turned and name.startswith("v") else array
            for plane in [each.astype("u1"), (each >> 8).astype("u1")] if each.itemsize == 2 else [each.view("u1")]:
                if self.delta:
                    plane = np.concatenate([plane[..., :1], plane[..., 1:] - plane[..., :-1]], axis=-1)
                parts.append(plane.reshape(-1))
        return zstandard.ZstdCompressor(level=self.level).compress(np.concatenate(parts))

    def decode(self, packed, like):
        flat, place, made = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), "u1"), 0, {}
        for name, array in like.items():
            turned = self.turned and name.startswith("v")
            shape = array.swapaxes(-1, -2).shape if turned else array.shape
            planes = []
            for _ in range(array.itemsize):
                plane = flat[place : place + array.size].reshape(shape)
                planes.append(np.cumsum(plane, axis=-1, dtype="u1") if self.delta else plane)
                place += array.size
            each = planes[1].astype("u2") << 8 | planes[0] if array.itemsize == 2 else planes[0].view(array.dtype)
            made[name] = np.ascontiguousarray(each.swapaxes(-1, -2)) if turned else each
        return made


class Written(Way):
    """Codec 2, at a level; `digest` makes whole files of it; `references` off keeps upper planes as they are."""

    def __init__(self, level, digest=False, references=True):
        self.level, self.digest, self.references = level, digest, references

    def encode_many(self, several):
        if self.digest:
            return segment.encode_alike([{"tokens": [0] * 64}] * len(several), several)
        return [_Packed(found) for found in codec.encode_alike(several, 64)]

    def decode_many(self, several, likes):
        if self.digest:
            return [found.arrays for found in segment.decode_alike([(Path("bench"), packed) for packed in several])]
        opened, like = [], None
        for each in several:
            like = codec.layout(each.fields, each.size, like)
            opened.append(codec.open_frames(like, each.body))
        return codec.join_alike(opened)


class _Packed:
    def __init__(self, found):
        self.codec, self.fields, _, self.size = found
        self.body = memoryview(b"".join(found.parts))

    def __len__(self):
        return len(self.body)


def set_up(way):
    """Levels and references are constants of the module: put a way's own in their place."""
    frames._local = type(frames._local)()
    frames.LEVEL = getattr(way, "level", 1)
    planes.SHORTEST = 8 if getattr(way, "references", True) else 1 << 60


def measure(way, segments, seconds):
    set_up(way)
    raw = sum(a.nbytes for arrays in segments for a in arrays.values())
    at_once = 1 if way is ALONE else max(1, pieces.GROUP * len(segments) // raw)
    groups = [segments[at : at + at_once] for at in range(0, len(segments), at_once)]
    packed = [way.encode_many(group) for group in groups]
    for group, made in zip(groups, packed, strict=True):
        for arrays, back in zip(group, way.decode_many(made, group), strict=True):
            assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    speeds = []
    threads = THREADS if raw // len(segments) >= pieces.LARGE else 1
    with ThreadPoolExecutor(threads) as pool:
        for call in (lambda i: way.encode_many(groups[i]), lambda i: way.decode_many(packed[i], groups[i])):
            best, end = 1e9, time.perf_counter() + seconds
            while time.perf_counter() < end:
                begin = time.perf_counter()
                each = map(call, range(len(groups))) if threads == 1 else pool.map(call, range(len(groups)))
                deque(each, 0)  # lets each result go before the next one, as a save does that has written it
                best = min(best, time.perf_counter() - begin)
            speeds.append(raw / best / 1e6)
    return sum(len(one) for made in packed for one in made) / raw, *speeds


ALONE = Written(1)
WAYS = {
    "planes, level 1 (codec 1)": Planes(1),
    "planes, level 3": Planes(3),
    "channel-major planes, level 1": Planes(1, turned=True),
    "deltas of channel-major planes, level 1": Planes(1, turned=True, delta=True),
    "planes apart, level 1": Written(1, references=False),
    "planes apart, references, level 1 (codec 2)": Written(1),
    "planes apart, references, level 3": Written(3),
    "planes apart, references, level 9": Written(9),
    "codec 2, one file a call": ALONE,
    "codec 2 + digest": Written(1, digest=True),
}


def main():
    reader = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    reader.add_argument("models", nargs="*", type=Path, help="default: stories260K and the bundled one")
    reader.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    reader.add_argument("--tokens", type=int, default=512)
    reader.add_argument("--only", default="", help="ways whose names hold this")
    options = reader.parse_args()
    usual = [ROOT.parent / "shared/data/stories260K.gguf", ROOT / "assets/guide.gguf"]
    data = {}
    for path in options.models or [p for p in usual if p.exists()]:
        data[f"{path.stem} f16"] = kv_of(path, options.tokens)
        if path in usual:
            data[f"{path.stem} q8_0"] = kv_of(path, options.tokens, "q8_0")
        data[f"{path.stem} f16, joined"] = joined(data[f"{path.stem} f16"])
    data["random f16"] = random_kv()
    print(
        f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}, NumPy {np.__version__}, Python {platform.python_version()}"
    )
    print(f"one thread, or {THREADS} for segments from {pieces.LARGE} bytes on, {len(os.sched_getaffinity(0))} cores\n")
    for name, segments in data.items():
        size = sum(a.nbytes for a in segments[0].values())
        print(f"\n{name}, {len(segments)} segments of {size} bytes\n")
        print("| way | of raw | MB/s in | MB/s out |\n|---|---|---|---|")
        for label, way in WAYS.items():
            if options.only not in label:
                continue
            share, into, out = measure(way, segments, options.seconds)
            print(f"| {label} | {share:.3f} | {into:.0f} | {out:.0f} |", flush=True)


if __name__ == "__main__":
    main()
