"""Make goldens.json and goldens.npz from llama.cpp: the outside world's opinion of the engine's logits.

    pip install -e '.[peer]'        # builds llama.cpp from source, about ten minutes on two cores
    python tests/conformance/make_goldens.py

float32 weights: teacher-forced logits at a few positions (f16 keys and values, flash attention off). Lesser types:
llama.cpp's own rms distance from the float64 reference over the same dequantized weights, all positions of a long list.
stories260K (where ../shared is there): the ids and text of its greedy continuation too.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from reference.llama import Llama as Reference  # noqa: E402

from conformance import make_models  # noqa: E402

STORIES = HERE.parents[2] / "shared" / "data" / "stories260K.gguf"
STORY_PROMPT = "Once upon a time, there was a little girl named"
LIST_TOKENS = 600
POSITIONS = (0, 1, 63, 64, 130, 599)
STORY_TOKENS = 200
STORY_POSITIONS = tuple(range(0, STORY_TOKENS, 9))


@contextlib.contextmanager
def quiet():
    """llama.cpp writes its log to descriptor 2."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def open_peer(path):
    """A llama.cpp context that keeps every position's logits."""
    import llama_cpp

    return llama_cpp.Llama(
        str(path), n_ctx=1024, n_batch=512, n_threads=2, logits_all=True, flash_attn=False, verbose=False
    )


def peer_logits(path, tokens):
    """float32 (n, vocabulary) of llama.cpp, fed the list in batches of 512."""
    with quiet():
        model = open_peer(path)
        model.eval(tokens)
        return np.array(model.scores[: len(tokens)], dtype=np.float32)


def story(path):
    """(prompt's ids, greedy ids up to STORY_TOKENS in all, their text) by llama.cpp."""
    with quiet():
        model = open_peer(path)
        prompt = model.tokenize(STORY_PROMPT.encode(), add_bos=True)
        model.eval(prompt)
        tokens = list(prompt)
        while len(tokens) < STORY_TOKENS:
            tokens.append(int(np.argmax(model.scores[len(tokens) - 1])))
            model.eval(tokens[-1:])
        return prompt, tokens, model.detokenize(tokens[len(prompt) :]).decode()


def rms(values):
    """Root mean square, float64."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def measured(folder, name, shape):
    """(what is noted of one model, llama.cpp's logits)."""
    path = make_models.write(folder / f"{name}.gguf", shape)
    tokens = make_models.token_list(shape, LIST_TOKENS)
    peer, exact = peer_logits(path, tokens), Reference.read(path).logits(tokens)
    noted = {
        "digest": make_models.digest(path),
        "seed": shape.seed,
        "largest_logit": float(np.abs(exact).max()),
        "peer_rms_distance": rms(peer - exact),
        "peer_largest_distance": float(np.abs(peer - exact).max()),
    }
    return noted, peer


def tensor_types(versions):
    """Write tensor_types.json."""
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in make_models.TENSOR_TYPES.items():
            models[name], _ = measured(Path(folder), name, shape)
            print(name, models[name], file=sys.stderr)
    meta = {"made_by": "tests/conformance/make_goldens.py --tensor-types", "peer": versions}
    meta |= {"list_tokens": LIST_TOKENS, "models": models}
    (HERE / "tensor_types.json").write_text(json.dumps(meta, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensor-types", action="store_true", help="only tensor_types.json: distances of later types")
    options = parser.parse_args()
    import gguf
    import llama_cpp

    if options.tensor_types:
        tensor_types({"llama-cpp-python": llama_cpp.__version__, "gguf": _version(gguf), "numpy": np.__version__})
        return
    arrays, models = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in make_models.MODELS.items():
            models[name], peer = measured(Path(folder), name, shape)
            if name in make_models.FLOAT32:
                arrays[name] = peer[list(POSITIONS)]
            print(name, models[name], file=sys.stderr)
    meta = {
        "made_by": "tests/conformance/make_goldens.py",
        "peer": {"llama-cpp-python": llama_cpp.__version__, "gguf": _version(gguf), "numpy": np.__version__},
        "settings": {"kv": "f16", "flash_attention": False, "batch": 512},
        "list_tokens": LIST_TOKENS,
        "positions": POSITIONS,
        "models": models,
    }
    if STORIES.is_file():
        prompt, tokens, text = story(STORIES)
        peer = peer_logits(STORIES, tokens)
        arrays["stories260K"] = peer[list(STORY_POSITIONS)]
        exact = Reference.read(STORIES).logits(tokens)
        meta["stories260K"] = {
            "digest": make_models.digest(STORIES),
            "prompt": STORY_PROMPT,
            "prompt_tokens": prompt,
            "tokens": tokens,
            "text": text,
            "positions": STORY_POSITIONS,
            "largest_logit": float(np.abs(exact).max()),
            "peer_rms_distance": rms(peer - exact),
            "peer_largest_distance": float(np.abs(peer - exact).max()),
        }
        print(meta["stories260K"], file=sys.stderr)
    (HERE / "goldens.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
    np.savez_compressed(HERE / "goldens.npz", **arrays)


def _version(module):
    from importlib.metadata import version

    return version(module.__name__)


if __name__ == "__main__":
    main()
