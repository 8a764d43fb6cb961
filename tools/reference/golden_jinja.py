"""Goldens for tests/text/jinja_test.cpp: renders by transformers and jinja2.

usage: golden_jinja.py OUT [DATA]

OUT (tests/golden/chat) has templates/*.jinja, written in the style of well-known model families. Writes OUT/renders.json:
every template against every conversation and set of variables, and OUT/language.json: small templates that show one
thing each. With DATA (the shared folder tokenizers/), also OUT/models.json: the same conversations through the chat
templates of real models, which are not in the repository; tests that use these renders need that folder.
"""

import json
import sys
from pathlib import Path

from chat_reference import render

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather \"now\" in a city",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "City name"},
        "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "place": {"type": "object", "properties": {"lat": {"type": "number"}, "tags": {"type": "array", "items": {"type": "object"}}}, "required": ["lat"]},
        "when": {"oneOf": [{"type": "string"}, {"type": "number", "description": "seconds"}]}},
        "required": ["city"]}, "return": {"type": "string"}}}
PING = {"type": "function", "function": {"name": "ping", "description": "", "parameters": {}}}


def call(name, arguments, number="call00001"):
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hi"}],
    "system": [{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "Hi"}],
    "turns": [{"role": "system", "content": "S"}, {"role": "user", "content": "  two\n"}, {"role": "assistant", "content": "a\n "}, {"role": "user", "content": "{{ x }} {% if %}"}, {"role": "assistant", "content": "end"}],
    "unicode": [{"role": "user", "content": "\u4f60\u597d \U0001f600 na\u00efve \u0130 \u00df"}, {"role": "assistant", "content": "\u00e9\u00c9 <b>&\"'\\"}, {"role": "user", "content": "\u3053\u3093"}],
    "thoughts": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nold\n</think>\n\nA"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "<think>\nnew\n</think>\n\nB"}],
    "reasoning": [{"role": "user", "content": "q"}, {"role": "assistant", "reasoning_content": "because", "content": "A"}],
    "tools": [{"role": "system", "content": "S"}, {"role": "user", "content": "Oslo?"}, {"role": "assistant", "content": None, "tool_calls": [call("get_weather", {"city": "Oslo", "days": [1, 2], "note": "\u00f8"})]}, {"role": "tool", "tool_call_id": "call00001", "content": "3 C"}, {"role": "assistant", "content": "3 degrees."}, {"role": "user", "content": "Thanks"}],
    "two_calls": [{"role": "user", "content": "Both?"}, {"role": "assistant", "content": "", "reasoning_content": "two", "tool_calls": [call("get_weather", {"city": "A"}), call("ping", {}, "call00002")]}, {"role": "tool", "tool_call_id": "call00001", "content": "{\"t\": 1}"}, {"role": "tool", "tool_call_id": "call00002", "content": "ok"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "see "}, {"type": "image"}, {"type": "text", "text": "this"}]}],
    "empty_text": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    "assistant_first": [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "x"}],
    "none": [],
}
VARIABLE_SETS = [
    {},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "tools": [WEATHER, PING]},
    {"tools": [WEATHER], "tools_in_user_message": False, "builtin_tools": ["get_weather", "code_interpreter"], "enable_thinking": True, "reasoning_effort": "high"},
    {"add_generation_prompt": True, "enable_thinking": False, "documents": [{"title": "T", "text": "two\nlines"}, {"text": "\u00e9"}]},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

LANGUAGE = [
    # White space
    "  {% if true %}\n  a\n  {% endif %}\nb", "a\n{%- if true -%}\n b {%- endif %}\n c", "x {%+ if true %} y{% endif +%}\nz", "{# c #}\na{#- b -#} \n c",
    "{% raw %}{{ x }}{% endraw %}\n1", "a\n  {{ 1 }}\n  {{- 2 -}}  \nb\n", "a\r\nb\rc\n\n", "{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\n", "\t {% set x = 1 %}\t\nq", "{%- raw -%} {% x %} {%- endraw -%} z",
    # Scopes
    "{% set x = 1 %}{% for i in [1,2] %}{% set x = i %}{{ x }}{% endfor %}{{ x }}", "{% for i in [1] %}{{ n }}{% endfor %}{% set n = 5 %}{{ n }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 3 %}{{ m() }}", "{% if false %}{% set n = 1 %}{% endif %}{{ n }}", "{% set ns = namespace(c=0) %}{% for i in l %}{% set ns.c = ns.c + i %}{% endfor %}{{ ns.c }}",
    "{% for i in [1,2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "{% set x %}a{% set y = 2 %}{{ y }}{% endset %}{{ x }}{{ y }}", "{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% set x, y = (1, 2) %}{{ y }}{{ x }}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% set ns = namespace() %}{% set ns.m %}body{% endset %}{{ ns.m }}",
    # Loops
    "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% else %}none{% endfor %}", "{% for x in [] %}a{% else %}b{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.revindex0 }}{% endfor %}", "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}",
    "{% for x in [1] %}{% continue %}{% else %}E{% endfor %}", "{% for x in [[1,[2]],3] recursive %}{{ loop(x) if x is iterable else x }}@{{ loop.depth }}{% endfor %}", "{% for a in 'h\u00e9' %}{{ loop.cycle('x','y') }}{{ a }}{% endfor %}",
    "{% for x in [1,1,2] %}{{ loop.changed(x) }}{% endfor %}", "{% for x in range(5, 0, -2) %}{{ x }}{% endfor %}", "{% for x in {'a': 1} %}{{ x }}{{ loop.first }}{% endfor %}",
    # Macros and blocks
    "{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }}{{ f(1, 3, 4, 5, z=6) }}", "{% macro f() %}[{{ caller(1) }}]{% endmacro %}{% call(x) f() %}{{ x }}!{% endcall %}",
    "{% filter upper|trim %} a{{ s }} {% endfilter %}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}", "{{ f }}{% macro f() %}{% endmacro %}{{ f.name }}{{ f.arguments }}",
    "a{% generation %}b\u00e9{{ s }}{% endgeneration %}c{% generation %}{% endgeneration %}", "{% for m in w %}{% generation %}{{ m }}{% endgeneration %}-{% endfor %}",
    # Expressions
    "{{ 1 + 2 * 3 - 4 / 2 // 1 % 3 ** 2 }}", "{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 7.5 // 2 }} {{ 1 / 3 }}", "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1] < [1, 2] }}",
    "{{ a ~ 1 ~ none ~ true }}", "{{ 'x' if n > 3 }}|{{ 'x' if n > 9 }}|{{ 'x' if n > 9 else 'y' }}", "{{ not n == 7 and z or 'last' }}", "{{ 'a' in 'cat' }}{{ 3 not in l }}{{ 'a' in d }}{{ none in [none] }}",
    "{{ l[-1] }}{{ l[1:] }}{{ l[::-1] }}{{ s[1:-1:2] }}{{ l[9] is defined }}{{ d['b'] }}{{ d.items is defined }}{{ d['items'] }}", "{{ (1,) + (2, 3) }}{{ [1] * 3 }}{{ 'ab' * 2 }}{{ {'k': [1, none, true, 2.0, 'q\\'s']} }}",
    "{{ 1e3 }} {{ 1e16 }} {{ 1e-5 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ 2.0 }} {{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }}", "{{ 'a' 'b' \"c\\n\\t\\x41\\u00e9\\101\" }}", "{{ missing }}|{{ (missing.a is defined) if missing is defined else 'no' }}|{{ missing is undefined }}|{{ missing|default('d') }}",
    "{{ missing.attribute }}", "{{ missing + 1 }}", "{{ n.nothing }}|{{ n.nothing is undefined }}", "{{ 'x' + 1 }}", "{{ 1 / 0 }}", "{{ {}.a.b }}", "{{ l.append(1) }}", "{{ s.__class__ }}", "{{ raise_exception('no: ' ~ n) }}", "{{ f() }}",
    # Filters
    "{{ d|tojson }}{{ d|tojson(indent=2) }}{{ [1, 'a\u00e9\\n\"<>&\\u007f', none, 1.5, 1e20]|tojson }}{{ '\u00e9\U0001f600'|tojson(ensure_ascii=true) }}{{ {'b': 1, 'a': []}|tojson(sort_keys=true, separators=(',', ':')) }}",
    "{{ [3, 1, 2]|sort }}{{ ['b', 'A', 'c']|sort }}{{ ['b', 'A']|sort(case_sensitive=true) }}{{ l|sort(reverse=true) }}{{ w|unique|list }}{{ l|min }}{{ l|max }}{{ l|sum }}{{ w|first }}{{ w|last }}{{ []|first }}",
    "{{ messages|map(attribute='role')|join(', ') }}{{ messages|selectattr('content')|list|length }}{{ messages|rejectattr('role', 'eq', 'user')|map(attribute='role')|list }}{{ [1, 2, 3]|select('odd')|list }}{{ w|map('upper')|list }}{{ [0, 1, '']|select|list }}",
    "{{ 'hello world-foo (bar)'|title }}{{ 'hELLO'|capitalize }}{{ '  x '|trim }}{{ 'xxaxx'|trim('x') }}{{ 'aXbX'|replace('X', '-') }}{{ 'aXbX'|replace('X', '-', 1) }}{{ 'abc'|upper }}{{ 'stra\u00dfe'|upper }}{{ '\u03a3\u0391\u03a3'|lower }}",
    "{{ 'a\\nb\\n\\nc'|indent }}|{{ 'a\\nb'|indent(2, true) }}|{{ 'a\\n\\nb'|indent('> ', blank=true) }}", "{{ '12'|int }}{{ '1.9'|int }}{{ 'x'|int(7) }}{{ '0x1f'|int(base=16) }}{{ '1.5'|float }}{{ 'y'|float }}{{ 3.7|int }}{{ 2.5|round }}{{ 3.14159|round(2) }}{{ 2.1|round(method='ceil') }}{{ 1234|round(-2) }}{{ -3|abs }}",
    "{{ [1, 2, 3, 4, 5]|batch(2, 0)|list }}{{ [1, 2, 3, 4, 5]|slice(2)|list }}{{ messages|groupby('role')|map('first')|list }}{{ d|dictsort }}{{ d|items|list }}{{ {'b': 1, 'A': 2}|dictsort(by='value', reverse=true) }}",
    "{{ '<a>'|e }}{{ '<a>'|safe ~ '<b>' }}{{ '<a>'|safe + '<b>' }}{{ ('<a>'|e)|e }}", "{{ '%s=%d %5.2f|%-4s|' % ('a', 3, 2.5, 'x') }}{{ '%s'|format(s) }}{{ '{} {0}'.format(1) if false else '{1}{0}{k:>4}'.format(1, 2, k='q') }}{{ '{:.2f} {:05d} {:,}'.format(1.005, 42, 1234567) }}",
    "{{ 'a b c'.split() }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ' x '.strip() }}{{ 'xyx'.lstrip('x') }}{{ 'a-b'.partition('-') }}{{ 'abc'.find('c') }}{{ 'abcabc'.count('b') }}{{ ','.join(['a', 'b']) }}{{ 'a\\nb'.splitlines() }}{{ 'abc'.startswith(('x', 'a')) }}",
    "{{ d.get('b') }}{{ d.get('q', 'z') }}{{ d.keys()|list }}{{ d.values()|list }}{{ d.keys() }}{{ d.items() }}", "{{ 'x' is string }}{{ {} is mapping }}{{ [] is sequence }}{{ 1 is number }}{{ true is boolean }}{{ 1.0 is float }}{{ none is none }}{{ 4 is divisibleby 2 }}{{ 'A' is upper }}{{ l is iterable }}{{ 3 is odd }}{{ 1 is in [1] }}{{ 1 is sameas 1 }}{{ f is callable }}",
    "{{ strftime_now('%Y-%m-%d %H:%M') }}", "{{ range(3) }}{{ range(1, 9, 3)|list }}{{ dict(a=1, b=2) }}{{ namespace(a=1) }}", "{{ range(200000) }}", "{{ 'a'|unknown }}", "{{ 'x'|truncate(3) }}{{ 'hello big world'|truncate(9, leeway=0) }}{{ 'a b'|wordcount }}{{ 'a b/c&d'|urlencode }}{{ 'x'|center(5) }}|",
    # What cannot be parsed
    "{% if %}", "{{ 1 +", "{% for x in %}{% endfor %}", "{% endif %}", "{{ 'a }}", "{% unknown %}", "{% if a %}", "{{ (1 }}", "{% set 1 = 2 %}", "{% for loop in l %}{% endfor %}", "{% break %}", "{{ a b }}", "{% macro f(a=1, b) %}{% endmacro %}", "{{ x is defined is none }}", "{{ 1 if }}",
]
LANGUAGE_VARIABLES = {"n": 7, "z": 0, "a": "A", "s": "Hello", "l": [3, 1, 2], "w": ["b", "A", "b"], "d": {"b": 1, "a": "x", "items": 5}, "messages": CONVERSATIONS["tools"]}


def model_renders(folder):
    renders = []
    for model in sorted(path.parent for path in folder.glob("*/tokenizer_config.json")):
        config = json.loads((model / "tokenizer_config.json").read_text())
        if "chat_template" not in config:
            continue
        tokens = {key: value if isinstance(value, str) else value["content"] for key, value in config.items()
                  if key.endswith("_token") and (isinstance(value, str) or (isinstance(value, dict) and "content" in value))}
        for name, messages in CONVERSATIONS.items():
            for index, variables in enumerate(VARIABLE_SETS):
                result = render(config["chat_template"], {**tokens, **variables, "messages": messages})
                renders.append({"model": model.name, "conversation": name, "variables": index, **result})
    return renders


def write(path, data):
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def main():
    out = Path(sys.argv[1])
    renders = []
    for path in sorted((out / "templates").glob("*.jinja")):
        for name, messages in CONVERSATIONS.items():
            for index, variables in enumerate(VARIABLE_SETS):
                result = render(path.read_text(), {**TOKENS, **variables, "messages": messages})
                renders.append({"template": path.stem, "conversation": name, "variables": index, **result})
    write(out / "renders.json", {"tokens": TOKENS, "conversations": CONVERSATIONS, "variables": VARIABLE_SETS, "renders": renders})
    write(out / "language.json", {"variables": LANGUAGE_VARIABLES, "cases": [{"template": t, **render(t, LANGUAGE_VARIABLES)} for t in LANGUAGE]})
    if len(sys.argv) > 2:
        write(out / "models.json", model_renders(Path(sys.argv[2])))


if __name__ == "__main__":
    main()
