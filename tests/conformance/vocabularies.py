"""The vocabularies that tokenizers are compared on: files of ../shared, and copies of them with another pre-tokenizer.

Imports the standard library only, for two interpreters.
"""

import struct
from pathlib import Path

# Name -> (vocabulary file, pre-tokenizer to write into it; None: as it is).
FAMILIES = {
    "llama-spm": ("llama-spm", None),
    "phi-3": ("phi-3", None),
    "gpt-2": ("gpt-2", None),
    "llama-bpe": ("llama-bpe", None),
    "qwen2": ("qwen2", None),
    "qwen35": ("qwen2", "qwen35"),
    "smollm": ("gpt-2", "smollm"),
    "tekken": ("llama-bpe", "tekken"),
    "deepseek-llm": ("gpt-2", "deepseek-llm"),
    "deepseek-coder": ("qwen2", "deepseek-coder"),
    "falcon": ("gpt-2", "falcon"),
    "starcoder": ("gpt-2", "starcoder"),
    "refact": ("qwen2", "refact"),
    "command-r": ("qwen2", "command-r"),
    "gpt-4o": ("llama-bpe", "gpt-4o"),
    "smaug-bpe": ("llama-bpe", "smaug-bpe"),
    "default": ("gpt-2", "default"),
}


def vocabulary_path(shared_data, family, folder):
    """The family's file; a patched copy is written into `folder`."""
    name, pre = FAMILIES[family]
    path = Path(shared_data) / "vocab" / f"ggml-vocab-{name}.gguf"
    return path if pre is None else with_pre_tokenizer(path, pre, Path(folder) / f"{family}.gguf")


def with_pre_tokenizer(path, pre, target):
    """A copy of a file without tensors whose `tokenizer.ggml.pre` is `pre`."""
    raw = path.read_bytes()
    key = b"tokenizer.ggml.pre"
    at = raw.index(struct.pack("<Q", len(key)) + key + struct.pack("<I", 8)) + 8 + len(key) + 4
    (length,) = struct.unpack_from("<Q", raw, at)
    target.write_bytes(raw[:at] + struct.pack("<Q", len(pre)) + pre.encode() + raw[at + 8 + length :])
    return target
