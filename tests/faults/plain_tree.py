"""A library as a plain tree in memory, which row 11 compares the real one with: no file, no SQL, no digest."""

from dataclasses import dataclass, field
from typing import NamedTuple

DONE, UNDONE, DROPPED = "done", "undone", "dropped"
QUICK_KEPT = 10


class Said(NamedTuple):
    """What a message is, for ever; `tokens` is the whole list at it."""

    talk: str
    parent: str | None
    role: str
    text: str
    tokens: tuple[int, ...]
    stop: str = ""


@dataclass(eq=False)
class Deed:
    """Something that undo reverses. `names` is what undo makes of names, `again` what redo makes of them."""

    kind: str
    talk: str
    before: str | None = None
    after: str | None = None
    node: str | None = None
    shown: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)
    again: dict = field(default_factory=dict)
    titles: tuple = ()
    state: str = DONE

    def mentions(self):
        found = {self.before, self.after, self.node, *self.shown}
        return found | set(self.names.values()) | set(self.again.values())


@dataclass(eq=False)
class Talk:
    title: str
    head: str | None = None
    hidden_by: Deed | None = None
    quick: list = field(default_factory=list)


class PlainTree:
    """The rules of the tree, told with sets and lists."""

    def __init__(self):
        self.said: dict[str, Said] = {}  # also what was forgotten since
        self.hidden_by: dict[str, Deed | None] = {}  # of what is there, in the order in which it came
        self.talks: dict[str, Talk] = {}  # the last used one is the last
        self.names: dict[str, str] = {}
        self.pins: set[str] = set()
        self.prompts: list[str] = []
        self.deeds: list[Deed] = []

    # ---------------------------------------------------------------------------------------------------- looking

    def is_live(self, node):
        return node in self.hidden_by and self.hidden_by[node] is None

    def live(self, talk=None):
        return [n for n in self.hidden_by if self.is_live(n) and talk in (None, self.said[n].talk)]

    def visible_talks(self):
        return [each for each, talk in self.talks.items() if talk.hidden_by is None]

    def children(self, node, talk, *, hidden=False):
        return [
            n
            for n in self.hidden_by
            if self.said[n].parent == node and self.said[n].talk == talk and (hidden or self.is_live(n))
        ]

    def behind(self, node, *, hidden=False):
        if not hidden and not self.is_live(node):
            return []
        found = [node]
        for each in found:
            found += self.children(each, self.said[node].talk, hidden=hidden)
        return found

    def nearest(self, node):
        while node is not None and not self.is_live(node):
            node = self.said[node].parent if node in self.hidden_by else None
        return node

    def path(self, node):
        found = []
        while node is not None:
            found.append(node)
            node = self.said[node].parent
        return found[::-1]

    def turn_back(self, node, turns):
        """Above the message that began each turn; False where there are fewer."""
        for _ in range(turns):
            while node is not None and self.said[node].role != "user":
                node = self.said[node].parent
            if node is None:
                return False
            node = self.said[node].parent
        return node

    def holder(self, name):
        return self.names.get(name) if self.is_live(self.names.get(name)) else None

    def quick(self, talk):
        return [node for node in reversed(self.talks[talk].quick) if self.is_live(node)]

    def found(self, word):
        """What a search finds: words that begin so, else texts that hold it; and what is called so."""
        live = self.live()
        hits = {n for n in live if any(each.startswith(word) for each in self.said[n].text.split())}
        hits = hits or {n for n in live if word in self.said[n].text}
        hits |= {node for name, node in self.names.items() if self.is_live(node) and word in name}
        heads = [t for t in self.talks.values() if t.hidden_by is None and self.is_live(t.head)]
        return hits | {t.head for t in heads if word in t.title.lower()}

    # ----------------------------------------------------------------------------------------------------- acting

    def touch(self, talk):
        self.talks[talk] = self.talks.pop(talk)

    def stand(self, talk, node):
        self.talks[talk].head = node
        self.touch(talk)

    def log(self, deed):
        for each in self.deeds:
            if each.talk == deed.talk and each.state == UNDONE:
                each.state = DROPPED
        self.deeds.append(deed)

    def show_path(self, node):
        hidden = [n for n in self.path(node) if self.hidden_by[n] is not None]
        shown = {n: self.hidden_by[n] for n in hidden}
        self.hidden_by |= dict.fromkeys(hidden)
        return shown

    def put(self, node, said):
        """A message is there and shown, with all above it; gives what that made visible."""
        if node in self.hidden_by:
            return self.show_path(node)
        shown = self.show_path(said.parent)
        self.said[node] = said
        self.hidden_by[node] = None
        return {**shown, node: None}

    def add(self, node, said):
        before = self.talks[said.talk].head
        shown = self.put(node, said)
        self.stand(said.talk, node)
        last = next((d for d in reversed(self.deeds) if d.talk == said.talk and d.state == DONE), None)
        if last and last.kind == "turn" and last.after == said.parent == before and self.joins(said):
            for each in self.deeds:
                if each.talk == said.talk and each.state == UNDONE:
                    each.state = DROPPED
            last.after = node
            last.shown |= shown
        else:
            self.log(Deed("turn", said.talk, before, node, shown=shown))

    def joins(self, said):
        """A reply belongs to the turn of its question, the first question to that of the system's message."""
        parent = self.said[said.parent]
        return parent.role == "system" or (
            said.role == "assistant" and (parent.role != "assistant" or parent.stop == "saved")
        )

    def move(self, talk, node, kind):
        before = self.talks[talk].head
        self.stand(talk, node)
        if before != node:
            self.log(Deed(kind, talk, before, node))

    def delete(self, node):
        talk = self.said[node].talk
        deed = Deed("delete", talk, self.talks[talk].head, node=node)
        self.log(deed)
        self.hidden_by |= dict.fromkeys(self.behind(node), deed)
        deed.after = self.nearest(deed.before)
        if deed.after != deed.before:
            self.stand(talk, deed.after)

    def delete_talk(self, talk):
        head = self.talks[talk].head
        self.log(Deed("delete", talk, head, head))
        self.hide_talk(self.deeds[-1])

    def hide_talk(self, deed):
        self.talks[deed.talk].hidden_by = deed
        self.hidden_by |= dict.fromkeys(self.live(deed.talk), deed)

    def set_title(self, talk, title):
        old, self.talks[talk].title = self.talks[talk].title, title
        if old != title:
            self.log(Deed("title", talk, titles=(old, title)))

    def set_names(self, changes):
        for name, node in changes.items():
            self.names.pop(name, None)
            if node is not None:
                self.names[name] = node

    def name(self, name, node):
        self.log(Deed("name", self.said[node].talk, names={name: self.names.get(name)}, again={name: node}))
        self.names[name] = node

    def rename(self, old, new):
        node = self.names[old]
        back = {new: self.names.get(new) if new != old else None, old: node}
        self.log(Deed("rename", self.said[node].talk, names=back, again={old: None, new: node}))
        self.set_names({old: None, new: node})

    def unname(self, name):
        node = self.names.pop(name)
        self.log(Deed("unname", self.said[node].talk, names={name: node}, again={name: None}))

    def quicksave(self, node):
        own = self.talks[self.said[node].talk].quick
        own[:] = [*(each for each in own if each != node), node][-QUICK_KEPT:]

    def undo(self, talk=None):
        """False where nothing is left to undo."""
        deed = next((d for d in reversed(self.deeds) if d.state == DONE and talk in (None, d.talk)), None)
        if deed is None:
            return False
        if deed.kind == "delete":
            self.hidden_by |= {n: None for n, by in self.hidden_by.items() if by is deed}
            if self.talks[deed.talk].hidden_by is deed:
                self.talks[deed.talk].hidden_by = None
        self.set_names(deed.names)
        self.hide_shown(deed)
        if deed.titles:
            self.talks[deed.talk].title = deed.titles[0]
        return self.finish(deed, UNDONE, deed.before)

    def hide_shown(self, deed):
        """What a turn showed goes, the last first, but not what a name, a quicksave or another branch hangs on."""
        for node, by in reversed(deed.shown.items()):
            used = node in self.names.values() or any(node in talk.quick for talk in self.talks.values())
            if not used and self.is_live(node) and not self.children(node, deed.talk):
                self.hidden_by[node] = by or deed

    def redo(self, talk=None):
        """False where nothing is left to redo."""
        deed = next((d for d in self.deeds if d.state == UNDONE and talk in (None, d.talk)), None)
        if deed is None:
            return False
        if deed.kind == "delete" and deed.node is None:
            self.hide_talk(deed)
        elif deed.kind == "delete":
            self.hidden_by |= dict.fromkeys(self.behind(deed.node), deed)
        self.hidden_by |= dict.fromkeys(deed.shown)
        self.set_names(deed.again)
        if deed.titles:
            self.talks[deed.talk].title = deed.titles[1]
        return self.finish(deed, DONE, deed.after)

    def finish(self, deed, state, head):
        deed.state = state
        if deed.kind in ("turn", "import", "delete", "restore", "fork", "back"):
            target = self.nearest(head)
            if target != self.talks[deed.talk].head:
                self.stand(deed.talk, target)
        return True

    # ------------------------------------------------------------------------------------- forgetting and travelling

    def forget(self, node):
        """A message and all behind it are gone, with everything that told of them; gives what is gone."""
        said, gone = self.said[node], set(self.behind(node, hidden=True))
        talk = self.talks[said.talk]
        self.prompts = [p for p in self.prompts if p not in {self.said[n].text for n in gone}]
        self.hidden_by = {n: by for n, by in self.hidden_by.items() if n not in gone}
        self.names = {name: n for name, n in self.names.items() if n not in gone}
        self.pins -= gone
        talk.quick = [n for n in talk.quick if n not in gone]
        self.deeds = [d for d in self.deeds if not d.mentions() & gone]
        if not any(self.said[n].talk == said.talk for n in self.hidden_by):
            del self.talks[said.talk]
            self.deeds = [d for d in self.deeds if d.talk != said.talk]
        elif talk.head in gone:
            talk.head = self.nearest(said.parent)
        return gone

    def carried(self, node, scope):
        """What an export holds: its talk, that one's title, where it stands, and each message with its names."""
        talk = self.said[node].talk
        chosen = self.live(talk) if scope == "conversation" else self.path(node)
        chosen += self.behind(node)[1:] if scope == "tree" else []
        return talk, self.talks[talk].title, node, [(n, [k for k, v in self.names.items() if v == n]) for n in chosen]

    def arrive(self, talk, title, node, messages):
        """An export comes in; gives the names that were taken and what they became."""
        fresh = talk not in self.talks or self.talks[talk].hidden_by is not None
        self.talks.setdefault(talk, Talk(title)).hidden_by = None
        if fresh:
            self.touch(talk)
        before, shown, given, renamed = self.talks[talk].head, {}, {}, {}
        for each, names in messages:
            shown |= self.put(each, self.said[each])
            for name in names:
                tries = [name, *(f"{name}-{number}" for number in range(2, 100))]
                wanted = next(t for t in tries if self.names.get(t) in (None, each))
                if self.names.get(wanted) is None:
                    self.names[wanted] = given[wanted] = each
                    renamed |= {name: wanted} if name != wanted else {}
        after = before
        if fresh or self.nearest(before) is None:
            after = node
            self.stand(talk, node)
        if shown or given:
            off = dict.fromkeys(given)
            self.log(Deed("import", talk, before, after, shown=shown, names=off, again=given))
        return renamed
