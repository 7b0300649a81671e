"""One sentence and one exit code for every error, and text of strangers made harmless for a terminal.

The table `EXIT_CODES` is what `forkpoint --help` and the README print.
"""

from __future__ import annotations

import errno
import re
import unicodedata
from pathlib import Path

EXIT_CODES: dict[int, str] = {
    0: "all went well",
    1: "something else went wrong",
    2: "the command line itself is wrong",
    3: "a file is missing or cannot be read",
    4: "a file is not GGUF, or it is damaged",
    5: "the model's architecture, tokenizer or a tensor type is not supported",
    6: "no such savepoint, or the name cannot be used",
    7: "the savepoint belongs to another model",
    8: "the context is full",
    9: "the disk is full (what was said is kept where that is possible)",
    10: "the library cannot be used: read-only, damaged, busy, or made by a newer forkpoint",
    11: "verify found a difference, or nothing stored to compare with",
    12: "the model's logits are not numbers",
    13: "a file to import is no export of forkpoint, damaged, or does not say what it seems to",
    14: "fsck found damage, or with --repair left some",
    130: "stopped with Ctrl+C",
}

_BY_TYPE: dict[str, int] = {
    "FileNotReadable": 3,
    "FileNotFoundError": 3,
    "IsADirectoryError": 3,
    "PermissionError": 3,
    "BadInput": 3,
    "NoModel": 3,
    "NotGGUF": 4,
    "BadGGUF": 4,
    "MissingTensor": 4,
    "BadTensor": 4,
    "UnsupportedArchitecture": 5,
    "UnsupportedTensorType": 5,
    "UnsupportedTokenizer": 5,
    "UnsupportedFeature": 5,
    "UnknownRef": 6,
    "UnknownName": 6,
    "UnknownNode": 6,
    "UnknownConversation": 6,
    "AmbiguousRef": 6,
    "BadName": 6,
    "NameTaken": 6,
    "DamagedWeights": 11,
    "StateMismatch": 7,
    "OtherModel": 7,
    "ContextFull": 8,
    "TooLong": 8,
    "StoreFull": 9,
    "LibraryIsNewer": 10,
    "StoreReadOnly": 10,
    "StoreBusy": 10,
    "LibraryDamaged": 10,
    "StoreError": 10,
    "BadExport": 13,
    "BadNode": 1,
    "JournalGone": 1,
    "NothingToUndo": 1,
    "NonFiniteLogits": 12,
    "SamplerError": 2,
    "ConfigError": 2,
    "KeyboardInterrupt": 130,
    "Cancelled": 130,
}


def exit_code(error: BaseException) -> int:
    """Give the documented exit code of an error."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return 9
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_TYPE:
            return _BY_TYPE[kind.__name__]
    return 1


def sentence(error: BaseException) -> str:
    """Give the one sentence that a person reads about an error, and its notes, fit for a terminal."""
    name = type(error).__name__
    e: dict[str, object] = dict(vars(error))
    text = _about_a_place(name, e) or _about_the_rest(error, name, e)
    if not (isinstance(error, OSError) or name in _BEGIN_WITH_A_PATH):
        text = text[:1].upper() + text[1:]
    return one_line(" ".join([text, *getattr(error, "__notes__", ())]))


def _about_a_place(name: str, e: dict[str, object]) -> str:
    """The sentence where an error is about a savepoint or its name; else nothing."""
    text = ""
    if name == "UnknownRef":
        why = e.get("why") or _why_unknown(str(e["ref"]).strip())
        text = f"There is no savepoint “{_short(e['ref'])}”" + (f": {why}" if why else "")
        text += _nearest(e.get("nearest"))
    elif name == "UnknownName":
        text = f"There is no savepoint named “{_short(e['name'])}”" + _nearest(e.get("nearest"))
    elif name in {"UnknownNode", "UnknownConversation"}:
        what, field = ("message", "node_id") if name == "UnknownNode" else ("conversation", "conversation_id")
        text = f"The {what} {str(e[field])[:12]} is not in the library; if it was, it was deleted forever."
    elif name == "AmbiguousRef":
        text = f"“{_short(e['ref'])}” fits several savepoints: {_listed(e.get('candidates'))}."
    elif name == "BadName":
        quoted = f"“{_short(e['name'])}” " if e["name"] else ""
        text = f"The name {quoted}{e['why']}."
    elif name == "NameTaken":
        text = f"The name “{e['name']}” belongs to another savepoint; use -f, or confirm, to move it."
    elif name == "NothingToUndo":
        text = "There is nothing to redo." if e.get("redo") else "There is nothing to undo."
    elif name == "OtherModel":
        if e["fields"] == ("kv_type",):
            how = "leave out --cache-type to open it as it was saved"
        else:
            how = "open that model with -m, or restore it in the chat"
        text = f"The savepoint “{e['name']}” was made with {e['saved_with'] or 'another model'}: "
        fields = fields_as_said(e["fields"]) or "model"
        text += f"the {fields} {'differ' if ', ' in fields else 'differs'}; {how}."
    return text


def _about_the_rest(error: BaseException, name: str, e: dict[str, object]) -> str:
    """The sentence about anything else: the model, the library, a file, what was typed."""
    if name == "TooLong":
        text = f"The context is full: {e['needed']} tokens are needed, the model holds {e['limit']}."
    elif name == "NoModel":
        text = str(e.get("why") or "No model is open; name one with -m FILE.")
    elif name == "NothingToDo":
        text = str(e["why"])
    elif name == "Cancelled":
        text = "Stopped."
    elif name == "BadInput":
        text = f"{e['what']}: {e['why']}."
    elif name == "ConfigError":
        field = str(e["field"] or "")
        written = field if "." in field else field.replace("_", "-")  # as people write it in the file
        setting = f"“{written}” " if field else ""
        text = f"The config file {e['path']} cannot be used: {setting}{e['why']}."
    elif name == "StoreFull" or exit_code(error) == 9:
        where = e.get("path") or (error.filename if isinstance(error, OSError) else None)
        what = f" and {_root_of(Path(str(where)))} cannot be written" if where else ""
        text = f"The disk is full{what}: free some space and try again."
    elif name == "StoreBusy":
        text = "Another forkpoint has been using the library for too long; try again."
        if not e.get("waited_s"):
            text = "Another forkpoint has the library open, or mends it; close it and try again."
    elif name == "LibraryIsNewer":
        text = "The library was made by a newer forkpoint, so this one cannot change it "
        text += f"(its format is {e['found']}, this program writes {e['supported']})."
    elif name == "StoreReadOnly":
        text = f"The library cannot be changed: {e.get('reason', 'it is read-only')}."
    elif name == "LibraryDamaged":
        text = f"The library is damaged: {error}; `forkpoint fsck --repair` mends it and keeps what it replaces."
    elif name == "BadExport":
        text = f"The file cannot be imported: {e['why']}."
    elif name == "DamagedNode":
        short = str(e["node_id"])[:12]
        text = f"The message {short} is damaged on disk and cannot be used; `forkpoint delete {short}` hides it."
    elif name == "StoreError" and not str(error).endswith("."):
        where = f"{e['path']}: " if e.get("path") else ""
        text = f"The library cannot be used: {where}{_lowered(str(error))}."
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{(error.strerror or str(error)).lower()}."
    elif isinstance(error, KeyboardInterrupt):
        text = "Stopped."
    elif isinstance(error, MemoryError):
        text = "There is not enough memory."
    else:
        text = str(error)
        if not text.endswith("."):  # not one of ours, which are sentences
            text = f"Something went wrong ({name}: {text or 'no more is known'})."
    return text


def _root_of(path: Path) -> Path:
    """The data or cache directory that a file of ours lies in, which is what people know; else the file."""
    from app.config import directories

    roots = directories()
    return next((root for root in (roots.data, roots.cache) if root in path.parents), path)


_LONGEST_SHOWN = 120  # more than any name may have: a sentence stays one that can be read
_BEGIN_WITH_A_PATH = {"FileNotReadable", "NotGGUF", "BadGGUF", "BadInput"}


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _why_unknown(ref: str) -> str:
    """What is wrong with the form of a REF that names nothing; "" where its form is right."""
    name, mark, steps = re.fullmatch(r"(?s)([^~@]*)([~@]?)(.*)", ref).groups()  # type: ignore[union-attr]
    if not ref:
        return "a name, the start of an id, `quick` or `HEAD` is needed"
    if mark and not name:
        return f"in front of {mark} stands a name, the start of an id, `quick` or `HEAD`"
    if ref.casefold() in ("quick", "head"):
        return "nothing was saved with F5 in this conversation" if ref.casefold() == "quick" else "nothing was said yet"
    if mark and not re.fullmatch(r"[0-9]{0,9}(@[0-9]{1,9})?", steps):
        return f"behind {mark} stands a number of at most nine digits"
    return "the start of an id has four digits at least" if re.fullmatch("[0-9a-fA-F]{1,3}", ref) else ""


def _nearest(names: object) -> str:
    listed = _listed(names)
    return f"; the nearest are {listed}." if listed else "."


def _listed(names: object) -> str:
    return ", ".join(f"{n!s:.64}" for n in names) if isinstance(names, (tuple, list)) else ""


_LINE_BREAKS = re.compile(r"[\r\n\u2028\u2029]+")


def one_line(text: str) -> str:
    """Make a text one harmless line."""
    return harmless(_LINE_BREAKS.sub(" ", text)).replace("\t", " ")


_FAST = re.compile(r"[\t\n\x20-\x7e]*\Z")
_KEPT_FORMATS = {"\u200c", "\u200d"}  # joiners that scripts and emoji need


def harmless(text: str) -> str:
    """Replace what a terminal would obey by a visible sign: controls (but tab and newline), bidi marks, surrogates."""
    if _FAST.match(text):
        return text
    return "".join(c if _is_plain(c) else "\N{REPLACEMENT CHARACTER}" for c in text)


def _is_plain(c: str) -> bool:
    if c in "\t\n" or c in _KEPT_FORMATS:
        return True
    return unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def fields_as_said(fields: object) -> str:
    """Give the names of what differs between two models, as people call them."""
    return _listed(fields).replace("kv_type", "cache type").replace("_", " ")


def counted(count: int, thing: str) -> str:
    """Give "1 message", "3 messages"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def exit_code_table() -> str:
    """Give the exit codes as lines of text for --help."""
    return "\n".join(f"{code:>4}  {meaning}" for code, meaning in EXIT_CODES.items())
