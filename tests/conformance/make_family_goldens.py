"""Make families.json and families.npz from llama.cpp: its logits on one small model for each family.

    pip install -e '.[peer]'        # builds llama.cpp from source, about ten minutes on two cores
    PYTHONPATH=tests python tests/conformance/make_family_goldens.py

A list of 512 tokens is teacher-forced (f16 keys and values, flash attention off). Kept: the logits at a few positions,
for every position the best token and how far it is ahead, and how far llama.cpp is from the float64 reference.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from reference.dense import Dense

from conformance import family_models
from conformance.make_goldens import peer_logits, rms
from conformance.make_models import digest, token_list

HERE = Path(__file__).resolve().parent
LIST_TOKENS = 512
CONTEXT = 1024  # of the peer's session
POSITIONS = (0, 1, 63, 64, 96, 127, 200, 300, 511)


def golden(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """(arrays, figures) of one model."""
    tokens = token_list(family_models.VOCABULARY, LIST_TOKENS)
    peer, exact = peer_logits(path, tokens), Dense.read(path, CONTEXT).logits(tokens)
    best = np.sort(peer, axis=1)
    arrays = {
        "logits": peer[list(POSITIONS)],
        "top": peer.argmax(axis=1).astype(np.int16),
        "gap": (best[:, -1] - best[:, -2]).astype(np.float16),
    }
    figures = {
        "digest": digest(path),
        "largest_logit": float(np.abs(peer).max()),
        "peer_rms_distance": rms(peer - exact),
        "peer_largest_distance": float(np.abs(peer - exact).max()),
    }
    return arrays, figures


def main() -> None:
    import gguf
    import llama_cpp

    from conformance.make_goldens import _version

    arrays, models = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in family_models.FAMILIES.items():
            path = family_models.write(Path(folder) / f"{name}.gguf", model)
            found, models[name] = golden(path)
            arrays |= {f"{name}/{key}": array for key, array in found.items()}
            print(name, models[name], file=sys.stderr)
    meta = {
        "made_by": "tests/conformance/make_family_goldens.py",
        "peer": {"llama-cpp-python": llama_cpp.__version__, "gguf": _version(gguf), "numpy": np.__version__},
        "settings": {"kv": "f16", "flash_attention": False, "batch": 512, "context": CONTEXT},
        "list_tokens": LIST_TOKENS,
        "positions": POSITIONS,
        "models": models,
    }
    (HERE / "families.json").write_text(json.dumps(meta, indent=1) + "\n")
    np.savez_compressed(HERE / "families.npz", **arrays)


if __name__ == "__main__":
    main()
