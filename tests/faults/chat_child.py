"""A chat in a process of its own, for tests that kill it: says on stdout what it has done, one JSON line an event.

usage: chat_child.py SEED LIMIT STEP_S MESSAGE...

The message GO ON finishes a cut-off reply instead; "SET name value" changes a setting, and then only waits.
"""

import json
import sys
import time
from pathlib import Path

from app.chat import Chat, ChatOptions
from app.events import Delta, ReplyDone, TurnCommitted
from tests.fake_engine import FakeEngine


def main():
    seed, limit, step_s, *messages = sys.argv[1:]

    def emit(event):
        if isinstance(event, TurnCommitted):
            say("sent", event.node.text)
        elif isinstance(event, Delta):
            say("delta", event.text)
        elif isinstance(event, ReplyDone):
            say("done", event.node.text)

    def say(kind, text):
        print(json.dumps([kind, time.monotonic(), text]), flush=True)

    options = ChatOptions(seed=int(seed), limit=int(limit))
    chat = Chat(emit, options, engine=FakeEngine(step_s=float(step_s)), model=Path("fake.gguf"))
    chat.start()
    chat.load_model()
    say("ready", "")
    for message in messages:
        if message.startswith("SET "):
            _, name, value = message.split()
            chat.change_settings(**{name: float(value)})
            say("set", name)
            time.sleep(60)
        chat.go_on() if message == "GO ON" else chat.send(message)
    chat.close()


main()
