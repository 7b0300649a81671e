"""Guessing what comes next from what was said before, and whether feeding the guesses along pays.

Prompt lookup (Saxena 2023): where the newest tokens stood before, what followed then may follow again. A guess cannot
change a result: the model computes it beside the token that is fed anyway (`Model.step`), and only a token that the
sampler really chose is recorded. So all that is decided here is time.

How often guesses come true is counted also while none is fed along: that costs a comparison. What a pass over so many
rows takes is measured, and what goes on between two passes. A draft is as long as promises the most tokens a second,
or empty. Where nothing was repeated for a while this sleeps, longer each time: a token then costs a subtraction.
Whoever wakes up in the middle of a repetition sees it at once, by the length of the match.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

MOST_GUESSES = 15
_WIDTH = array("I").itemsize
_MOST_LOOKED_AT = 8  # earlier places that a guess is chosen from
_LONGEST_MATCH = 16  # longer matches are not told apart
_RATE_STEP = 1 / 12
_COST_STEP = 1 / 4
_ROW_COST = 0.15  # what a row more is taken to cost, in passes of one row, until it was measured
_LOOKED_OVER_EVERY = 32  # passes of one row
_HOPELESS = 0.05  # a guess less likely than this is not thought about
_AWAKE = 8  # looks that are made for every token, though no guess came true
_SHORTEST_SLEEP, _LONGEST_SLEEP = 4, 32  # tokens
_WAKING_MATCH = 4  # tokens: as many in a row are no accident
_TIMED_EVERY = 4  # passes of one row
_WORTH = 1.12  # a draft must promise this much
_FORGOTTEN_AFTER = 128  # passes; a cost that was measured longer ago may have been an accident


class PromptLookup:
    """Finds where the newest tokens stood before. Mutable: `extend` as tokens come.

    Looks through the tokens' bytes, a gigabyte a second, and keeps no table: making one of a prompt in front of every
    reply cost a small model three tokens in a hundred.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._bytes = bytearray()  # of the same tokens
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Add the next tokens."""
        new = array("I", tokens)
        self._tokens += new
        self._bytes += new.tobytes()

    def find(self) -> tuple[int, int]:
        """(where the longest of the latest matches ended, its length ≥ 2); (-1, 0) where the last pair is new."""
        tokens, at = self._tokens, len(self._tokens) - 1
        found, longest = -1, 0
        if at < 1:
            return found, longest
        pair, place = bytes(self._bytes[-2 * _WIDTH :]), at
        for _ in range(_MOST_LOOKED_AT):
            place = self._before(pair, place)
            if place < 1:
                break
            length = 2
            while length < min(_LONGEST_MATCH, place + 1) and tokens[place - length] == tokens[at - length]:
                length += 1
            if length > longest:
                found, longest = place, length
                if length == _LONGEST_MATCH:
                    break
        return found, longest

    def _before(self, pair: bytes, place: int) -> int:
        """Where the latest such pair ended in front of `place`; 0 if nowhere."""
        end = _WIDTH * place
        while (start := self._bytes.rfind(pair, 0, end)) % _WIDTH and start > 0:  # the end of one token, and the next
            end = start + len(pair) - 1
        return start // _WIDTH + 1

    def following(self, place: int, count: int) -> list[int]:
        """The `count` tokens that followed a match; one that runs into the present goes on in circles."""
        period = len(self._tokens) - 1 - place
        seen = self._tokens[place + 1 : place + 1 + count]
        while len(seen) < count:
            seen += seen[len(seen) - period : len(seen) - period + count - len(seen)]
        return seen


class Speculation:
    """The guesses for one reply. While `asleep` says so, nothing is asked or told; else ask `draft` in front of each
    step and tell `took` behind it.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self.drafted = 0  # guesses that were fed along
        self.accepted = 0  # of these, such as came true
        self._tokens = tokens  # the session's list, which grows
        self._lookup = PromptLookup(tokens)
        self._seen = len(tokens)
        self._open: list[int] = []  # guesses that were fed along and may still come true
        self._expected: tuple[int, int] | None = None  # (match length, token) that would be guessed now
        self._awake = _AWAKE  # looks that are still made, though no guess came true
        self._sleep = _SHORTEST_SLEEP
        self._left = 0  # tokens to sleep
        # The longer the match, the likelier the guess; by match length.
        self._rates = [0.0, 0.0, 0.2, 0.3, *(min(0.9, 0.3 + 0.06 * (n - 2)) for n in range(4, _LONGEST_MATCH + 1))]
        self._seconds: dict[int, float] = {}  # rows -> what such a pass took
        self._measured: dict[int, int] = {}  # rows -> the pass when that was
        self._passes = 0
        self._between = 0.0  # seconds for what else a token takes, in passes of one row
        self._costs = self._all_costs()  # by rows, in passes of one row

    def asleep(self) -> bool:
        """Count a token; whether it is passed over."""
        self._left -= 1
        return self._left >= 0

    def draft(self, token: int, room: int) -> list[int]:
        """Guesses of what follows `token`, which is fed next; `room` of them at most, none where it would not pay."""
        if len(self._tokens) > self._seen:
            self._lookup.extend(self._tokens[self._seen :])
        self._seen = len(self._tokens) + 1  # the session takes this one next
        length = 0
        if self._expected is not None:
            length, guess = self._expected
            self._rates[length] += _RATE_STEP * ((guess == token) - self._rates[length])
            self._expected = None
        self._lookup.extend((token,))
        if self._open and self._open[0] == token:
            del self._open[0]
            self.accepted += 1
            self._awake, self._sleep = _AWAKE, _SHORTEST_SLEEP
            if self._open:
                self._expected = min(length + 1, _LONGEST_MATCH), self._open[0]
            return []
        self._open = []
        place, length = self._lookup.find()
        count = self._best_count(length, room) if length else 0
        if count:
            self._open = self._lookup.following(place, count)
            self.drafted += count
        self._awake -= 1
        if self._awake > 0 or length >= _WAKING_MATCH:
            if length:
                self._expected = length, self._open[0] if count else self._lookup.following(place, 1)[0]
        elif not count:
            self._left, self._sleep = self._sleep, min(2 * self._sleep, _LONGEST_SLEEP)
        return list(self._open)

    def took(self, rows: int, seconds: float, between: float = 0.0) -> None:
        """Learn what a pass over so many rows costs, and a token's share of all else; 0 rows were no pass."""
        if rows == 0:
            return
        self._passes += 1
        if rows == 1 and self._passes % _TIMED_EVERY and len(self._seconds) > 1:
            return
        if rows > 1:
            self._measured[rows] = self._passes
        old = self._seconds.get(rows)
        # A pass that was interrupted by something else is not worth believing.
        self._seconds[rows] = seconds if old is None else old + _COST_STEP * (min(seconds, 2 * old) - old)
        if rows == 1 and seconds > 0:
            self._between += _COST_STEP * (min(between / seconds, 1.0) - self._between)
        if rows > 1 or old is None or self._passes % _LOOKED_OVER_EVERY == 0:
            self._costs = self._all_costs()

    def _best_count(self, length: int, room: int) -> int:
        """How many guesses promise the most tokens a second behind a match of this length."""
        best, best_gain = 0, _WORTH
        chance, promised = 1.0, 1.0
        alone = 1.0 + self._between
        for count in range(1, min(MOST_GUESSES, room) + 1):
            chance *= self._rates[min(length + count - 1, _LONGEST_MATCH)]
            if chance < _HOPELESS:
                break
            promised += chance
            gain = promised * alone / (self._costs[1 + count] + promised * self._between)
            if gain > best_gain:
                best, best_gain = count, gain
        return best

    def _all_costs(self) -> list[float]:
        return [0.0, *(self._cost(rows) for rows in range(1, MOST_GUESSES + 2))]

    def _cost(self, rows: int) -> float:
        """What a pass over so many rows costs, in passes of one: measured, or drawn on from what was measured."""
        one = self._seconds.get(1)
        if one is None:
            return 1.0 + _ROW_COST * (rows - 1)
        known = [1, *(r for r, at in self._measured.items() if self._passes - at < _FORGOTTEN_AFTER)]
        below = max(r for r in known if r <= rows)
        above = min((r for r in known if r >= rows), default=0)
        low = self._seconds[below]
        if below == rows:
            return low / one
        if above:
            return (low + (self._seconds[above] - low) * (rows - below) / (above - below)) / one
        return low / one + _ROW_COST * (rows - below)
