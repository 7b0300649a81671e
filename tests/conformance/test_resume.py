"""The promise, end to end: restored ≡ uninterrupted ≡ recomputed, from fresh processes through the command line.

160 sampled tokens in one go equal 70 + save + restore + 90, equal the same after the cache dir is gone, whatever the
number of threads and the batch size: equal ids and an equal digest of the last logits.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROMPT = "Once upon a time, in a small house by the sea, there lived a"
WAYS = [(1, 512), (2, 1), (2, 7)]  # threads, batch size; the reference is (2, 512)


@pytest.fixture(scope="module")
def model(request):
    """The bundled model; without it stories260K."""
    import assets

    try:
        return assets.bundled_model_path()
    except FileNotFoundError:
        return request.getfixturevalue("stories_path")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Directories that the processes of this module share."""
    return tmp_path_factory.mktemp("resume")


def run(library: Path, model: Path, *arguments: str) -> dict:
    """One fresh process."""
    environment = dict(os.environ)
    for kind in ("DATA", "CACHE", "CONFIG"):
        environment[f"FORKPOINT_{kind}_DIR"] = str(library / kind.lower())
    command = [sys.executable, "-m", "app", "run", "--json", *arguments]
    if "--at" not in arguments:
        command += ["-m", str(model), "--raw", "--temp", "0.9", "-s", "11"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def how(threads: int, batch: int) -> list[str]:
    return ["-t", str(threads), "-b", str(batch)]


@pytest.fixture(scope="module")
def whole(library, model):
    """160 tokens in one go."""
    result = run(library, model, PROMPT, "-n", "160", *how(2, 512))
    assert len(result["tokens"]) == 160 or result["stop"] == "stop"
    return result


@pytest.fixture(scope="module")
def first(library, model, whole):
    """The first 70 of them, saved."""
    result = run(library, model, PROMPT, "-n", "70", "--save", "seventy", *how(2, 512))
    assert result["tokens"] == whole["tokens"][:70]
    assert result["savepoint"]["name"] == "seventy"
    return result


@pytest.mark.parametrize(("threads", "batch"), [(2, 512), *WAYS])
def test_restored_from_the_bundle(library, model, whole, first, threads, batch):
    rest = run(library, model, "--at", "seventy", "-n", "90", *how(threads, batch))
    assert rest["restored_from"] == "bundle"
    assert rest["prefilled_tokens"] == 0
    assert rest["reused_tokens"] == rest["prompt_tokens"] == first["prompt_tokens"] + 70
    assert first["tokens"] + rest["tokens"] == whole["tokens"]
    assert first["text"] + rest["text"] == whole["text"]
    assert rest["logits_digest"] == whole["logits_digest"]
    assert rest["rng"] == whole["rng"]


@pytest.mark.parametrize(("threads", "batch"), WAYS)
def test_recomputed_after_the_cache_is_gone(library, model, whole, first, threads, batch):
    shutil.rmtree(library / "cache")
    rest = run(library, model, "--at", "seventy", "-n", "90", *how(threads, batch))
    assert rest["restored_from"] == "recomputed"
    assert rest["prefilled_tokens"] == rest["prompt_tokens"]
    assert first["tokens"] + rest["tokens"] == whole["tokens"]
    assert rest["logits_digest"] == whole["logits_digest"]


@pytest.mark.parametrize(("threads", "batch"), WAYS)
def test_uninterrupted_by_other_threads_and_batches(library, model, whole, threads, batch):
    other = run(library, model, PROMPT, "-n", "160", *how(threads, batch))
    assert other["tokens"] == whole["tokens"]
    assert other["logits_digest"] == whole["logits_digest"]


def test_partial_when_a_part_of_the_cache_is_gone(library, model, whole, first):
    run(library, model, PROMPT, "-n", "70", "--save", "again", *how(2, 512))
    finals = list((library / "cache").rglob("*.fin"))
    assert finals
    for path in finals:
        path.unlink()  # the logits: the last token has to be computed again
    rest = run(library, model, "--at", "again", "-n", "90", *how(2, 512))
    assert (rest["restored_from"], rest["prefilled_tokens"]) == ("partial", 1)
    assert first["tokens"] + rest["tokens"] == whole["tokens"]
    assert rest["logits_digest"] == whole["logits_digest"]


def test_a_token_inside_a_reply_resumes_too(library, model, whole, first):
    rest = run(library, model, "--at", "seventy@33", "-n", "127", *how(2, 7))
    assert first["tokens"][:33] + rest["tokens"] == whole["tokens"]
    assert rest["logits_digest"] == whole["logits_digest"]


def test_the_same_seed_gives_the_same_text_and_new_dice_another(library, model, whole, first):
    again = run(library, model, "--at", "seventy", "-n", "90", "--new-dice", *how(2, 512))
    assert first["tokens"] + again["tokens"] != whole["tokens"]
