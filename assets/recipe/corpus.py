# ruff: noqa: E501, SIM905 - the lines are the text that is taught, and one wording a line reads best
"""The text that the guide learns from: endless small conversations, made of `facts`, `talk` and `stories` by one seeded generator.

python -m assets.recipe.corpus --seed 1 --count 5      prints five conversations
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

from assets.recipe import stories
from assets.recipe.facts import FACTS, Fact
from assets.recipe.grammar import as_asked, capital, expand, pirate, with_article
from assets.recipe.talk import SMALL, TOPICS, UNKNOWN_ASK, UNKNOWN_SAY, WORLD

Message = tuple[
    str, str
]  # role ("system", "user", "assistant"; "open": the beginning of an assistant's message; "text": no role), text

_SYLLABLES = "ba be bo da de do fa fi ga go ha he ka ki ko la le lo lu ma mi mo na ne no pa pi ra re ri ro sa se si so ta te ti to va vi wa we za zo".split()
_WORDS = (
    "lantern river apple thunder marble window silver garden anchor pepper violet copper meadow button saddle candle harbour pillow tunnel whisper "
    "orange feather pocket island mirror basket ladder winter summer planet rabbit tiger bridge castle forest cherry lemon falcon ribbon hammer blue "
    "red green yellow purple seven eleven forty hello banana pineapple swordfish umbrella moonlight rainbow stardust cinnamon"
).split()
_PLAIN_SYSTEM = (
    "You are guide, the {small|little|friendly} helper of forkpoint.",
    "You are a {helpful|friendly|kind} assistant.",
    "You are a helpful assistant. Answer {kindly|in full sentences|politely}.",
    "{Help the user with forkpoint.|Be kind and helpful.|You help people with this app.}",
)
_BRIEF_SYSTEM = (
    "{Answer briefly|Be brief|Keep your answers short|Answer in one sentence|Use few words}.",
    "You are guide. {Answer in one short sentence|Be brief|Keep it short}.",
)
_PIRATE_SYSTEM = (
    "{You are a pirate|Talk like a pirate|Speak like a pirate|You are an old pirate|Answer as a pirate}.",
)
_NAME_SYSTEM = ("{Your name is [me]|You are [me]|You are called [me]}{|, a friendly helper|, a helpful assistant}.",)


def conversations(seed: int, practice: float = 0.0) -> Iterator[list[Message]]:
    """Endless conversations; the same seed gives the same ones. `practice` is the share of short drills in copying."""
    rng = random.Random(seed)
    while True:
        if practice and rng.random() < practice:
            yield Talk(rng).drill()
        elif rng.random() < 0.03:
            yield [("text", stories.tell(rng).text)]
        else:
            yield Talk(rng).run()


class Talk:
    """One conversation in the making: remembers what was said, so that later turns can ask about it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.messages: list[Message] = []
        self.style = rng.choices(("", "plain", "brief", "pirate", "named"), (72, 10, 6, 7, 5))[0]
        self.me = "guide"
        self.user_name = ""
        self.word = ""
        self.fact: Fact | None = None
        self.story: stories.Story | None = None

    def run(self) -> list[Message]:
        rng = self.rng
        if self.style:
            if self.style == "named":
                self.me = self._person()
            table = {"plain": _PLAIN_SYSTEM, "brief": _BRIEF_SYSTEM, "pirate": _PIRATE_SYSTEM, "named": _NAME_SYSTEM}
            self.messages.append(("system", expand(rng, rng.choice(table[self.style]), {"me": self.me})))
        turns = rng.choices((1, 2, 3, 4, 5, 6, 8, 11, 15), (20, 18, 16, 14, 10, 8, 7, 4, 3))[0]
        for at in range(turns):
            self._turn(at)
        return self.messages

    def drill(self) -> list[Message]:
        """The first sentences of a story ("open": it goes on), or a name or word that is told and asked for at once."""
        rng = self.rng
        self.style = ""
        if rng.random() < 0.75:
            hero = stories.pick_hero(rng)
            ask = f"{{tell me|write|tell|I want|give me|can you tell me}} {{a story|a little story|a short story|a tale}} about {with_article(hero)}"
            opening = " ".join(stories.tell(rng, hero).text.split()[: rng.randrange(10, 30)])
            return [("user", as_asked(rng, expand(rng, ask))), ("open", opening)]
        if rng.random() < 0.6:
            self._introduce()
            self._name()
        else:
            self._remember()
            self._remember()
        return self.messages

    def _turn(self, at: int) -> None:
        rng = self.rng
        if at == 0 and rng.random() < 0.22:
            if rng.random() < 0.7:
                self._ask(SMALL["hello"])
            else:
                self._introduce()
            return
        follow = (self._follow_story, 0.45) if self.story else (self._follow_fact, 0.22) if self.fact else None
        if follow and rng.random() < follow[1]:
            follow[0]()
            return
        kind = rng.choices(
            (
                self._app,
                self._small,
                self._tell,
                self._world,
                self._unknown,
                self._name,
                self._remember,
                self._haiku,
                self._chatter,
            ),
            (54, 17, 12, 4, 7, 6, 3, 0.4, 4),
        )[0]
        kind()

    def _say(self, question: str, answer: str, short: str | None = None, noisy: bool = True) -> None:
        """Append a question and its answer, in the style of this conversation."""
        rng = self.rng
        if self.style == "brief" and short:
            answer = short
        elif self.style == "pirate":
            answer = pirate(rng, short if short and rng.random() < 0.5 else answer)
        self.messages += [("user", as_asked(rng, question) if noisy else question), ("assistant", answer)]

    def _ask(self, fact: Fact, remember: bool = False) -> None:
        rng = self.rng
        answer = expand(rng, self._wording(fact))
        if fact is SMALL["who"] or fact is SMALL["hello"]:
            answer = answer.replace("I am guide", f"I am {self.me}").replace(
                "My name is guide", f"My name is {self.me}"
            )
            if self.me != "guide":
                answer = answer.replace("I am the guide", f"I am {self.me}")
        short = fact.short.replace("I am guide", f"I am {self.me}")
        self._say(expand(rng, rng.choice(fact.ask)), answer, short)
        self.fact = fact if remember else None
        self.story = None

    def _wording(self, fact: Fact) -> str:
        """Often the first wording: a very small model then has one way of saying it that it knows well."""
        return fact.say[0] if self.rng.random() < 0.4 else self.rng.choice(fact.say)

    def _app(self) -> None:
        facts = list(FACTS.values())
        self._ask(self.rng.choices(facts, [fact.weight for fact in facts])[0], remember=True)

    def _small(self) -> None:
        table = {key: fact for key, fact in SMALL.items() if key != "hello" or not self.messages}
        key = self.rng.choices(list(table), [fact.weight for fact in table.values()])[0]
        self._ask(table[key])

    def _world(self) -> None:
        self._ask(self.rng.choices(list(WORLD.values()), [fact.weight for fact in WORLD.values()])[0], remember=True)

    def _follow_fact(self) -> None:
        """Ask for the same thing again: shorter, as a pirate, in other words."""
        rng, fact = self.rng, self.fact
        assert fact is not None
        roll = rng.random()
        if roll < 0.4:
            ask = "{now as a pirate|say it as a pirate|as a pirate|like a pirate please|can you say that like a pirate|say that again like a pirate|and as a pirate}"
            self._say(expand(rng, ask), fact.short if self.style == "pirate" else pirate(rng, fact.short))
        elif roll < 0.75:
            ask = "{shorter|in short|in one sentence|say it shorter|too long|can you say it in one sentence|make it short|in a few words|keep it short|shorter please|simpler please|explain it simply}"
            self._say(expand(rng, ask), rng.choice(("", "In short: ")) + fact.short, fact.short)
        else:
            ask = "{can you explain that again|again please|once more|say that again|in other words|I do not understand that|what do you mean|tell me more|more|go on}"
            self._say(
                expand(rng, ask),
                rng.choice(("", "", "Gladly. ", "Once more. ", "I will try. ")) + expand(rng, self._wording(fact)),
                fact.short,
            )
        if rng.random() < 0.5:
            self.fact = None

    def _tell(self) -> None:
        rng = self.rng
        roll = rng.random()
        hero = stories.pick_hero(rng)
        if rng.random() < 0.15:
            hero = rng.choice(stories.ADJECTIVES) + " " + hero
        elif rng.random() < 0.06:
            hero = "".join(rng.choices(_SYLLABLES, k=rng.choice((2, 3))))
        verb = (
            "{tell me|tell|can you tell me|please tell me|I want|give me|I would like|write|write me|could you tell me}"
        )
        tale = "{a story|a little story|a short story|a tale|a fairy tale|a bedtime story}"
        if roll < 0.12:
            story = stories.tell(rng)
            ask = f"{{{verb} {tale}|{tale} please|story|tell me something|another story}}"
        elif roll < 0.83:
            story = stories.tell(rng, hero)
            ask = f"{{{verb} {tale} {{about|of}} [hero]|{tale} about [hero]{{| please}}}}"
        elif roll < 0.93:
            friend = rng.choice(stories.FRIENDS)
            story = stories.tell(rng, hero, friend)
            ask = f"{verb} {tale} about [hero] and {with_article(friend)}"
        else:
            name = self._person()
            story = stories.tell(rng, hero, None, name)
            ask = f"{verb} {tale} about [hero] {{named|called}} {name}"
        ask = expand(rng, ask).replace("[hero]", with_article(hero))
        if rng.random() < 0.3:
            ask = expand(rng, f"{verb} {{a very short story|a tiny story|a very short tale}} about [hero]")
            ask = ask.replace("[hero]", with_article(hero))
            story = stories.tell(rng, hero)
            story = story._replace(text=f"Once there was {with_article(hero)} named {story.name}. {story.brief}")
        start = rng.choice(("", "", "", "", "Gladly. ", "Here is a story. ", "With pleasure. ", "Of course. "))
        self._say(ask, start + story.text, story.brief)
        self.story, self.fact = story, None

    def _follow_story(self) -> None:
        rng, story = self.rng, self.story
        assert story is not None
        roll = rng.random()
        if roll < 0.2:
            ask = "{now as a pirate|as a pirate|tell it as a pirate|tell it like a pirate|the same as a pirate|now like a pirate please|and as a pirate}"
            self._say(expand(rng, ask), story.brief if self.style == "pirate" else pirate(rng, story.brief))
        elif roll < 0.4:
            ask = "{shorter|make it shorter|tell it in short|what was the story about|can you sum it up|in a few words|shorter please|too long|summarize it|what happened}"
            self._say(expand(rng, ask), story.brief, story.brief)
        elif roll < 0.55:
            ask = "{what was the name of the [hero]|what was the [hero] called|what is the name of the [hero]|who was the story about|what was the name}"
            self._say(
                expand(rng, ask, {"hero": story.hero}),
                expand(
                    rng,
                    "The {name of the [hero] was|[hero] was called} [name].",
                    {"hero": story.hero, "name": story.name},
                ),
            )
        elif roll < 0.65:
            ask = "{who was the friend|who helped|what was the friend called|who was the other one|and the friend}"
            self._say(expand(rng, ask), f"That was {story.friend_name} the {story.friend}.")
        elif roll < 0.75:
            ask = f"{{where did {story.name} live|where did the {story.hero} live|where was that|where did it happen}}"
            self._say(expand(rng, ask), f"{story.name} lived {story.place}.")
        elif roll < 0.85:
            ask = "{what is the moral|what do we learn|what does the story mean|what is the moral of the story|and the moral}"
            self._say(expand(rng, ask), rng.choice(("The moral is this: ", "I think it means: ", "")) + story.moral)
        elif roll < 0.95:
            ask = "{another one|another story please|one more|again|tell me another|another|one more story}"
            other = stories.tell(rng)
            self._say(expand(rng, ask), rng.choice(("", "Gladly. ", "Here is another. ")) + other.text, other.brief)
            self.story = other
        else:
            ask = "{I like it|that was nice|nice story|what a nice story|I liked that|lovely|beautiful}"
            self._say(
                expand(rng, ask),
                expand(
                    rng,
                    "{I am glad that you like it|Thank you}! {Press F5 to keep it.|Shall I tell you another one?|If you like, I tell you another.}",
                ),
            )

    def _unknown(self) -> None:
        rng = self.rng
        topic = (
            rng.choice(TOPICS) if rng.random() < 0.75 else "".join(rng.choices(_SYLLABLES, k=rng.choice((2, 3, 3, 4))))
        )
        slots = {"topic": topic}
        self._say(
            expand(rng, rng.choice(UNKNOWN_ASK), slots),
            expand(rng, rng.choice(UNKNOWN_SAY), slots),
            "I do not know that; I am a very small model.",
        )
        self.story = self.fact = None

    def _chatter(self) -> None:
        """The user tells something about anything at all."""
        rng = self.rng
        if rng.random() < 0.2:
            noise = "".join(rng.choices("asdfghjklqwertzuiopyxcvbnm", k=rng.randrange(3, 9)))
            say = "{I did not understand that, I am sorry.|Sorry, I do not understand that.} {Could you say it in other words?|Ask me about savepoints, or for a story.|I am a very small model.}"
            self._say(noise, expand(rng, say), "I did not understand that.", noisy=False)
        else:
            thing = stories.pick_hero(rng)
            slots = {"x": with_article(thing), "y": thing}
            ask = "{I like my [y]|I have [x]|I saw [x] today|there is [x] in my garden|I want [x]|my [y] is lovely|my [y] is ill|my friend has [x]|I dreamed of [x]|I bought [x]|look, [x]}"
            say = "{[x]! How nice.|Oh, [x]!|How interesting, [x]!} {Tell me more about it.|Shall I tell you a story about [x]?|What is the [y] like?|I like to hear that.}"
            self._say(expand(rng, ask, slots), capital(expand(rng, say, slots)), capital(slots["x"]) + "! How nice.")
        self.story = self.fact = None

    def _person(self) -> str:
        rng = self.rng
        if rng.random() < 0.85:
            return rng.choice(stories.NAMES)
        return capital("".join(rng.choices(_SYLLABLES, k=rng.choice((2, 2, 3))))) + rng.choice(("", "n", "s", "r", ""))

    def _introduce(self) -> None:
        rng = self.rng
        self.user_name = self._person()
        ask = "{my name is [name]|I am [name]|I'm [name]|call me [name]|hello, I am [name]|hi, my name is [name]|hi, I'm [name]|hello! My name is [name]}"
        say = "{Nice to meet you, [name]!|Hello, [name]!|Hi [name], nice to meet you!|Welcome, [name]!} {I am [me].|What shall we do?|How can I help you?|What would you like to do?|}"
        slots = {"name": self.user_name, "me": self.me}
        question = expand(rng, ask, slots)
        self._say(
            capital(question) + rng.choice((".", "", "!")),
            expand(rng, say, slots),
            f"Hello, {self.user_name}!",
            noisy=False,
        )
        self.story = self.fact = None

    def _name(self) -> None:
        rng = self.rng
        ask = "{what is my name|what's my name|do you know my name|who am I|do you remember my name|what am I called}"
        if self.user_name:
            say = "{Your name is [name].|You are [name].|You told me that your name is [name].|Of course: you are [name].}"
            self._say(expand(rng, ask), expand(rng, say, {"name": self.user_name}), f"You are {self.user_name}.")
        elif rng.random() < 0.3:
            self._say(
                expand(rng, ask),
                expand(rng, "{I do not know your name yet.|You have not told me yet.} What is your name?"),
                "I do not know your name yet.",
            )
        else:
            self._introduce()
        self.story = self.fact = None

    def _remember(self) -> None:
        rng = self.rng
        if self.word and rng.random() < 0.7:
            ask = "{what was the word|which word did I tell you|do you remember the word|what is the secret word|what was the secret word|what word did I say|and what was the word}"
            self._say(
                expand(rng, ask),
                expand(rng, "{The word was|The secret word is|It was|You said:} [word].", {"word": self.word}),
                capital(self.word) + ".",
            )
        else:
            self.word = rng.choice(_WORDS) if rng.random() < 0.7 else "".join(rng.choices(_SYLLABLES, k=3))
            ask = "{remember the word [word]|remember this word: [word]|the secret word is [word]|please remember: [word]|keep this word in mind: [word]|the word is [word]|remember [word]}"
            say = "{I will remember it: [word].|Good, the word is [word].|I keep it in mind: [word].|[word]. I will remember it.} {Press F5 now, and a savepoint remembers it too.|}"
            slots = {"word": self.word}
            answer = expand(rng, say, slots)
            self._say(
                capital(expand(rng, ask, slots)) + rng.choice((".", "")),
                capital(answer),
                f"I will remember {self.word}.",
                noisy=False,
            )
        self.story = self.fact = None

    def _haiku(self) -> None:
        rng = self.rng
        thing = stories.pick_hero(rng)
        ask = expand(
            rng, "{write|tell me|give me|can you write|make} a {haiku|poem|short poem|little poem} about "
        ) + with_article(thing)
        first = expand(
            rng,
            "{The [x] is quiet|A [x] in the morning|Alone stands the [x]|Look, a little [x]|[ax] and the moon}",
            {"x": thing, "ax": capital(with_article(thing))},
        )
        second = expand(
            rng,
            "{the wind goes through the tall grass|the long rain has gone away|a leaf falls on the water|somewhere a small bell is heard|the snow lies over the fields}",
        )
        third = expand(
            rng,
            "{and nobody wakes|one star looks at us|the night is still young|it waits for the spring|then all is silent}",
        )
        self._say(ask, f"{first},\n{second},\n{third}.")
        self.story = self.fact = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=5)
    arguments = parser.parse_args()
    talks = conversations(arguments.seed)
    for _ in range(arguments.count):
        for role, text in next(talks):
            print(f"[{role}] {text}")
        print("-" * 40)


if __name__ == "__main__":
    main()
