"""Writes template_goldens.json: every template of templates/ over every conversation, as transformers renders them.

    python tests/conformance/make_template_goldens.py

with transformers installed. What a template refuses is null.
"""

import datetime
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conformance.conversations import CONVERSATIONS, DATE

HERE = Path(__file__).parent
TARGET = HERE / "template_goldens.json"
TEMPLATES = {path.stem: path for path in sorted((HERE / "templates").glob("*.jinja"))}
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}


def main():
    import jinja2
    import transformers
    from transformers.utils import chat_template_utils

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(*DATE)

    chat_template_utils.datetime = Frozen
    made = {}
    for name, path in TEMPLATES.items():
        for title, messages in CONVERSATIONS.items():
            for header in (True, False):
                try:
                    rendered, _ = chat_template_utils.render_jinja_template(
                        [messages], chat_template=path.read_text(), add_generation_prompt=header, **SPECIALS
                    )
                    text = rendered[0]
                except jinja2.TemplateError:
                    text = None
                made.setdefault(name, {}).setdefault(title, []).append(text)
    versions = f"transformers {transformers.__version__}, jinja2 {jinja2.__version__}"
    TARGET.write_text(json.dumps({"made_with": versions, "rendered": made}, indent=0) + "\n")


if __name__ == "__main__":
    main()
