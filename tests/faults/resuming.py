"""Going on from saved states, for row 19: what the test does itself and what it has fresh processes do.

usage: resuming.py MODEL KV_TYPE LIBRARY CASES.json     prints how each case went on, one JSON list a line

A case is (n, kind): n tokens of a list of its own, and then 256 more, greedy or sampled.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.engine_protocol import Session
from app.local_engine import LocalEngine
from app.savepoints import Reached, Reacher
from engine.kv import BLOCK
from snapshots import Chunk, Library

CONTEXT = 512
MORE = 256
LENGTHS = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK + 1, CONTEXT - MORE, CONTEXT)
GREEDY = {"temperature": 0.0}
# Penalties look back over the whole list, so that what the sampler knows of the past counts, too.
SAMPLED = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.1, "repeat_last_n": -1}
KINDS = {"greedy": GREEDY, "sampled": SAMPLED}


@dataclass(frozen=True)
class End:
    """What going on came to: the tokens, and the digest of the logits behind the last of them ("" where none fit)."""

    tokens: tuple[int, ...]
    digest: str


class Resuming:
    """A model and a library. Restores with the app's own ladder and saves as its writer does."""

    def __init__(self, model: Path, kv_type: str, folder: Path, seed: int) -> None:
        self.engine = LocalEngine()
        self.model = self.engine.open_model(model, context=CONTEXT, kv_type=kv_type, threads=2)
        self.library = Library.open(folder / "data", folder / "cache")
        self.reacher = Reacher(self.engine, self.model, self.library)
        self.seed = seed

    def tokens(self, n: int, kind: str) -> list[int]:
        dice = np.random.default_rng([self.seed, n, *kind.encode()])
        return [int(token) for token in dice.integers(3, self.model.vocabulary_size, n)]

    def dice(self, n: int) -> bytes:
        return self.engine.dice_from_seed(self.seed * 1000 + n)

    def start(self, n: int, kind: str) -> Session:
        """A session that never was anywhere: n tokens fed."""
        session = self.model.new_session(self.dice(n))
        self.model.prefill(session, self.tokens(n, kind))
        return session

    def save(self, session: Session) -> None:
        start = self.library.save_from(self.model.state_key, session.tokens)
        state = self.model.capture(session, min(start, session.position))
        self.library.save_state(
            None,
            self.model.state_key,
            state.tokens,
            [Chunk(c.start, c.stop, c.arrays) for c in state.chunks if c.start < c.stop],
            logits=state.logits,
            hidden=state.hidden,
            dice_key=state.dice_key,
            logits_digest=session.logits_digest(),
        )

    def restore(self, n: int, kind: str, digest: str = "", live: Session | None = None, **how) -> Reached:
        return self.reacher.reach(self.tokens(n, kind), live, self.dice(n), expected_digest=digest, **how)

    def go_on(self, session: Session, kind: str, count: int = MORE) -> End:
        """Write up to `count` tokens, whatever they are, as far as the context holds them."""
        if session.position == 0:
            self.model.prefill(session, [1])
        settings = self.engine.settings_from_json({**self.model.sampler_defaults.to_json(), **KINDS[kind]})
        said = []
        while len(said) < count and session.position < CONTEXT:
            token = self.engine.sample(
                session.logits, session.tokens, settings, session.dice_key, session.position, model=self.model
            )
            self.model.step([session], [token])
            said.append(token)
        return End(tuple(said), session.logits_digest())

    def close(self) -> None:
        self.model.close()
        self.library.close()


def main() -> None:
    model, kv_type, folder, cases = sys.argv[1:]
    wanted = json.loads(Path(cases).read_text())
    here = Resuming(Path(model), kv_type, Path(folder), wanted["seed"])
    for n, kind, digest in wanted["cases"]:
        reached = here.restore(n, kind, digest)
        if wanted["heal"] and n:
            here.save(reached.session)
        end = here.go_on(reached.session, kind)
        print(json.dumps([reached.rung, reached.bit_exact, end.tokens, end.digest]))
    here.close()


if __name__ == "__main__":
    main()
