"""A stranger's chat template: what fails, escapes or explodes is refused within bounds, and a plain one takes over."""

import datetime
import time
import tracemalloc

import pytest

from engine.chat_template import ChatTemplate
from engine.errors import TemplateError
from engine.template_sandbox import compiled, render

BROKEN = {
    "syntax": "{% if %}",
    "unknown filter": "{{ messages | frobnicate }}",
    "raises": "{{ raise_exception('I refuse') }}",
    "undefined": "{{ nothing.at.all }}",
    "division": "{{ 1 // 0 }}",
    "include": "{% include 'x' %}",
    "leaves the message out": "constant",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "too long": "x" * (129 << 10),
}
ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "format map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "join attribute": "{{ [1]|join(attribute='__class__') }}.{{ 0/0 }}",
    "map attribute": "{{ [1]|map(attribute='__class__')|list|first|string + 1 }}",
    "cycler": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "namespace": "{{ namespace.__init__ }}{{ ''.mro() }}",
    "append": "{% set x = [1] %}{{ x.append(2) }}",
    "change a message": "{{ messages[0].update({'content': 'y'}) }}",
}
LOOP_TEXT = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
LOOP_LIST = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
BOMBS = {
    "times": "{{ 'a' * 10**9 }}",
    "list times": "{{ ([1] * 10**9) | length }}",
    "power": "{{ 10 ** (10 ** 8) }}",
    "power of powers": "{% set ns = namespace(x=9**99) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "range list": "{{ range(10**9) | list }}",
    "nested ranges": (
        "{% for a in range(9999) %}{% for b in range(9999) %}"
        "{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}"
    ),
    "doubling": LOOP_TEXT + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by ~": LOOP_TEXT + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling blocks": (LOOP_TEXT + "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}"),
    "doubling lists": (LOOP_LIST + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"),
    "doubling lists to json": (LOOP_LIST + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}"),
    "replace": "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "replace filter": "{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}",
    "join": "{{ ('b' * 10**6).join(range(9999) | list) }}",
    "join filter": "{{ range(9999) | join('b' * 10**6) }}",
    "center": "{{ 'a'.center(10**9) }}",
    "center filter": "{{ 'a' | center(10**9) }}",
    "format width": "{{ '%999999999d' % 1 }}",
    "format star": "{{ '%*d' % (999999999, 1) }}",
    "str.format width": "{{ '{:>999999999}'.format(1) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "to_bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "indent": "{{ ('a\n' * 10**5) | indent(10**6) }}",
    "slices": "{% set ns = namespace(l=[]) %}{% set x = 'a' * 10**6 %}{% for i in range(9999) %}"
    "{% set ns.l = ns.l + [x[1:]] %}{% endfor %}",
    "macro tree": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "date": "{{ strftime_now('%999999d') }}",
}


def refused(source):
    """The reason for which rendering the source fails."""
    with pytest.raises(TemplateError) as error:
        render(compiled(source), {"messages": [{"role": "user", "content": "x"}]}, datetime.date(2026, 3, 9), 1)
    return error.value.why


@pytest.mark.parametrize("name", [*BROKEN, *ESCAPES])
def test_what_fails_falls_back_to_plain_and_says_why(name):
    template = ChatTemplate((BROKEN | ESCAPES)[name], None, "<s>", "</s>")
    said = [("system", "sys"), ("user", "one"), ("assistant", "two"), ("user", "three")]
    rendered = template.render([{"role": role, "content": content} for role, content in said])
    assert rendered.text == "sys\n\nUser: one\nAssistant: two\nUser: three\nAssistant:"
    assert rendered.fallback
    assert "0x" not in rendered.text


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_fast_and_small(name):
    # Tracing memory would make the many steps of these ten times slower.
    counts_steps = name in {"macro tree", "nested ranges"}
    if not counts_steps:
        tracemalloc.start()
    start = time.thread_time()
    try:
        why = refused(BOMBS[name])
        spent, peak = time.thread_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert why
    assert spent < 9
    assert peak < 128 << 20
