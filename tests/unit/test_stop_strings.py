"""Stop strings: cut where they begin, however the text is split, and shown to nobody."""

from hypothesis import given
from hypothesis import strategies as st

from app.generation import StopStrings


@given(st.text("abEND", max_size=30), st.lists(st.integers(1, 3), min_size=1, max_size=30))
def test_stop_strings_cut_the_same_wherever_the_text_is_split(text, sizes):
    stops = StopStrings(["END", "ba"])
    shown, ended, at = "", False, 0
    while at < len(text) and not ended:
        size = sizes[at % len(sizes)]
        part, ended = stops.push(text[at : at + size])
        shown += part
        at += size
    shown += stops.release()
    first = min((i for i in (text.find("END"), text.find("ba")) if i >= 0), default=len(text))
    assert shown == text[:first]
    assert ended == (first < len(text))


def test_a_stop_string_over_a_save_is_still_found_and_nothing_is_shown_twice():
    stops = StopStrings(["END"])
    assert stops.push("abcE") == ("abc", False)
    assert stops.release() == "E"
    assert stops.push("N") == ("", False)
    assert stops.release() == "N"
    assert stops.push("Dx") == ("", True)
    stops = StopStrings(["END"])
    stops.push("E")
    stops.release()
    assert stops.push("xy") == ("xy", False)
