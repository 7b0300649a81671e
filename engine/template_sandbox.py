"""Jinja2 for templates that come from strangers: sandboxed, immutable, and bounded in output, memory and work.

Jinja's own sandbox keeps a template away from Python's internals (CVE-2024-34359 is a chat template that was not kept
away). It does not keep it from `'a' * 10**9` or from three nested loops. Here everything that can make something large
or take long is charged to a budget: printed text, joined text, results of calls and filters, items of loops.

Offers what transformers offers chat templates: trim_blocks and lstrip_blocks, loop controls, `raise_exception`,
`strftime_now`, a `tojson` that does not escape for HTML, and the `generation` tag (without effect). Imports jinja2.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from engine.errors import TemplateError

MAX_SOURCE = 128 << 10  # characters of template source
MAX_RANGE = 10_000
BASE_STEPS = 50_000  # loop items and calls in one rendering, besides one for each character of the messages
MAX_SECONDS = 5.0  # of CPU time; the steps end before, but for operations on huge texts
MAX_NUMBER_BITS = 1 << 12
BASE_CHARACTERS = 16 << 20  # what a rendering may make, besides 16 times the messages' own length
MAX_NODES = 100_000  # members of one nested value that is printed

_STR_METHODS = frozenset(
    {
        "strip", "lstrip", "rstrip", "upper", "lower", "title", "capitalize", "casefold", "swapcase", "startswith",
        "endswith", "split", "rsplit", "splitlines", "replace", "join", "find", "rfind", "index", "rindex", "count",
        "removeprefix", "removesuffix", "partition", "rpartition", "isdigit", "isdecimal", "isnumeric", "isalpha",
        "isalnum", "isspace", "isupper", "islower", "istitle",
    }
)  # fmt: skip
_SAFE_METHODS: Mapping[type, frozenset[str]] = {
    str: _STR_METHODS,
    dict: frozenset({"items", "keys", "values", "get"}),
    list: frozenset({"index", "count"}),
    tuple: frozenset({"index", "count"}),
}
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby", "int",
    "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace",
    "reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "tojson", "trim",
    "unique", "upper",
)  # fmt: skip


class _Budget:
    """What one rendering may still use. Raises TemplateError when it is used up."""

    def __init__(self, message_characters: int):
        self.characters = BASE_CHARACTERS + 16 * message_characters
        self.steps = BASE_STEPS + message_characters
        self.end = time.thread_time() + MAX_SECONDS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0 or (self.steps % 64 == 0 and time.thread_time() > self.end):
            raise TemplateError("it takes too long")

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise TemplateError("it makes too much text")


_budget: ContextVar[_Budget | None] = ContextVar("template_budget", default=None)


def _current() -> _Budget:
    # Outside a rendering (jinja evaluates constants while it compiles) a fresh budget bounds the one operation.
    return _budget.get() or _Budget(0)


def _weight(value: Any) -> int:
    """About how many characters printing `value` gives; bounded work on values that share members many times."""
    weight, left, stack = 0, MAX_NODES, [value]
    while stack:
        item = stack.pop()
        left -= 1
        if left < 0:
            raise TemplateError("it makes too much text")
        if isinstance(item, str):
            weight += len(item)
        elif isinstance(item, dict):
            stack += list(item.keys())[:left] + list(item.values())[:left]
        elif isinstance(item, list | tuple):
            stack += item[:left]
            weight += 2 * len(item)
        elif isinstance(item, int):
            weight += item.bit_length() // 3 + 1
        else:
            weight += 16
    return weight


def _charged(value: Any) -> Any:
    """`value`, charged for its size; a lazy iterator is charged item by item."""
    if isinstance(value, str):
        _current().spend(len(value))
    elif isinstance(value, list | tuple | dict):
        _current().spend(16 * len(value))
    elif isinstance(value, Iterator):
        return _steps(value)
    return value


def _steps(iterable: Any) -> Iterator[Any]:
    for item in iterable:
        _current().step()
        yield item


def _printed(value: Any) -> Any:
    """Jinja's `finalize`: called with everything that is printed by `{{ }}`."""
    if _budget.get() is not None:
        _current().spend(_weight(value))
    return value


def _concat(values: list[Any]) -> str:
    """The `~` operator."""
    _current().spend(sum(map(_weight, values)))
    return "".join(map(str, values))


def _replace(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    hits = text.count(old) if count is None or count < 0 else min(text.count(old), count)
    _current().spend(hits * len(new) + len(text))
    made: str = text.replace(old, new, -1 if count is None else count)
    return made


def _join(values: Any, separator: Any = "", attribute: Any = None) -> str:
    if attribute is not None:  # members only, so that no attribute goes round the sandbox
        values = [value.get(attribute, "") if isinstance(value, Mapping) else "" for value in values]
    items = [_concat([item]) for item in _steps(values)]
    between = str(separator)
    _current().spend(len(between) * len(items))
    return between.join(items)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    _current().spend(2 * _weight(value))
    if indent is not None and (not isinstance(indent, int) or not 0 <= indent <= 16):
        raise TemplateError("an indent is out of range")
    made = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    _current().spend(len(made))
    return made


def _indent(text: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(max(int(width), 0), 64)
    lines = (str(text) + "\n").splitlines()  # so that a line end at the end stays
    _current().spend(len(str(text)) + len(margin) * len(lines))
    return "\n".join(
        margin + line if (first or number) and (line or blank) else line for number, line in enumerate(lines)
    )


def _range(*arguments: int) -> range:
    made = range(*arguments)
    if len(made) > MAX_RANGE:
        raise TemplateError(f"a range of more than {MAX_RANGE}")
    return made


def _raise_exception(message: Any = "") -> None:
    raise TemplateError(str(message)[:500])


class _Bounding(NodeTransformer):
    """Puts the budget where Jinja has no hook: the `~` operator, slices and the items of loops."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja's naming
        self.generic_visit(node)
        made = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(made, "~concat", [], [], None, None, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):  # jinja compiles slices past `getitem`
            return nodes.Filter(node, "~charged", [], [], None, None, lineno=node.lineno)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "~steps", [], [], None, None, lineno=node.lineno)
        return node


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, by which training code marks replies: only its body counts here."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: Any) -> list[nodes.Node]:
        """The body of the tag."""
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bounding().visit(super()._parse(source, name, filename))
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _SAFE_METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        if not type(obj).__module__.startswith("jinja2."):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if getattr(value, "__name__", "") in ("format", "format_map"):
            raise SecurityError("str.format is not available to templates")  # its widths are not bounded
        return None

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _current()
        budget.step()
        if operator == "+" and type(left) is str and type(right) is str:  # nearly all there is to do in a template
            budget.spend(len(left) + len(right))
            return left + right
        sized = (str, list, tuple)
        if operator == "+" and isinstance(left, sized) and isinstance(right, sized):
            _current().spend((len(left) + len(right)) * (1 if isinstance(left, str) else 16))
        elif operator == "*" and (isinstance(left, sized) or isinstance(right, sized)):
            text, times = (left, right) if isinstance(left, sized) else (right, left)
            if isinstance(times, int) and times > 0:
                _current().spend(len(text) * times * (1 if isinstance(text, str) else 16))
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > MAX_NUMBER_BITS:
                raise TemplateError("a number is too large")
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > MAX_NUMBER_BITS:
                raise TemplateError("a number is too large")
        elif operator == "%" and isinstance(left, str):
            if re.search(r"%[^a-zA-Z%]*(\d{4}|\*)", left):
                raise TemplateError("a format is too wide")
            _current().spend(len(left) + 1000 * left.count("%") + _weight(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as jinja has it
        _current().step()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args, **kwargs)
        if isinstance(owner, str) and name == "join":
            return _join(args[0], owner)
        return _charged(super().call(__context, __obj, *args, **kwargs))


def _bounded_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, with a step for its call and its result charged. Keeps jinja's pass_* marks."""

    def bounded(*args: Any, **kwargs: Any) -> Any:
        _current().step()
        return _charged(function(*args, **kwargs))

    bounded.__dict__.update(getattr(function, "__dict__", {}))
    return bounded


def environment() -> jinja2.Environment:
    """A fresh environment for chat templates."""
    made = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        finalize=_printed,
        cache_size=0,
        extensions=[jinja2.ext.loopcontrols, _GenerationTag],
    )
    made.filters = {name: _bounded_filter(made.filters[name]) for name in _FILTERS} | {
        "replace": _replace,
        "join": _join,
        "tojson": _tojson,
        "indent": _indent,
        "string": lambda value: _concat([value]),
        "~concat": _concat,
        "~charged": _charged,
        "~steps": _steps,
    }
    kept = {name: made.globals[name] for name in ("dict", "namespace", "joiner", "cycler")}
    made.globals.clear()
    made.globals.update(kept, range=_range, raise_exception=_raise_exception)
    return made


def compiled(source: str) -> jinja2.Template:
    """Compile a template's source. Raises TemplateError."""
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"its source is longer than {MAX_SOURCE} characters")
    try:
        return environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
        raise TemplateError(_why(error)) from None


def render(template: jinja2.Template, variables: Mapping[str, Any], date: datetime.date, characters: int) -> str:
    """Render with `variables`; `characters` is the messages' own length. Raises TemplateError, and nothing else."""

    def strftime_now(form: Any) -> str:
        if not isinstance(form, str) or len(form) > 100 or re.search(r"%\D?\d", form):
            raise TemplateError("a date format is not usable")
        return date.strftime(form)

    budget = _Budget(characters)
    token = _budget.set(budget)
    try:
        parts = []
        for part in template.generate(dict(variables), strftime_now=strftime_now):
            budget.step()
            budget.spend(len(part))
            parts.append(part)
        return "".join(parts)
    except TemplateError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        raise TemplateError(_why(error)) from None
    finally:
        _budget.reset(token)


def _why(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return said[0][:200] if said else type(error).__name__
