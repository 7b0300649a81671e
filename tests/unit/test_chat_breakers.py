"""DRY's sequence breakers, from the setting to the sampled text."""

from pathlib import Path

from app.chat import Chat, ChatOptions
from app.local_engine import LocalEngine
from tests.fake_engine import BOS, FakeEngine, FakeTokenizer

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz ")


def reply(engine, **forced):
    """What a greedy chat says with these settings."""
    options = ChatOptions(seed=1, limit=80, forced={"temperature": 0.0, **forced})
    chat = Chat(lambda event: None, options, engine=engine, model=Path("m.gguf"))
    chat.start(fresh=True)
    chat.load_model()
    chat.send("hello")
    text = chat.transcript()[-1].text
    chat.close()
    return text


class LocalSampling(FakeEngine):
    """The scripted engine with the app's own way to the sampler."""

    sample = LocalEngine.sample


def test_a_sequence_breaker_ends_what_dry_punishes():
    dry = {"dry_multiplier": 50.0, "dry_allowed_length": 1}
    for engine in (LocalSampling(), FakeEngine()):
        plain = reply(engine)
        punished = reply(engine, **dry, dry_sequence_breakers=("\n",))
        assert punished != plain, "else the next line could not fail"
        assert reply(engine, **dry, dry_sequence_breakers=LETTERS) == plain


def test_special_tokens_break_a_sequence_too():
    from engine.sampler import dry_breakers

    found = dry_breakers(FakeTokenizer(), ("\n", ":"))
    assert set(b"\n:") | {BOS} <= set(found)
    assert ord("a") not in found
