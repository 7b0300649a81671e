"""What guessing ahead (prompt lookup) does to the speed of replies of several kinds, beside the same reply without.

    python tests/bench/guessing.py MODEL.gguf [--rounds 7] [--tokens 200] [--threads 2] [--json]

"dictated" replies are texts put into the model's mouth: what the sampler chooses is paid for and thrown away, so the
text is the same for every model. "free" ones are the model's own, greedy and at temperature 0.8. With and without
guessing in turn, the order changes from round to round; medians of the rounds' ratios, above 1 guessing is faster.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app.benchmark import _Dictation
from app.generation import Decoding, Reply, Writing, generate
from app.local_engine import LocalEngine
from engine.model import Model
from engine.sampler import SamplerSettings

# Texts of our own, of none of which the speculation's numbers were made.
DOCUMENT = (
    "The harbour master keeps a list of every boat that comes in. He writes down its name, where it came from, and "
    "what it carried. In the evening he reads the list aloud to his daughter, who draws each boat in a blue "
    "notebook. When the notebook is full they walk to the end of the pier and count the lights of the fishing fleet. "
)
EDITED = DOCUMENT.replace("boat", "ship").replace("blue", "small green").replace("evening", "morning")
FRESH = (
    "A clockmaker once bet his neighbour that winter would forget their village. Snow fell anyway, softly, over "
    "chimneys and unlit lanterns; by March nobody recalled who had won. Her grandson later found seventeen brass "
    "springs inside an empty beehive, wondered briefly, and sold them for bread, onions, candle wax plus one ticket. "
)
CODE = "".join(
    f"def {name}(self, value):\n    if value is None:\n        raise ValueError('no {name}')\n"
    f"    return self._{name}\n\n"
    for name in ("width", "height", "depth", "colour", "weight")
)
LIST = "".join(
    f"{i}. {what}: see page {7 * i + 3}.\n" for i, what in enumerate(["tides", "winds", "knots", "sails", "ropes"], 1)
)
DIALOGUE = "".join(
    f"Anna: {a}\nBen: {b}\n"
    for a, b in (
        ("Where were you?", "At the market, buying fish."),
        ("What did it cost?", "More than last week, I am afraid."),
        ("Will you cook tonight?", "If you wash up afterwards."),
    )
)
# name: (prompt, reply)
DICTATED = {
    "fresh text": ("Tell me something new.", FRESH),
    "a quoted document": (DOCUMENT, DOCUMENT),
    "the same with small edits": (DOCUMENT, EDITED),
    "code": ("Write the accessors.\n", CODE),
    "a list": ("Make a list.\n", LIST),
    "a dialogue": ("Write a dialogue.\n", DIALOGUE),
}
FREE = {"free, greedy": 0.0, "free, temperature 0.8": 0.8}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=200, help="most tokens of a reply")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = Model.open(options.model, context=1024, threads=options.threads)

    def encoded(text):
        return model.tokenizer.encode(text, add_eos=False, continuation=True)

    def reply_of(prompt, said, temperature, speculate):
        """(seconds a token, the reply)"""
        session = model.new_session(bytes(16))
        model.prefill(session, model.tokenizer.encode(prompt, add_eos=False))
        engine = LocalEngine() if said is None else _Dictation(said, session.position)
        limit = options.tokens if said is None else min(options.tokens, len(said))
        settings = SamplerSettings(temperature=temperature)
        writing = Writing(engine, model, session, settings, Reply(), Decoding.begin(engine, model, ()), limit)
        begin = time.perf_counter()
        reply = generate(writing, speculate=speculate)
        return (time.perf_counter() - begin) / max(1, len(reply.tokens)), reply

    kinds = {name: (prompt, encoded(said), 0.8) for name, (prompt, said) in DICTATED.items()}
    kinds |= {name: ("Once upon a time there was", None, temperature) for name, temperature in FREE.items()}
    found = {}
    for name, (prompt, said, temperature) in kinds.items():
        times, replies = {False: [], True: []}, {}
        for turn in range(options.rounds + 1):
            for speculate in (False, True) if turn % 2 else (True, False):
                seconds, replies[speculate] = reply_of(prompt, said, temperature, speculate)
                if turn:  # the first is for warmth
                    times[speculate].append(seconds)
        if replies[False].tokens != replies[True].tokens:
            raise SystemExit(f"{name}: guessing changed the reply")
        found[name] = {
            "tokens": len(replies[True].tokens),
            "plain_us": round(1e6 * statistics.median(times[False]), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(times[False], times[True], strict=True)), 3),
            "drafted": replies[True].drafted,
            "accepted": replies[True].accepted,
        }
    model.close()
    if options.json:
        print(json.dumps(found))
        return
    print(f"{options.model}: {model.threads} threads, {options.rounds} rounds")
    for name, row in found.items():
        print(
            f"  {name:28} {row['tokens']:4} tokens, {row['plain_us']:9.1f} µs each without, {row['ratio']:.2f} times as"
            f" fast with; {row['accepted']} of {row['drafted']} guesses came true"
        )


if __name__ == "__main__":
    main()
