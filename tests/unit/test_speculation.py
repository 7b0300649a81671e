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


def write(speculation, tokens, cost):
    """Feed tokens as `generate` does; cost(rows) in seconds. Gives (passes, rows of the largest)."""
    ahead, passes, largest = [], 0, 0
    for left, token in zip(range(len(tokens) - 1, -1, -1), tokens, strict=True):
        draft = speculation.draft(token, left)
        assert len(draft) <= min(MOST_GUESSES, left)
        if ahead and ahead[0] == token:
            ahead = ahead[1:]
            assert draft == []
            continue
        ahead, passes, largest = list(draft), passes + 1, max(largest, 1 + len(draft))
        speculation.took(1 + len(draft), cost(1 + len(draft)))
    return passes, largest


TEXT = list(range(100, 160))


def test_a_quotation_takes_few_passes_where_rows_are_cheap():
    speculation = Speculation(TEXT)
    passes, _ = write(speculation, [*TEXT, 5], lambda rows: 1 + 0.1 * rows)
    assert passes < 20
    assert speculation.accepted > 40
    assert speculation.accepted <= speculation.drafted


def test_nothing_is_guessed_where_rows_are_as_dear_as_passes():
    speculation = Speculation(TEXT)
    _, largest = write(speculation, TEXT * 4, lambda rows: 1.0 * rows)
    assert largest > 1  # it has to be tried to be known
    tried = speculation.drafted
    write(speculation, TEXT[:30], lambda rows: 1.0 * rows)
    assert speculation.drafted == tried


def test_nothing_is_guessed_in_text_that_only_looks_like_what_was_said():
    """Pairs come back all the time, and something else follows each time."""
    tokens = [token for i in range(200) for token in (1, 2, 100 + i)]
    speculation = Speculation([1, 2, 3])
    write(speculation, tokens[:300], lambda rows: 1 + 0.1 * rows)
    tried = speculation.drafted
    write(speculation, tokens[300:], lambda rows: 1 + 0.1 * rows)
    assert speculation.drafted == tried


def test_repetition_is_noticed_again_after_a_long_while_without():
    speculation = Speculation(TEXT)
    fresh = [token for i in range(300) for token in (1, 2, 1000 + i)]
    write(speculation, fresh, lambda rows: 1 + 0.05 * rows)
    passes, _ = write(speculation, TEXT, lambda rows: 1 + 0.05 * rows)
    assert passes < 35


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
