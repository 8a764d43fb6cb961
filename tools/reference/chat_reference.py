"""How transformers renders a chat template; shared by golden_jinja.py and check_jinja.py."""

from datetime import datetime

from transformers.utils.chat_template_utils import _compile_jinja_template, _render_with_assistant_indices

NOW = datetime(2025, 2, 3, 14, 5)  # what strftime_now sees


def compile_template(source):
    template = _compile_jinja_template(source)
    template.environment.globals["strftime_now"] = NOW.strftime
    return template


def render(source, variables):
    """{"text", "generations"} with byte offsets, or {"error"}."""
    try:
        template = compile_template(source)
        given = dict(variables)
        fixed = {key: given.pop(key, None) for key in ("messages", "tools", "documents", "add_generation_prompt")}
        text, indices = _render_with_assistant_indices(template, **fixed, **given)
    except RecursionError:
        return {"error": "RecursionError"}
    except Exception as error:  # whatever jinja2 raises is a refusal
        return {"error": f"{type(error).__name__}: {error}"}
    offsets = [[len(text[:begin].encode()), len(text[:end].encode())] for begin, end in indices]
    return {"text": text, "generations": offsets}
