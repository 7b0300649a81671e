"""A scripted engine for tests of the app: the real protocol, arithmetic that a test can foresee, no weights.

Logits are a pure function of the token list (blake2b), the vocabulary is the 256 bytes and a few special ids, KV is the
tokens themselves, so that a state that was stored wrongly shows. Progress, cancel and a full context behave as in the
real engine. `replies` scripts what is said instead: the text answered to a prompt that ends a given way.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import ContextFull, StateMismatch

BOS, END, HEADER_SYSTEM, HEADER_USER, HEADER_ASSISTANT = 256, 257, 258, 259, 260
VOCABULARY = 264
BLOCK = 64
SPECIALS = {"<s>": BOS, "<end>": END, "<system>": HEADER_SYSTEM, "<user>": HEADER_USER, "<assistant>": HEADER_ASSISTANT}
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


class FakeTokenizer:
    """One token a byte, and five specials."""

    vocabulary_size = VOCABULARY
    end_ids = frozenset({END})
    bos_id, eos_id = BOS, END
    add_bos = True

    def encode(self, text, *, add_bos=None, add_eos=None, parse_special=False, continuation=False):
        ids = list(text.encode("utf-8", "surrogateescape"))
        return ([BOS] if add_bos or (add_bos is None and not continuation) else []) + ids

    def encode_parts(self, parts, *, add_bos=None, continuation=False, guarded=frozenset()):
        from engine.tokenizer import Parse

        ids = [BOS] if add_bos else []
        for text, parse in parts:
            while text:
                found = [(text.find(s), s) for s in SPECIALS if s in text] if parse is Parse.SPECIAL else []
                at, special = min(found, default=(len(text), ""))
                ids += text[:at].encode("utf-8", "surrogateescape")
                ids += [SPECIALS[special]] if special else []
                text = text[at + len(special) :]
        return ids

    def decode(self, ids, skip_special=True):
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")

    def is_special(self, token):
        return token >= 256

    def token_bytes(self, token):
        return bytes([token]) if token < 256 else b""

    def is_end_of_turn(self, token):
        return token in self.end_ids


class FakeDecoder:
    """Whole characters only."""

    def __init__(self):
        self._bytes = b""

    def push(self, token):
        self._bytes += bytes([token]) if token < 256 else b""
        for keep in range(min(4, len(self._bytes) + 1)):
            head = self._bytes[: len(self._bytes) - keep]
            try:
                text = head.decode()
            except UnicodeDecodeError:
                continue
            self._bytes = self._bytes[len(head) :]
            return text
        return ""

    def flush(self):
        text, self._bytes = self._bytes.decode("utf-8", "replace"), b""
        return text


@dataclass(frozen=True)
class FakeChunk:
    start: int
    stop: int
    arrays: dict


@dataclass(frozen=True)
class FakeState:
    tokens: tuple
    chunks: tuple
    logits: object
    hidden: object
    dice_key: bytes


@dataclass
class FakeSession:
    dice_key: bytes = b""
    tokens: list = field(default_factory=list)
    logits: object = None
    hidden: object = None

    @property
    def position(self):
        return len(self.tokens)

    def fork(self):
        return FakeSession(self.dice_key, list(self.tokens), self.logits, self.hidden)

    def truncate(self, n):
        if n != len(self.tokens):
            del self.tokens[n:]
            self.logits = self.hidden = None

    def logits_digest(self):
        return hashlib.blake2b(np.ascontiguousarray(self.logits, "<f4").tobytes(), digest_size=32).hexdigest()


class FakeModel:
    """`step_s` and `prefill_s` are seconds a token; `script` maps the end of a prompt's text to a reply."""

    architecture = "fake"
    unkept_weights = ""

    def __init__(
        self, path, context=4096, version="1", template="fake", step_s=0.0, prefill_s=0.0, script=None, kv="f16",
        source=None,
    ):  # fmt: skip
        self.path, self.name = Path(path), Path(path).stem
        self.context_length, self.vocabulary_size = context, VOCABULARY
        self.tokenizer = FakeTokenizer()
        self.step_s, self.prefill_s, self.script = step_s, prefill_s, dict(script or {})
        self.state_fields = {"tensors": self.name, "numerics": version, "kv_type": kv}
        self.state_key = hashlib.blake2b(repr(self.state_fields).encode(), digest_size=32).hexdigest()
        self.prompt_fields = {"tokenizer": "bytes", "template": template}
        self.prompt_key = hashlib.blake2b(repr(self.prompt_fields).encode(), digest_size=32).hexdigest()
        self._source = source or TEMPLATE
        self.fed = 0  # tokens computed so far, by prefill and step
        self.closed = False

    @property
    def template(self):
        from engine.chat_template import ChatTemplate

        return ChatTemplate(self._source, None, "<s>", "<end>", tuple(SPECIALS))

    @property
    def sampler_defaults(self):
        from engine.sampler import SamplerSettings

        return SamplerSettings()

    def new_session(self, dice_key=b""):
        return FakeSession(dice_key)

    def prefill(self, session, tokens, *, batch_size=512, progress=None, cancel=None):
        tokens = list(tokens)
        if session.position + len(tokens) > self.context_length:
            raise ContextFull(session.position, len(tokens), self.context_length)
        done = 0
        while done < len(tokens) and not (cancel and cancel()):
            chunk = tokens[done : done + batch_size]
            time.sleep(self.prefill_s * len(chunk))
            self._feed(session, chunk)
            done += len(chunk)
            if progress:
                progress(done, len(tokens))
        return done

    def step(self, sessions, tokens, drafts=None):
        """Takes guesses as a remote engine may: it has no use for them."""
        time.sleep(self.step_s)
        for session, token in zip(sessions, tokens, strict=True):
            if session.position + 1 > self.context_length:
                raise ContextFull(session.position, 1, self.context_length)
            self._feed(session, [token])
        return len(sessions)

    def _feed(self, session, tokens):
        session.tokens.extend(tokens)
        self.fed += len(tokens)
        session.logits = self.logits_of(session.tokens)
        session.hidden = session.logits[:8].copy()

    def logits_of(self, tokens):
        """Printable ASCII is likely, the end of a turn is likely after some tokens; a script overrides both."""
        seed = hashlib.blake2b(np.asarray(tokens, "<u4").tobytes() + self.state_key.encode(), digest_size=8).digest()
        logits = np.random.default_rng(int.from_bytes(seed, "little")).normal(-8, 1, VOCABULARY).astype(np.float32)
        logits[97:123] += 8
        logits[32] += 9
        logits[END] = -1e9
        said = self._scripted(tokens)
        if said is not None:
            logits[said] = 100
        return logits

    def _scripted(self, tokens):
        raw = bytes(t for t in tokens if t < 256)
        for prompt, reply in self.script.items():
            at = raw.rfind(prompt.encode())
            if at < 0:
                continue
            so_far = raw[at + len(prompt.encode()) :]
            reply_bytes = reply.encode()
            if len(so_far) <= len(reply_bytes) and reply_bytes.startswith(so_far):
                return END if len(so_far) == len(reply_bytes) else reply_bytes[len(so_far)]
        return None

    def capture(self, session, start=0):
        chunks, at = [], start
        while at < session.position:
            stop = min((at // BLOCK + 1) * BLOCK, session.position)
            chunks.append(FakeChunk(at, stop, {"kv": np.asarray(session.tokens[at:stop], "<u4")}))
            at = stop
        return FakeState(tuple(session.tokens), tuple(chunks), session.logits, session.hidden, session.dice_key)

    def weights_digest(self):
        return self.state_fields["tensors"]

    def restore(self, state):
        at = 0
        for chunk in state.chunks:
            kv = [int(t) for t in chunk.arrays["kv"]]
            if chunk.start != at or kv != list(state.tokens[chunk.start : chunk.stop]):
                raise StateMismatch("kv", kv, state.tokens[chunk.start : chunk.stop])
            at = chunk.stop
        if at != len(state.tokens):
            raise StateMismatch("tokens", at, len(state.tokens))
        return FakeSession(state.dice_key, list(state.tokens), state.logits, state.hidden)

    def close(self):
        self.closed = True


class FakeEngine:
    """Hands out FakeModels; `options` go to each. Sampling is the real sampler."""

    def __init__(self, **options):
        self.options = options
        self.models = []

    def open_model(self, path, *, context=None, kv_type="f16", threads=None, progress=None):
        if progress:
            progress("read", 1, 1)
        options = dict(self.options)
        if context:
            options["context"] = context
        self.models.append(FakeModel(path, kv=kv_type, **options))
        return self.models[-1]

    def open_prompt(self, path):
        return self.open_model(path)

    def state_from_parts(self, tokens, chunks, logits, hidden, dice_key):
        return FakeState(tuple(tokens), tuple(FakeChunk(*c) for c in chunks), logits, hidden, dice_key)

    def stream_decoder(self, model, previous=None):
        return FakeDecoder()

    def settings_from_json(self, values):
        from engine.sampler import SamplerSettings

        return SamplerSettings.from_json(dict(values))

    def sample(self, logits, tokens, settings, dice_key, position, *, model=None):
        from engine.sampler import dry_breakers, sample

        breakers = ()
        if model is not None and settings.dry_multiplier > 0:
            breakers = dry_breakers(model.tokenizer, settings.dry_sequence_breakers)
        return int(sample(logits, tokens, settings, dice_key, position, breakers))

    def likeliest(self, logits, tokens, settings, count, *, model=None):
        from engine.sampler import likeliest

        return likeliest(logits, tokens, settings, count)

    def speculation(self, tokens):
        from engine.speculation import Speculation

        return Speculation(tokens)

    def branch_dice(self, dice_key, index):
        from engine.dice import branch_key

        return branch_key(dice_key, index)

    def new_dice(self):
        return secrets.token_bytes(16)

    def dice_from_seed(self, seed):
        from engine.dice import key_from_seed

        return key_from_seed(seed)
