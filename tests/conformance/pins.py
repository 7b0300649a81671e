"""Digests of logits, hidden state and KV for each tensor type, family and KV type (NUMERICS rule 13).

    python tests/conformance/pins.py            # print them as JSON
    python tests/conformance/pins.py --write    # the same, into pins.json: only with a new numerics version
    python tests/conformance/pins.py --add NAME # pins of a new model, into pins.json beside the others

The tokens go through prefill, chunks and steps in company, so that every kernel has its part in the digest.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from conformance import family_models, make_models  # noqa: E402
from conformance.walk import kv_digest, tracks  # noqa: E402

KV_TYPES = ("f16", "q8_0")
NAMES = (
    *make_models.BITS,
    *make_models.TENSOR_TYPES,
    "f32-head8",
    "f32-head64",
    "f32-head128",
    *family_models.FAMILIES,
)


def pin(path, kv_type):
    """{"logits": hex, "hidden": hex, "kv": hex} of one model after a fixed walk over two token lists."""
    from engine import batch
    from engine.model import Model

    batch.WORTH_WAKING = 0  # threads share every pass, however small
    model = Model.open(path, kv_type=kv_type, threads=2)
    try:
        a, b = tracks(model.vocabulary_size)[:2]
        one = model.new_session(b"d" * 16)
        model.prefill(one, a[:70], batch_size=33)
        two = one.fork()
        model.prefill(two, b[70:135])
        for x, y in zip(a[70:80], b[135:145], strict=True):
            model.step([one, two], [x, y])
        return {
            "logits": [one.logits_digest()[:32], two.logits_digest()[:32]],
            "hidden": kv_digest([_Array(one.hidden), _Array(two.hidden)]),
            "kv": kv_digest([*model.capture(one).chunks, *model.capture(two).chunks]),
        }
    finally:
        model.close()


class _Array:
    """A lone array in the clothes of a chunk."""

    def __init__(self, array: np.ndarray) -> None:
        self.start, self.stop, self.arrays = 0, len(array), {"": array}


def pins(names=NAMES, kv_types=KV_TYPES):
    """{"name/kv type": digests}; the models lie in a temporary folder meanwhile."""
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / f"{name}.gguf"
            if name in family_models.FAMILIES:
                family_models.write(path, family_models.FAMILIES[name])
            else:
                make_models.write(path, make_models.BITS.get(name) or make_models.shape_of(name))
            for kv_type in kv_types:
                out[f"{name}/{kv_type}"] = pin(path, kv_type)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("names", nargs="*", default=NAMES)
    options = parser.parse_args()
    found = pins(options.names)
    from engine.kernels.target import target
    from engine.model import NUMERICS_VERSION

    text = json.dumps({"numerics": NUMERICS_VERSION, "pins": found}, indent=1)
    print(json.dumps({"target": target().label, **json.loads(text)}, indent=1))
    if options.add:
        kept = json.loads((HERE / "pins.json").read_text())
        text = json.dumps({**kept, "pins": {**found, **kept["pins"]}}, indent=1)
    if options.write or options.add:
        (HERE / "pins.json").write_text(text + "\n")


if __name__ == "__main__":
    os.environ.setdefault("FORKPOINT_CACHE_DIR", tempfile.gettempdir() + "/forkpoint-pins")
    main()
