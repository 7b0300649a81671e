"""What the machine of row 11 compares: a library and the plain tree in memory that it must be."""

import collections

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snapshots import UnknownRef

WORDS = st.sampled_from(["tides", "moon", "pirate", "moonlight"])
NAMES = st.sampled_from(["joke", "end", "xyz", "joke-2"])
TITLES = st.sampled_from(["", "Tidesong", "Zebra"])
PLACE = st.integers(0, 1 << 30)


class LibraryLooks(RuleBasedStateMachine):
    """Rules that change nothing, and what holds after each of those that do; `library` and `plain` are the two."""

    figures = collections.Counter()
    """How often each rule was followed, over all runs."""

    # ----------------------------------------------------------------------------------------------------- choosing

    def talk(self, place):
        talks = sorted(self.plain.visible_talks(), key=list(self.plain.talks).index)
        return talks[place % len(talks)]

    def node(self, place, talk=None):
        live = self.plain.live(talk)
        return live[place % len(live)]

    def count(self, what):
        self.figures[what] += 1
        self.figures["steps"] += 1

    has_talks = precondition(lambda self: self.plain.visible_talks())
    has_nodes = precondition(lambda self: self.plain.live())
    has_names = precondition(lambda self: any(map(self.plain.holder, self.plain.names)))
    has_states = precondition(lambda self: self.saved)

    # -------------------------------------------------------------------------------------------------------- looking

    @has_nodes
    @rule(word=st.sampled_from(["moon", "tides", "the", "oonl", "joke", "song", "nothing"]))
    def find(self, word):
        self.count("find")
        hits = self.library.find(word, limit=10_000)
        assert {hit.node_id for hit in hits} == self.plain.found(word)
        for hit in hits:
            assert hit.text == self.plain.said[hit.node_id].text

    @has_nodes
    @rule(place=PLACE)
    def look_around(self, place):
        self.count("look around")
        node = self.node(place)
        said = self.plain.said[node]
        children = self.plain.children(node, said.talk)
        assert [n.id for n in self.library.children(said.talk, node)] == children
        near = [n for n in self.plain.children(said.parent, said.talk) if self.plain.said[n].role == said.role]
        assert [n.id for n in self.library.siblings(node)] == near
        assert [n.id for n in self.library.path(node)] == self.plain.path(node)
        leaf = node
        while self.plain.children(leaf, said.talk):
            leaf = self.plain.children(leaf, said.talk)[-1]
        assert self.library.newest_leaf(node).id == leaf

    @has_nodes
    @rule(place=PLACE, turns=st.integers(0, 3), name=NAMES)
    def resolve(self, place, turns, name):
        self.count("resolve")
        node = self.node(place)
        ref = node[:16]
        if self.plain.holder(name):
            ref, node = name, self.plain.holder(name)
        target = self.plain.turn_back(node, turns)
        if target in (None, False):
            with pytest.raises(UnknownRef):
                self.library.resolve(f"{ref}~{turns}")
        else:
            assert self.library.resolve(f"{ref}~{turns}" if turns else ref).node.id == target

    @invariant()
    def the_library_is_the_plain_tree(self):
        if not hasattr(self, "library"):
            return
        plain, library = self.plain, self.library
        talks = library.conversations()
        assert [t.id for t in talks] == plain.visible_talks()[::-1]
        named = collections.defaultdict(set)
        for name, node in plain.names.items():
            named[node].add(name)
        for talk in talks:
            own = plain.talks[talk.id]
            assert (talk.title, talk.head_id) == (own.title, own.head)
            twigs = library.tree(talk.id)
            assert {t.id for t in twigs} == set(plain.live(talk.id))
            quick = plain.quick(talk.id)
            assert library.quicksaves(talk.id) == quick
            for twig in twigs:
                said = plain.said[twig.id]
                assert (twig.parent_id, twig.role, twig.preview) == (said.parent, said.role, said.text)
                assert (twig.n_tokens, set(twig.names)) == (len(said.tokens), named[twig.id])
                assert (twig.is_quick, twig.is_head) == (twig.id in quick[:1], twig.id == own.head)
            assert own.head is None or tuple(library.tokens(own.head)) == plain.said[own.head].tokens
        assert {s.name: s.node_id for s in library.savepoints()} == {
            name: node for name, node in plain.names.items() if plain.is_live(node)
        }
        assert set(library.pins()) == plain.pins
        assert library.prompts() == plain.prompts[::-1]
        place = library.start_position()
        assert place is None or place.node_id is None or plain.is_live(place.node_id)
