"""The promise, end to end: restored ≡ uninterrupted ≡ recomputed, from fresh processes through the command line.

160 sampled tokens in one go equal 70 + save + restore + 90, equal the same after the cache dir is gone, whatever the
number of threads and the batch size: equal ids and an equal digest of the last logits.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROMPT = "Once upon a time, in a small house by the sea, there lived a"
WAYS = [(threads, batch) for threads in (1, 2) for batch in (1, 7, 512)][:-1]  # the reference is (2, 512)


@dataclass(frozen=True)
class Case:
    """A model, how it is sampled, and the library that the processes share."""

    model: Path
    sampling: tuple[str, ...]
    library: Path

    def run(self, *arguments: str) -> dict:
        """One fresh process."""
        environment = dict(os.environ)
        for kind in ("DATA", "CACHE", "CONFIG"):
            environment[f"FORKPOINT_{kind}_DIR"] = str(self.library / kind.lower())
        command = [sys.executable, "-m", "app", "run", "--json", *arguments]
        if "--at" not in arguments:
            command += ["-m", str(self.model), "--raw", *self.sampling]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)


# Hot and without cuts, so that a model of short texts goes on for 160 tokens; nonsense proves as much as sense.
HOT = ("--temp", "4", "--top-k", "0", "--top-p", "1", "--min-p", "0")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """The bundled model with a seed by which it writes 160 tokens."""
    import assets

    library = tmp_path_factory.mktemp("resume")
    for seed in range(12, 32):
        case = Case(assets.bundled_model_path(), (*HOT, "-s", str(seed)), library)
        if len(case.run(PROMPT, "-n", "160")["tokens"]) == 160:
            return case
    return pytest.fail("the bundled model ends every text before 160 tokens")


def how(threads: int, batch: int) -> list[str]:
    return ["-t", str(threads), "-b", str(batch)]


@pytest.fixture(scope="module")
def whole(case):
    """160 tokens in one go."""
    result = case.run(PROMPT, "-n", "160", *how(2, 512))
    assert len(result["tokens"]) == 160
    return result


@pytest.fixture(scope="module")
def first(case, whole):
    """The first 70 of them, saved."""
    result = case.run(PROMPT, "-n", "70", "--save", "seventy", *how(2, 512))
    assert result["tokens"] == whole["tokens"][:70]
    assert result["savepoint"]["name"] == "seventy"
    return result


@pytest.mark.parametrize(("threads", "batch"), [(2, 512), *WAYS])
def test_restored_from_the_bundle(case, whole, first, threads, batch):
    rest = case.run("--at", "seventy", "-n", "90", *how(threads, batch))
    assert rest["restored_from"] == "bundle"
    assert rest["prefilled_tokens"] == 0
    assert rest["reused_tokens"] == rest["prompt_tokens"] == first["prompt_tokens"] + 70
    assert first["tokens"] + rest["tokens"] == whole["tokens"]
    assert first["text"] + rest["text"] == whole["text"]
    assert rest["logits_digest"] == whole["logits_digest"]
    assert rest["rng"] == whole["rng"]


@pytest.mark.parametrize(("threads", "batch"), WAYS)
def test_recomputed_after_the_cache_is_gone(case, whole, first, threads, batch):
    shutil.rmtree(case.library / "cache")
    rest = case.run("--at", "seventy", "-n", "90", *how(threads, batch))
    assert rest["restored_from"] == "recomputed"
    assert rest["prefilled_tokens"] == rest["prompt_tokens"]
    assert first["tokens"] + rest["tokens"] == whole["tokens"]
    assert rest["logits_digest"] == whole["logits_digest"]


@pytest.mark.parametrize(("threads", "batch"), WAYS)
def test_uninterrupted_by_other_threads_and_batches(case, whole, threads, batch):
    other = case.run(PROMPT, "-n", "160", *how(threads, batch))
    assert other["tokens"] == whole["tokens"]
    assert other["logits_digest"] == whole["logits_digest"]


def test_partial_when_a_part_of_the_cache_is_gone(case, whole, first):
    case.run(PROMPT, "-n", "70", "--save", "again", *how(2, 512))
    finals = list((case.library / "cache").rglob("*.fin"))
    assert finals
    for path in finals:
        path.unlink()  # the logits: the last token has to be computed again
    rest = case.run("--at", "again", "-n", "90", *how(2, 512))
    assert (rest["restored_from"], rest["prefilled_tokens"]) == ("partial", 1)
    assert first["tokens"] + rest["tokens"] == whole["tokens"]
    assert rest["logits_digest"] == whole["logits_digest"]


def test_a_token_inside_a_reply_resumes_too(case, whole, first):
    rest = case.run("--at", "seventy@33", "-n", "127", *how(2, 7))
    assert first["tokens"][:33] + rest["tokens"] == whole["tokens"]
    assert rest["logits_digest"] == whole["logits_digest"]


def test_the_same_seed_gives_the_same_text_and_new_dice_another(case, whole, first):
    again = case.run("--at", "seventy", "-n", "90", "--new-dice", *how(2, 512))
    assert first["tokens"] + again["tokens"] != whole["tokens"]


def test_a_trained_model_in_its_own_words(stories_path, tmp_path):
    """The same with a model and settings as people use them."""
    case = Case(stories_path, ("--temp", "0.9", "-s", "11"), tmp_path)
    whole = case.run(PROMPT, "-n", "160", *how(2, 512))
    first = case.run(PROMPT, "-n", "70", "--save", "seventy", *how(1, 7))
    rest = case.run("--at", "seventy", "-n", "90", *how(2, 512))
    assert (rest["restored_from"], rest["prefilled_tokens"]) == ("bundle", 0)
    shutil.rmtree(tmp_path / "cache")
    again = case.run("--at", "seventy", "-n", "90", *how(2, 512))
    assert again["restored_from"] == "recomputed"
    for part in (rest, again):
        assert first["tokens"] + part["tokens"] == whole["tokens"]
        assert first["text"] + part["text"] == whole["text"]
        assert part["logits_digest"] == whole["logits_digest"]
