"""Writes token_goldens.json: random texts, and llama.cpp's ids for them by every family of vocabularies, as digests.

    python tests/conformance/make_token_goldens.py SHARED_DATA

with llama-cpp-python installed. Each text has one digest a family (see `ids_digest`): ids themselves would take
megabytes. `llama_ids` is what the soak test compares with text by text.
"""

import ctypes
import hashlib
import json
import struct
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conformance.random_text import random_texts
from tests.conformance.vocabularies import FAMILIES, vocabulary_path

TARGET = Path(__file__).parent / "token_goldens.json"
TEXTS, SEED = 300, 20261124


def ids_digest(plain, special):
    """8 hex digits over the ids of a text, without and with special tokens, BOS and EOS."""
    raw = struct.pack(f"<I{len(plain)}i{len(special)}i", len(plain), *plain, *special)
    return hashlib.blake2b(raw, digest_size=4).hexdigest()


class Llama:
    """llama.cpp's tokenizer of a vocabulary file."""

    def __init__(self, path):
        import llama_cpp

        self._llama = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)  # kept: C holds its address
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p())
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        assert self._model, path
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)

    def ids(self, text, special):
        raw = text.encode()
        room = len(raw) + 16
        out = (self._llama.llama_token * room)()
        count = self._llama.llama_tokenize(self._vocabulary, raw, len(raw), out, room, special, special)
        assert count >= 0
        return out[:count]

    def close(self):
        self._llama.llama_model_free(self._model)


def main():
    import llama_cpp

    texts = list(random_texts(TEXTS, SEED))
    families = {}
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            llama = Llama(vocabulary_path(sys.argv[1], family, folder))
            families[family] = " ".join(ids_digest(llama.ids(t, False), llama.ids(t, True)) for t in texts)
            llama.close()
    made = {"made_with": f"llama-cpp-python {llama_cpp.__version__}", "texts": texts, "digests": families}
    TARGET.write_text(json.dumps(made, indent=0) + "\n")


if __name__ == "__main__":
    main()
