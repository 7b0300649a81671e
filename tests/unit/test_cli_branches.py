"""`run --branches K` and `run --speculate` over a real model file: batches and guesses change no reply."""

import json
import signal

import pytest

from app.__main__ import main
from app.libraries import own_library
from engine import dice

START = "Once upon a time, there was a little girl named"
REPEATING = "Lily saw a big red ball. " * 6 + "Lily saw"


@pytest.fixture
def call(capsys, stories_path):
    """Runs `run` on stories260K; gives exit code, stdout, stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main(["run", "-m", str(stories_path), "-t", "1", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def result(call, *arguments):
    code, out, err = call("--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def same(branch, alone):
    fields = ("text", "tokens", "stop", "prompt_tokens", "logits_digest", "rng")
    return [branch[f] for f in fields] == [alone[f] for f in fields]


@pytest.mark.parametrize("extra", [[], ["--repeat-penalty", "1.3", "--dry-multiplier", "0.8", "--temp", "1.2"]])
def test_each_branch_is_what_it_would_have_been_alone(call, extra):
    """Alone: the same prompt with the dice that NUMERICS rule 9 gives the branch, put in by a saved branch."""
    options = ["--raw", "-n", "25", *extra]
    found = result(call, *options, "-s", "4", "--branches", "4", "--save", "many", START)["branches"]
    keys = [dice.branch_key(dice.key_from_seed(4), index).hex() for index in range(4)]
    assert [b["rng"]["key"] for b in found] == keys
    assert len({b["text"] for b in found}) == 4
    assert same(found[0], result(call, *options, "-s", "4", START))
    for branch in found[1:]:
        # In front of the reply, with the branch's own dice: REF@0 names that place.
        alone = result(call, "--at", f"{branch['savepoint']['name']}@0", "-n", "25")
        assert same(branch, alone)


def test_branches_end_each_by_itself(call):
    found = result(call, "--raw", "-s", "1", "-n", "60", "--branches", "5", "--stop", ".", START + " Lily. She")[
        "branches"
    ]
    assert {b["stop"] for b in found} == {"stop"}
    assert len({len(b["tokens"]) for b in found}) > 1
    assert all("." not in b["text"] for b in found)


def test_all_branches_are_saved_under_names_and_go_on(call):
    found = result(call, "--raw", "-s", "3", "-n", "9", "--branches", "3", "--save", "tale", START)["branches"]
    assert [b["savepoint"]["name"] for b in found] == ["tale", "tale-2", "tale-3"]
    whole = result(call, "--raw", "-s", "3", "-n", "20", "--branches", "3", START)["branches"]
    for part, all_of_it in zip(found, whole, strict=True):
        rest = result(call, "--at", part["savepoint"]["name"], "-n", "11")
        assert part["tokens"] + rest["tokens"] == all_of_it["tokens"]
        assert (rest["restored_from"], rest["prefilled_tokens"]) == ("bundle", 0)
        assert rest["logits_digest"] == all_of_it["logits_digest"]
    with own_library(must_exist=True) as library:
        nodes = [library.resolve(name).node for name in ("tale", "tale-2", "tale-3")]
        assert len({node.parent_id for node in nodes}) == 1
        assert library.dead_replies() == []


def test_branches_continue_from_a_savepoint(call):
    result(call, "--raw", "-s", "3", "-n", "5", "--save", "five", START)
    found = result(call, "--at", "five", "-n", "8", "--branches", "2")["branches"]
    assert same(found[0], result(call, "--at", "five", "-n", "8"))
    assert found[1]["tokens"] != found[0]["tokens"]


def test_one_taken_name_is_refused_before_anything_is_computed(call):
    result(call, "--raw", "-n", "2", "--save", "mine-3", START)
    code, out, err = call("--raw", "-n", "2", "--branches", "3", "--save", "mine", START)
    assert (code, out) == (6, "")
    assert "mine-3" in err
    assert call("--raw", "-n", "2", "--branches", "2", "--save", "mine", START)[0] == 0


def test_plain_output_keeps_the_branches_apart(call):
    found = result(call, "--raw", "-s", "9", "-n", "12", "--branches", "3", START)["branches"]
    code, out, err = call("--raw", "-s", "9", "-n", "12", "--branches", "3", START)
    assert (code, err) == (0, "")
    expected = "".join(f"--- branch {i} of 3 ---\n{b['text']}\n" for i, b in enumerate(found, 1))
    assert out == expected


def test_a_batch_of_one_is_a_plain_reply_under_branches(call):
    found = result(call, "--raw", "-s", "9", "-n", "5", "--branches", "1", START)["branches"]
    assert len(found) == 1
    assert same(found[0], result(call, "--raw", "-s", "9", "-n", "5", START))


def test_ctrl_c_keeps_what_all_branches_have(call, monkeypatch):
    from app import generation

    steps = []
    whole = generation.Writing.fed

    def fed(self, token):
        whole(self, token)
        steps.append(token)
        if len(steps) == 12:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(generation.Writing, "fed", fed)
        code, out, _ = call("--json", "--raw", "-s", "2", "-n", "200", "--branches", "3", "--save", "kept", START)
    assert code == 130
    found = json.loads(out)["branches"]
    assert [(b["stop"], len(b["tokens"])) for b in found] == [("cancelled", 4)] * 3
    rest = result(call, "--at", "kept-3", "-n", "6")
    whole_text = result(call, "--raw", "-s", "2", "-n", "10", "--branches", "3", START)["branches"][2]
    assert found[2]["tokens"] + rest["tokens"] == whole_text["tokens"]


@pytest.mark.parametrize(
    "options",
    [
        ["--temp", "0", "-s", "1"],
        ["--temp", "0.4", "-s", "5"],
        ["--temp", "0.7", "-s", "6", "--repeat-penalty", "1.1", "--presence-penalty", "0.2"],
        ["--temp", "0.3", "-s", "7", "--dry-multiplier", "0.8"],
        ["--temp", "0", "-s", "2", "--stop", "Lily saw a big", "--stop", "mom"],
    ],
)
def test_guessing_ahead_changes_nothing_but_the_time(call, options):
    arguments = ["--raw", "-n", "120", *options, REPEATING]
    guessed, plain = result(call, "--speculate", *arguments), result(call, "--no-speculate", *arguments)
    assert same(guessed, plain)
    assert plain["timings"]["drafted_tokens"] == 0
    assert guessed["timings"]["accepted_tokens"] <= guessed["timings"]["drafted_tokens"]


def test_what_is_said_again_is_guessed(call, monkeypatch):
    # What a guess costs is taken from the clock, which on a busy machine tells that none pays.
    monkeypatch.setattr("engine.speculation.Speculation.took", lambda self, rows, *seconds: None)
    found = result(call, "--raw", "--temp", "0", "-n", "100", "Tom and Tim. " * 20)  # which this model says on
    assert found["timings"]["accepted_tokens"] > 10
