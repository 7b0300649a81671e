"""Ask the checkpoint some questions and print its answers, to be read by a person.

    python -m assets.recipe.try_it WORK [--temperature 0.7] [--talk "hello" "tell me a story about a cat"]

Without --talk each built-in question is a conversation of its own; with it, the given messages are one conversation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sentencepiece
import torch

from assets.recipe.network import Network, Shape
from assets.recipe.prepare import END, ROLES, encode, load_vocabulary

QUESTIONS = (
    "What is a savepoint?", "How do I fork?", "What does F5 do?", "hello", "tell me a story about a cat",
    "where are my files?", "how do i save", "What is the difference between F5 and F9?", "Who are you?",
    "what can you do", "What are the dice?", "How do I go back?", "I want another answer",
    "What happens if my computer crashes?", "Tell me a story about two robots on the moon", "Explain tides.",
    "What is the capital of France?", "thank you!", "my name is Barbara", "which commands are there?",
    "What does Ctrl+T do?", "I am sad", "how can I use a bigger model?", "delete a branch",
    "write a poem about a dog", "what is the temperature", "how long can we talk?",
    "What is a branch and how do I make one?", "Is my data private?", "what does /undo do", "how do I quit?",
    "what's a token",
)  # fmt: skip


def answer(
    network: Network,
    vocabulary: sentencepiece.SentencePieceProcessor,
    talk: list[tuple[str, str]],
    temperature: float,
    limit: int = 260,
) -> str:
    """One reply; greedy at temperature 0, otherwise min-p 0.05."""
    tokens = [*encode(vocabulary, talk)[0], vocabulary.piece_to_id(ROLES["assistant"])]
    stops = {vocabulary.piece_to_id(END), vocabulary.eos_id()}
    reply: list[int] = []
    with torch.no_grad():
        while len(reply) < limit:
            logits = network.logits(network(torch.tensor([[*tokens, *reply][-network.shape.context :]]))[0, -1])
            if temperature:
                chance = torch.softmax(logits / temperature, -1)
                chance[chance < 0.05 * chance.max()] = 0
                token = int(torch.multinomial(chance, 1))
            else:
                token = int(logits.argmax())
            if token in stops:
                break
            reply.append(token)
    return vocabulary.decode(reply)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--talk", nargs="+")
    parser.add_argument("--system", default="")
    parser.add_argument("--count", type=int, default=len(QUESTIONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    saved = torch.load(arguments.work / "guide.pt", weights_only=True)
    network, vocabulary = Network(Shape(**saved["shape"])), load_vocabulary(arguments.work)
    network.load_state_dict(saved["weights"])
    print(saved["log"])
    talk: list[tuple[str, str]] = []
    for question in arguments.talk or QUESTIONS[: arguments.count]:
        if not arguments.talk or not talk:
            talk = [("system", arguments.system)] if arguments.system else []
        talk.append(("user", question))
        reply = answer(network, vocabulary, talk, arguments.temperature)
        talk.append(("assistant", reply))
        print(f"> {question}\n  {reply}\n", flush=True)


if __name__ == "__main__":
    main()
