"""Damaged headers: each gives a typed error, or opens, within a second and 256 MiB."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from conformance import family_models, make_models

from assets import bundled_model_path
from tests.faults.report import report
from tests.unit.vocabularies import corpus, write_gguf

FUZZ = Path(__file__).with_name("header_fuzz.py")


@pytest.fixture
def files(tmp_path, request):
    """Headers to damage: a byte-pair vocabulary, the bundled model, stories260K where it is, families, mixed types."""
    rng, letters = random.Random(3), [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "Ã", "©"]
    text = "".join(corpus()[:200]).replace(" ", "Ġ")
    pairs = {(text[i], text[i + 1]) for i in (rng.randrange(len(text) - 1) for _ in range(300))}
    pieces = [*dict.fromkeys([*letters, *(a + b for a, b in pairs)]), "<|im_start|>", "<|im_end|>", "<0x41>"]
    types = [1] * (len(pieces) - 3) + [3, 3, 6]
    path = tmp_path / "pairs.gguf"
    merges = [f"{a} {b}" for a, b in pairs]
    fields = {"eos_token_id": len(pieces) - 2, "add_bos_token": False, "chat_template": "{{ messages[0].content }}"}
    write_gguf(path, pieces, None, types, model="gpt2", merges=merges, pre="qwen2", **fields)
    found = [path, bundled_model_path()]
    stories = Path(__file__).parents[3] / "shared" / "data" / "stories260K.gguf"
    families = [family_models.write(tmp_path / f"{n}.gguf", model) for n, model in family_models.FAMILIES.items()]
    mixed = [make_models.write(tmp_path / f"{n}.gguf", make_models.shape_of(n)) for n in ("mixed", "k-mixed", "mxfp4")]
    return [*found, *([stories] if stories.is_file() else []), *families, *mixed]


def run(files, tmp_path, count, seed):
    command = [sys.executable, str(FUZZ), str(count), str(seed), str(tmp_path), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_damaged_headers(files, tmp_path):
    found = run(files, tmp_path, 900, 1)
    assert found["refused"] > 300
    assert found["sound"] > 100
    assert found["tensors_named"] > 30


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
def test_100_000_damaged_headers(part, files, tmp_path):
    report(10, role="GGUF header", part=part, **run(files, tmp_path, 5000, 100 + part))
