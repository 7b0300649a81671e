"""What screens and the command line show of the tree, as plain records made from the store's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from app.events import ConversationRow, Message, TreeRow
from app.place import SETTINGS, Cut
from app.sentences import one_line
from app.thinking import Parts, parted
from snapshots import Conversation, Library, Node, Twig

PREVIEW_CHARACTERS = 60
_SHOWN_ROLE = {"raw": "user"}


def messages(
    library: Library,
    path: Sequence[Node],
    cut: Cut | None = None,
    thinking: Callable[[Node], int | None] = lambda node: None,
) -> list[Message]:
    """Give the nodes of a path as messages, with their siblings and names; `thinking` counts a node's tokens of it."""
    if not path:
        return []
    twigs = library.tree(path[0].conversation_id) if path[0].conversation_id else []
    families = _families(twigs)
    names = {twig.id: _labels(twig) for twig in twigs}
    shown = []
    for at, node in enumerate(path):
        family = families.get((node.parent_id, node.role), ())
        if node.id not in family:
            family = (*family, node.id)
        last = at == len(path) - 1
        text, count, stop = node.text, len(node.tokens), node.stop
        if stop == SETTINGS:
            stop = next((n.stop for n in reversed(path[:at]) if n.stop != SETTINGS), "")
        if last and cut is not None:
            text, count = cut.text, cut.count
        shown.append(
            Message(
                node_id=node.id,
                parent_id=node.parent_id,
                role=_SHOWN_ROLE.get(node.role, node.role),  # type: ignore[arg-type]
                text=text,
                turn=node.turn,
                own_tokens=count,
                total_tokens=node.keep + count,
                stop=stop or None,
                sibling_index=family.index(node.id),
                sibling_ids=family,
                labels=names.get(node.id, ()),
                continues=at > 0 and node.role == "assistant" == path[at - 1].role,
                thinking_tokens=thinking(node) if node.role == "assistant" else None,
                says_nothing=node.stop == SETTINGS,
            )
        )
    return shown


def tree_rows(library: Library, conversation_id: str, here: Sequence[Node]) -> list[TreeRow]:
    """Give a conversation's tree; `here` is the path of the live position."""
    path = {node.id for node in here}
    here_id = here[-1].id if here else None
    twigs = library.tree(conversation_id)
    said: dict[str, tuple[str, str]] = {}  # what a line says: of settings alone, what was said in front of them
    for twig in twigs:
        own = (_SHOWN_ROLE.get(twig.role, twig.role), _preview(twig))
        said[twig.id] = said.get(twig.parent_id or "", ("assistant", "(settings)")) if twig.stop == SETTINGS else own
    return [
        TreeRow(
            node_id=twig.id,
            parent_id=twig.parent_id,
            depth=twig.depth,
            role=said[twig.id][0],  # type: ignore[arg-type]
            preview=said[twig.id][1],
            turn=twig.turn,
            total_tokens=twig.n_tokens,
            labels=_labels(twig),
            is_here=twig.id == here_id,
            on_path=twig.id in path,
            has_bundle=None,
        )
        for twig in twigs
    ]


def _preview(twig: Twig) -> str:
    """The first words of a message; of a reply that thought first, those of its answer, if they are near."""
    parts = parted(twig.preview) if twig.role == "assistant" else Parts(None, twig.preview)
    words = parts.answer or (f"thinking: {parts.thinking}" if parts.thinking else "")
    return one_line(words)[:PREVIEW_CHARACTERS]


def conversation_rows(library: Library, here: Conversation | None) -> list[ConversationRow]:
    """Give every conversation, the last used first."""
    conversations = library.conversations()
    heads = library.glances(c.head_id for c in conversations if c.head_id)
    return [
        ConversationRow(
            conversation_id=c.id,
            title=c.title or "empty",
            head_id=c.head_id,
            turns=heads[c.head_id].turn if c.head_id and c.head_id in heads else 0,
            used_at=c.last_used,
            is_here=here is not None and c.id == here.id,
        )
        for c in conversations
    ]


def title_of(text: str) -> str:
    """Make a title of a conversation's first question: its first words, one line."""
    words = one_line(text).split()
    title = " ".join(words)
    return _shortened(title, PREVIEW_CHARACTERS)


def _shortened(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def _labels(twig: Twig) -> tuple[str, ...]:
    return (*twig.names, "quick") if twig.is_quick else twig.names


def _families(twigs: Iterable[Twig]) -> dict[tuple[str | None, str], tuple[str, ...]]:
    families: dict[tuple[str | None, str], tuple[str, ...]] = {}
    for twig in sorted(twigs, key=lambda t: t.created):
        if twig.stop == SETTINGS:  # no other version of anything
            continue
        families[twig.parent_id, twig.role] = (*families.get((twig.parent_id, twig.role), ()), twig.id)
    return families


def parting(first: tuple[str, Sequence[Node]], second: tuple[str, Sequence[Node]]) -> str:
    """Say where two paths part, each given with its name, and what each of the two says from there on."""
    (_, here), (_, there) = first, second
    shared = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a.id != b.id), None)
    shared = min(len(here), len(there)) if shared is None else shared
    where = f"behind turn {there[shared - 1].turn}" if shared else "at the very beginning"
    lines = [f"{one_line(second[0])} parts from {one_line(first[0])} {where}."]
    for name, path in ((one_line(first[0]), here), (one_line(second[0]), there)):
        said = [_shortened(one_line(node.text), 2 * PREVIEW_CHARACTERS) for node in path[shared:] if node.text]
        lines += [f"── {name} ──", *(said or ["(nothing more)"])]
    return "\n".join(lines)
