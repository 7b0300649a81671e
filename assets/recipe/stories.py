# ruff: noqa: E501, SIM905 - the lines are the text that is taught, and one wording a line reads best
"""Little stories: a dozen plots, each sentence in several wordings, about any hero that is asked for."""

from __future__ import annotations

import random
from typing import NamedTuple

from assets.recipe.grammar import capital, expand, with_article

HEROES = (
    "cat dog fox bear wolf rabbit mouse owl frog duck hen horse cow pig sheep goat lion tiger elephant monkey bird turtle snail bee ant spider whale "
    "fish crab seal penguin hedgehog squirrel deer donkey crow swan goose camel dragon unicorn giant wizard witch knight king queen prince princess pirate "
    "sailor baker farmer robot ghost monster boy girl child grandmother grandfather teacher painter gardener clown fairy mermaid snowman tree cloud star "
    "moon river mountain stone leaf flower boat train car clock lamp book pencil teapot spoon chair shoe hat kite balloon computer bell key door "
    "candle umbrella drum violin bicycle rocket spaceship astronaut detective cook doctor hamster parrot kitten puppy dinosaur octopus butterfly "
    "beetle bat raccoon otter beaver moose goldfish lighthouse castle bridge pumpkin potato apple cake cookie sandwich toaster vampire ninja alien"
).split()
FRIENDS = HEROES[:24] + "king queen baker farmer girl boy teacher grandmother".split()
ADJECTIVES = "little small brave shy old young kind clever lazy hungry happy sad lonely curious tiny big red blue grey green white black silly proud quiet funny sleepy".split()
HE_NAMES = (
    "Milo Oscar Finn Max Leo Tom Ben Otto Felix Sam Theo Jack Oliver Toby Pip Bruno Rufus Jasper Gus Henry Arthur Emil Noah Paul Peter Adam Hugo "
    "Alan Linus John David Martin Simon Mark Robert Daniel Amir Kenji Ravi Chen Omar Ivan"
).split()
SHE_NAMES = (
    "Luna Bella Ruby Lily Rosa Anna Clara Emma Ida Nora Mia Zoe Ella Maya Alice Daisy Olive Hazel Poppy Ivy Lucy Sara Greta Eva Lena Ada Grace Mary "
    "Kate Julia Laura Nina Helen Vera Sophie Carol Fatima Yuki Priya Mei Leila Olga"
).split()
NAMES = HE_NAMES + SHE_NAMES
# Stories use few names, heroes and friends other ones: so a very small model learns sooner to keep to a name.
_HE_HEROES, _SHE_HEROES = HE_NAMES[:5], SHE_NAMES[:5]
_HE_FRIENDS, _SHE_FRIENDS = HE_NAMES[5:9], SHE_NAMES[5:9]
PLACES = (
    "in a small village|in a green forest|in a house by the sea|in a quiet valley|in an old castle|in a busy town|in a cave in the hills|on a farm|"
    "in a garden full of flowers|on an island|in a tall tower|in a little hut near a lake|in a snowy land|near a harbour|in a wide meadow|in a street with yellow lamps"
).split("|")
THINGS = "golden key|red ball|silver bell|old map|warm scarf|small lamp".split("|")
FOODS = "apples|bread|honey cake|berries|soup|nuts|pears|cookies".split("|")


_MALE = ("wizard", "king", "prince", "boy", "grandfather", "knight")
_FEMALE = ("witch", "queen", "princess", "girl", "grandmother", "mermaid", "fairy", "cow", "hen")


class Story(NamedTuple):
    """A told story with what one may ask about it."""

    text: str
    brief: str
    hero: str
    name: str
    place: str
    friend: str
    friend_name: str
    moral: str


# Each plot: sentences in order, then the story in short, then its moral.
PLOTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (
            "One {day|morning}, [name] lost [his] [thing].|One {day|morning}, the [thing] of [name] was gone.",
            "[He] looked {under the bed|behind the door|in every corner} and {in the garden|under every stone|on the roof}, but it was not there.",
            "{[name] sat down and cried.|[name] was very sad.|[name] did not know what to do.}",
            "Then [a_friend] named [friend_name] came by.",
            '"{Why are you sad|What is wrong}?" asked [friend_name]. "I have lost my [thing]," said [name].',
            '"{Let us look together|I will help you|Two can see more than one}," said [friend_name].',
            "They {walked|looked} all day, and in the evening they found it {under an old tree|beside the well|in the tall grass|near the river}.",
            "[name] {laughed and danced|was so happy that [he] sang|thanked [friend_name] with all [his] heart}.",
            "{From that day on|After that}, [name] and [friend_name] were {the best of friends|good friends}.",
        ),
        "[name] the [hero] lost [his] [thing]. [friend_name] the [friend] helped to look for it. They found it and became friends.",
        "Two can see more than one.",
    ),
    (
        (
            "[name] was afraid of {the dark|the night}.|{The dark|The night} made [name] afraid.",
            "Every evening [he] {hid under a blanket|closed [his] eyes|lit a candle} and {waited for the sun|did not move}.",
            "One night, [he] heard a {small|soft} voice outside. {Somebody was crying.|Somebody called for help.}",
            "It was [a_friend] named [friend_name], who had lost the way home.",
            "[name] took [his] [thing] and went out, {step by step|slowly|with a beating heart}.",
            '"{Do not be afraid|Come with me}," said [name]. "{I know the way|I will walk with you}."',
            "Together they {looked at the stars|counted the stars} and walked {through the dark|over the hill}.",
            "{When they came to the house of [friend_name]|When they arrived}, [name] saw that {the night was beautiful|the dark was only quiet}.",
            "{From then on|Since that night}, [he] {was not afraid any more|liked the night best of all}.",
        ),
        "[name] the [hero] was afraid of the dark. One night [he] helped [friend_name] to find the way home. After that [he] was not afraid any more.",
        "You are brave when you help a friend.",
    ),
    (
        (
            "[name] had {a big basket of|a lot of} [food].|In the house of [name] there was {a big basket of|a table full of} [food].",
            '"{All of it is mine|This is all for me}," [he] said, and [he] {closed the door|told nobody}.',
            "Then winter came, and it was {cold and quiet|very cold}.",
            'One evening [a_friend] named [friend_name] knocked at the door. {[friend_name] was hungry.|"I am so hungry," said [friend_name].}',
            '[name] {thought for a long time|looked at the [food]|did not like to share}. Then [he] {opened the door wide.|said, "Come in."}',
            "They sat {by the fire|at the table} and ate [food], and [friend_name] told {funny stories|a long story|stories of far lands}.",
            "{It was the best evening of the winter.|[name] had never laughed so much.}",
            "{Now|Since then} [name] {always leaves the door open|shares everything with [friend_name]}.",
        ),
        "[name] the [hero] did not want to share [his] [food]. Then hungry [friend_name] came in winter, and they ate together. It was the best evening of all.",
        "Food tastes better when you share it.",
    ),
    (
        (
            "[name] had {one big dream|a dream}: [he] wanted to {see the sea|fly|climb the highest hill|sail around the world}.",
            '"{That is too hard for you|You cannot do that|You are dreaming}," said {the others|everybody}.',
            "But [name] {did not listen|did not give up}. {Every day|Each morning} [he] {tried a little|worked a little}.",
            "{First it went wrong.|The first time it went wrong.} [He] {fell into the mud|got wet and cold|got lost}, {and everybody laughed|but [he] got up again}.",
            'Only [a_friend] named [friend_name] {did not laugh|believed in [him]}. "{Try once more|I will help you|Let us try together}," said [friend_name].',
            "So they {built a little boat|made wings of paper|made a long rope|followed an old map} and tried again.",
            "And one {bright|clear|fine} morning, it {worked|really worked}! [name] {shouted with joy|could not believe it}.",
            '{In the evening|At home} [he] said: "{It was hard, and it was worth it|I am glad that I did not give up|Thank you, my friend}."',
        ),
        "[name] the [hero] had a big dream, and everybody laughed. Only [friend_name] helped. They tried again and again until it worked.",
        "Do not give up too soon.",
    ),
    (
        (
            "{One day|One morning}, [name] found {a strange door|a small door|an old door} {in a tree|behind a hill|in the wall}.",
            "[He] knocked {once|three times}, and the door {opened by itself|opened slowly}.",
            "Behind it was {a room full of clocks|a garden made of glass|a hall full of music|a stair that went down and down}.",
            "In the middle sat [a_friend] named [friend_name], {who had waited there for a hundred years|all alone}.",
            '"{You may take one thing|You may make one wish}," said [friend_name]. "{Choose well|Think about it}."',
            "[name] saw {gold and silver|gold and jewels}, but [he] {thought of [friend_name], who was alone|looked at the sad eyes of [friend_name]}.",
            '"{I wish that you come with me|Then I choose you as my friend}," said [name].',
            "{The walls shook, and|There was a bright light, and} they stood {outside in the sun|under the blue sky}.",
            "[friend_name] {smiled for the first time|laughed}. They {went home together|walked home hand in hand}.",
        ),
        "[name] the [hero] found a door and behind it [friend_name], who was all alone. [name] could choose gold, but [he] chose a friend.",
        "A friend is better than gold.",
    ),
    (
        (
            '[name] {always told everybody|said to everybody}: "I am the {fastest|strongest|cleverest} of all."',
            '{One day|Then} [a_friend] named [friend_name] said: "{Let us see.|Shall we find out?|I should like to see that.}"',
            "They {made a race to the old mill|agreed on a race around the lake|chose a race up the hill}.",
            "[name] {ran far ahead|was soon far ahead} and {lay down to sleep|stopped to eat [food]|stopped to look into the water}.",
            "[friend_name] was slow, but {did not stop|went on step by step}.",
            "{When [name] looked up|When [name] woke up}, [friend_name] {was already there|had already won}.",
            "[name] {was red with anger at first|wanted to be angry}, but then [he] {had to laugh|laughed}.",
            '"{You have won|Well done}," said [he]. "{I have learned something today|Next time I will not sleep}."',
            "They ate [food] together, and {nobody spoke of being the best|[name] never boasted again}.",
        ),
        "[name] the [hero] boasted too much. [friend_name] was slow but did not stop, and won the race. [name] learned to laugh about it.",
        "Slow and steady is better than proud.",
    ),
    (
        (
            "{One day|One afternoon}, the rain {began|started} and did not stop.",
            "The river {rose and rose|grew bigger and bigger}, and {the bridge was gone|the water came to the doors}.",
            "{Everybody was afraid.|Nobody knew what to do.} But [name] had an idea.",
            '"{We need a boat|Bring me wood and rope|Let us build a boat}!" [he] said. {[friend_name] the [friend] helped at once.|And [friend_name] the [friend] brought a rope.}',
            "They worked all night, {with wet hands|by the light of a lamp|and nobody slept}.",
            "In the morning, {the boat was ready|the boat could swim}. One after another, they brought everybody {to the hill|to dry land}.",
            "Then the sun came out, and {there was a rainbow over the water|a rainbow stood in the sky}.",
            "{They gave [name] [a_thing]|Everybody thanked [name]}, and [friend_name] {sang a song about it|told the story for years}.",
        ),
        "When the river rose, [name] the [hero] and [friend_name] built a boat in one night. In the morning they brought everybody to dry land.",
        "A good idea and good friends can save the day.",
    ),
    (
        (
            "Nobody had ever heard [name] {sing|play music}, for [he] {was too shy|sang only when [he] was alone}.",
            "{One evening|One summer evening}, [a_friend] named [friend_name] {walked by and heard it|listened behind the hedge}.",
            '"{That is beautiful|How lovely}!" said [friend_name]. [name] {turned red|wanted to hide}.',
            '"{Please sing at the feast|Come and sing for all of us}," said [friend_name]. "{I will stand beside you|I will hold your hand}."',
            "On the day of the feast, {the knees of [name] were shaking|[name] could hardly breathe}.",
            "[He] closed [his] eyes and began, {very softly at first|first softly, then louder}.",
            "{It grew quiet.|Everybody stopped talking.} {Even the birds listened.|Even the wind stood still.}",
            "When the song was over, {they all clapped and cheered|the cheering would not end}.",
            '"{That was not so bad|I want to do it again}," said [name], and [friend_name] {smiled|laughed}.',
        ),
        "[name] the [hero] was too shy to sing. [friend_name] stood beside [him] at the feast, and the song was so fine that everybody cheered.",
        "Show what you can do; a friend will stand beside you.",
    ),
)


def pick_hero(rng: random.Random) -> str:
    """Mostly one of the heroes that people ask for first."""
    return rng.choice(HEROES[:24] if rng.random() < 0.85 else HEROES)


def tell(rng: random.Random, hero: str | None = None, friend: str | None = None, name: str | None = None) -> Story:
    """Tell one story of about 80 to 150 words."""
    shown = hero or (rng.choice([rng.choice(ADJECTIVES) + " ", ""]) + pick_hero(rng))
    noun = shown.split()[-1]
    friend = friend or rng.choice([other for other in FRIENDS if other != noun])
    male = name in HE_NAMES if name in NAMES else noun in _MALE or (noun not in _FEMALE and rng.random() < 0.5)
    name = name or rng.choice(_HE_HEROES if male else _SHE_HEROES)
    he, his, him = ("he", "his", "him") if male else ("she", "her", "her")
    names = _HE_FRIENDS if friend in _MALE else _SHE_FRIENDS if friend in _FEMALE else _HE_FRIENDS + _SHE_FRIENDS
    slots = {
        "hero": noun, "a_hero": with_article(shown), "name": name, "friend": friend, "a_friend": with_article(friend),
        "friend_name": rng.choice([other for other in names if other != name]), "he": he, "his": his, "him": him,
        "place": rng.choice(PLACES), "thing": rng.choice(THINGS), "food": rng.choice(FOODS),
    }  # fmt: skip
    slots["a_thing"] = with_article(slots["thing"])
    sentences, brief, moral = rng.choice(PLOTS)
    opening = rng.choice(
        (
            "{Once upon a time|Once|Long ago}, there was [a_hero] named [name]. [He] lived [place].",
            "{Once upon a time|Once}, [place], there lived [a_hero] named [name].",
            "[Place] there lived [a_hero]. {[His] name was [name].|Everybody called [him] [name].}",
        )
    )
    parts = [_fill(rng, part, slots) for part in (opening, *sentences)]
    if rng.random() < 0.35:
        parts.append(
            rng.choice(
                ("The end.", "And that is the end of the story.", "And if they are not tired, they are laughing still.")
            )
        )
    elif rng.random() < 0.3:
        parts.append(moral)
    at = rng.randrange(3, 6)
    gap = "\n\n" if rng.random() < 0.5 else " "
    text = " ".join(parts[:at]) + gap + " ".join(parts[at:])
    return Story(text, _fill(rng, brief, slots), noun, name, slots["place"], friend, slots["friend_name"], moral)


def _fill(rng: random.Random, sentence: str, slots: dict[str, str]) -> str:
    """One wording of the sentence. A bar outside braces separates whole wordings; [He] and the like take a capital."""
    depth, cuts, start = 0, [], 0
    for at, sign in enumerate(sentence):
        depth += (sign == "{") - (sign == "}")
        if sign == "|" and depth == 0:
            cuts.append(sentence[start:at])
            start = at + 1
    sentence = rng.choice([*cuts, sentence[start:]])
    for key in ("he", "his", "him", "place"):
        sentence = sentence.replace("[" + key.capitalize() + "]", capital(slots[key]))
    text = expand(rng, sentence)
    for key, value in slots.items():
        text = text.replace("[" + key + "]", value)
    return text.replace("  ", " ")
