"""What is guessed, when it pays to guess, and the token lists that forks share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.speculation import MOST_GUESSES, PromptLookup, Speculation
from engine.token_list import TokenList

few = st.lists(st.integers(0, 3), max_size=60)


@given(tokens=few)
def test_a_match_is_one_and_the_longest_of_the_latest_is_taken(tokens):
    place, length = PromptLookup(tokens).find()
    n = len(tokens)
    ends = [at for at in range(n - 2, 0, -1) if tokens[at - 1 : at + 1] == tokens[n - 2 :]][:8]
    if n < 2 or not ends:
        assert (place, length) == (-1, 0)
        return

    def matching(at):
        m = 0
        while m <= at and m < 16 and tokens[at - m] == tokens[n - 1 - m]:
            m += 1
        return m

    assert length == max(map(matching, ends))
    assert place == next(at for at in ends if matching(at) == length)


def test_what_followed_goes_on_in_circles():
    lookup = PromptLookup([1, 2, 3, 1, 2, 3, 1, 2])
    place, length = lookup.find()
    assert (place, length) == (4, 5)
    assert lookup.following(place, 7) == [3, 1, 2, 3, 1, 2, 3]
    lookup = PromptLookup([7, 7, 7])
    assert lookup.following(lookup.find()[0], 4) == [7, 7, 7, 7]


def write(speculation, said, tokens, cost):
    """Feed tokens as `generate` does, behind the list `said`; cost(rows) in seconds.

    Gives (passes, rows of the largest, tokens that were slept through).
    """
    ahead, passes, largest, slept = [], 0, 0, 0
    for left, token in zip(range(len(tokens) - 1, -1, -1), tokens, strict=True):
        if speculation.asleep():
            assert not ahead
            draft = []
            slept += 1
        else:
            draft = speculation.draft(token, left)
        said.append(token)
        assert len(draft) <= min(MOST_GUESSES, left)
        if ahead and ahead[0] == token:
            ahead = ahead[1:]
            assert draft == []
            continue
        ahead, passes, largest = list(draft), passes + 1, max(largest, 1 + len(draft))
        speculation.took(1 + len(draft), cost(1 + len(draft)))
    return passes, largest, slept


TEXT = list(range(100, 160))


def begin(said):
    return Speculation(said), said


def test_a_quotation_takes_few_passes_where_rows_are_cheap():
    speculation, said = begin(list(TEXT))
    passes, _, _ = write(speculation, said, [*TEXT, 5], lambda rows: 1 + 0.1 * rows)
    assert passes < 20
    assert speculation.accepted > 40
    assert speculation.accepted <= speculation.drafted


def test_nothing_is_guessed_where_rows_are_as_dear_as_passes():
    speculation, said = begin(list(TEXT))
    _, largest, _ = write(speculation, said, TEXT * 4, lambda rows: 1.0 * rows)
    assert largest > 1  # it has to be tried to be known
    tried = speculation.drafted
    write(speculation, said, TEXT[:30], lambda rows: 1.0 * rows)
    assert speculation.drafted == tried


def test_what_else_a_token_takes_counts():
    """Where most of a token is not the pass, a pass saved is little."""
    drafted = []
    for between in (0.0, 1.0):
        speculation, said = begin([*TEXT, *range(40)])
        for left, token in enumerate(reversed([*range(40, 60), *TEXT])):
            if not speculation.asleep():
                speculation.draft(token, left)
            said.append(token)
            speculation.took(1, 1.0, between)
        drafted.append(speculation._best_count(6, 15))
    assert drafted[1] <= drafted[0]


def test_nothing_is_guessed_in_text_that_only_looks_like_what_was_said():
    """Pairs come back all the time, and something else follows each time."""
    tokens = [token for i in range(200) for token in (1, 2, 100 + i)]
    speculation, said = begin([1, 2, 3])
    write(speculation, said, tokens[:300], lambda rows: 1 + 0.1 * rows)
    tried = speculation.drafted
    _, _, slept = write(speculation, said, tokens[300:], lambda rows: 1 + 0.1 * rows)
    assert speculation.drafted == tried
    assert slept > 0.9 * 300


def test_repetition_is_noticed_again_after_a_long_while_without():
    speculation, said = begin(list(TEXT))
    fresh = [token for i in range(300) for token in (1, 2, 1000 + i)]
    write(speculation, said, fresh, lambda rows: 1 + 0.05 * rows)
    twice = [*TEXT, *range(5000, 5040), *TEXT]
    passes, _, _ = write(speculation, said, twice, lambda rows: 1 + 0.05 * rows)
    assert passes < 40 + 2 * 45


@given(said=few, more=few)
def test_whatever_was_slept_through_is_looked_up_later(said, more):
    """What a sleeper finds is what someone finds who was awake all the time."""
    lookup = PromptLookup([*said, *more])
    speculation, tokens = begin(list(said))
    write(speculation, tokens, more, lambda rows: 1.0)
    speculation.draft(7, 4)
    lookup.extend([7])
    assert speculation._lookup.find() == lookup.find()


def test_no_room_no_guess():
    speculation = Speculation([1, 2, 3, 1, 2, 3, 1])
    assert speculation.draft(2, 0) == []


# ---- token lists ----

deeds = st.lists(
    st.tuples(
        st.sampled_from(["extend", "truncate", "fork"]), st.integers(0, 5), st.lists(st.integers(0, 99), max_size=80)
    ),
    max_size=25,
)


@given(deeds=deeds)
def test_lists_that_share_a_beginning_are_as_independent_as_lists(deeds):
    lists, plain = [TokenList([4, 2])], [[4, 2]]
    for deed, which, ids in deeds:
        at = which % len(lists)
        if deed == "extend":
            lists[at].extend(ids)
            plain[at].extend(ids)
        elif deed == "truncate":
            lists[at].truncate(len(ids))
            del plain[at][len(ids) :]
        else:
            lists.append(lists[at].fork())
            plain.append(list(plain[at]))
        assert lists == plain
    for ours, theirs in zip(lists, plain, strict=True):
        assert (len(ours), list(ours), ours[-3:], ours[::2]) == (len(theirs), theirs, theirs[-3:], theirs[::2])
        assert ours.last(4).tolist() == (theirs[-4:])
        assert ours.last(-1).tolist() == theirs
        assert ours.last(0).tolist() == []


def test_items_are_python_ints_and_a_place_outside_is_an_error():
    tokens = TokenList([3, 4])
    assert type(tokens[0]) is int
    assert tokens[-1] == 4
    assert tokens != [3]
    with pytest.raises(IndexError):
        tokens[2]
