"""kill -9 of a running chat: nothing that was sent is lost, at most 250 ms of the reply, and going on is exact."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.chat import Chat, ChatOptions
from tests.fake_engine import FakeEngine

SEED, LIMIT, STEP_S = 21, 60, 0.004
MESSAGES = ("first question", "second question", "third question")
ROOT = Path(__file__).resolve().parents[2]


def directories(root: Path) -> dict:
    return {f"FORKPOINT_{kind}_DIR": str(root / kind.lower()) for kind in ("DATA", "CACHE", "CONFIG")}


def open_chat(events=None, **options) -> Chat:
    chat = Chat(
        (events if events is not None else []).append,
        ChatOptions(**options),
        engine=FakeEngine(),
        model=Path("fake.gguf"),
    )
    chat.start()
    chat.load_model()
    return chat


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The texts of a chat that nobody kills: question, reply, question, reply, ..."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in directories(tmp_path_factory.mktemp("whole")).items():
            patch.setenv(name, value)
        chat = open_chat(seed=SEED, limit=LIMIT)
        for message in MESSAGES:
            chat.send(message)
        texts = [m.text for m in chat.transcript()]
        chat.close()
    return texts


def kill_after(delay_s: float, deltas: int = 0, messages: tuple = MESSAGES, until: str = "") -> tuple[list, float]:
    """Start the chat, kill it `delay_s` after it is ready and has written `deltas` pieces of text, and said `until`.

    Gives what it had said, and when it was killed.
    """
    command = [sys.executable, str(ROOT / "tests/faults/chat_child.py"), str(SEED), str(LIMIT), str(STEP_S), *messages]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
        first = child.stdout.readline()
        assert json.loads(first)[0] == "ready", child.stderr.read()
        while deltas:
            deltas -= json.loads(child.stdout.readline())[0] == "delta"
        lines = []
        while until and not any(json.loads(line)[0] == until for line in lines):
            lines.append(child.stdout.readline().decode())
        time.sleep(delay_s)
        killed_at = time.monotonic()
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().decode().splitlines()
    return [json.loads(line) for line in lines if line.strip().endswith("]")], killed_at


@pytest.mark.parametrize("number", range(10))
def test_nothing_that_was_sent_is_lost_and_going_on_is_exact(number, uninterrupted):
    delay = random.Random(number).uniform(0.0, 1.1 * LIMIT * STEP_S * len(MESSAGES))
    said, killed_at = kill_after(delay)
    sent = [text for kind, _, text in said if kind == "sent"]
    safe = "".join(t for kind, at, t in said if kind == "delta" and at < killed_at - 0.25)

    chat = open_chat(limit=LIMIT)  # a question whose reply had no journal yet has no limit of its own
    try:
        texts = [m.text for m in chat.transcript()]
        questions = texts[0::2]
        assert questions[: len(sent)] == sent
        assert texts == uninterrupted[: len(texts)]
        pending = chat.pending_reply()
        replies = "".join(texts[1::2]) + (pending.text if pending else "")
        assert replies.startswith(safe)
        if len(texts) % 2:
            assert pending is not None
            before = pending.tokens
            chat.go_on()
            texts = [m.text for m in chat.transcript()]
            assert texts == uninterrupted[: len(texts)]
            assert chat.transcript()[-1].own_tokens > before or before >= LIMIT
        assert chat.pending_reply() is None
    finally:
        chat.close()


@pytest.mark.parametrize("messages", [(), ("first question",)])
def test_a_setting_that_was_changed_is_kept_at_once(messages):
    """Nothing is said or saved behind it before the kill, and in one case nothing in front of it either."""
    said, _ = kill_after(0.0, until="set", messages=(*messages, "SET temperature 0.125"))
    assert [kind for kind, *_ in said if kind in ("sent", "done")] == ["sent", "done"] * len(messages)
    chat = open_chat()
    try:
        assert chat.settings.temperature == 0.125
        chat.send("second question")
        assert chat.settings.temperature == 0.125
    finally:
        chat.close()


def test_killed_twice_in_one_reply_goes_on_exactly(uninterrupted):
    kill_after(0.0, deltas=6)
    kill_after(0.0, deltas=6, messages=("GO ON",))
    chat = open_chat()
    try:
        assert chat.pending_reply().tokens >= 10
        chat.go_on()
        texts = [m.text for m in chat.transcript()]
        assert texts == uninterrupted[:2]
    finally:
        chat.close()


def test_a_run_that_saves_can_be_killed_and_goes_on_exactly(stories_path):
    """The same through the command line and the real engine."""
    model = ["-m", str(stories_path), "--raw", "--temp", "0.9", "-s", "5"]
    command = [sys.executable, "-m", "app", "run", *model, "-n", "400", "Once upon a time"]
    whole = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, timeout=300).stdout.decode()
    seen = b""
    with subprocess.Popen([*command, "--save", "story"], stdout=subprocess.PIPE, cwd=ROOT) as child:
        while len(seen) < 100:
            seen += os.read(child.stdout.fileno(), 64)
        child.send_signal(signal.SIGKILL)
        seen += child.stdout.read()
    chat = Chat(lambda event: None, ChatOptions(window="run"), model=stories_path)
    chat.start()
    chat.load_model()
    try:
        pending = chat.pending_reply()
        assert pending is not None
        assert len(pending.text) >= 90
        chat.go_on()
        assert chat.transcript()[-1].text == whole
        assert whole.startswith(seen.decode(errors="ignore"))
    finally:
        chat.close()


@pytest.mark.soak
@pytest.mark.parametrize("number", range(100, 300))
def test_many_kills(number, uninterrupted):
    test_nothing_that_was_sent_is_lost_and_going_on_is_exact(number, uninterrupted)
