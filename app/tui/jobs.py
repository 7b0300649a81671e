"""Calls of the chat in threads of their own; how they ended comes back as a message."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

from textual.message import Message

from app.sentences import sentence


@dataclass
class JobDone(Message):
    """A call of the chat ended; `failure` is the sentence of its error, "" where there was none."""

    failure: str
    talk: bool
    done: str


def start(work: Callable[[], None], post: Callable[[Message], object], *, talk: bool, done: str) -> None:
    """Call `work` in a thread and post a JobDone; whatever it raises, a person gets a sentence, not a traceback.

    Daemon threads: leaving must not wait for a compiler or a long prompt.
    """

    def run() -> None:
        failure = ""
        try:
            work()
        except Exception as error:
            failure = sentence(error)
        post(JobDone(failure, talk, done))

    Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
