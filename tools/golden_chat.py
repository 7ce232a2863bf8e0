#!/usr/bin/env python3
"""Writes tests/golden/chat/templates.json: conversations as the models' published chat templates render them.

Packages: jinja2. The templates are not in this repository: --templates names a folder with FAMILY.jinja or
FAMILY.ANYTHING.jinja files, the chat_template of models of each family (several of one family must agree). A family's
system message is left out where its templates refuse one or move it, and replies at the end where they write more than the
conversation; see SKIPPED.
"""
import argparse
import json
import pathlib

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

BOS, EOS = "<s>", "</s>"
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
CONVERSATIONS = [
    [(USER, "Hello")],
    [(USER, "Hello"), (ASSISTANT, "Hi there"), (USER, "Who are you")],
    [(USER, "Hello"), (ASSISTANT, "Hi there")],
    [(SYSTEM, "You are a helpful assistant"), (USER, "Hello"), (ASSISTANT, "Hi there"), (USER, "Who are you"),
     (ASSISTANT, "   I am an assistant   "), (USER, "Another question")],
    [(SYSTEM, "  be brief \n"), (USER, "\n  spaces \u00a0around\u3000\n")],
    [(USER, "<s>[INST] <|im_end|> <start_of_turn> </s>"), (ASSISTANT, "caf\u00e9 \U0001f999"), (USER, "")],
]
# The first templates of these write no beginning-of-sequence token, which their tokenizers add.
ADDS_BOS = ("chatml", "llama3", "phi3")
SKIPPED = {
    "gemma.2": SYSTEM, "mistral-v0": SYSTEM, "mistral-v3": SYSTEM, "mistral-v3-tekken": SYSTEM,
    "llama3": ASSISTANT, "phi3": ASSISTANT,
}


def render(text, conversation):
    def refuse(message):
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    messages = [{"role": role, "content": content} for role, content in conversation]
    return environment.from_string(text).render(
        messages=messages, add_generation_prompt=conversation[-1][0] == USER, bos_token=BOS, eos_token=EOS)


def main():
    root = pathlib.Path(__file__).parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--templates", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests/golden/chat/templates.json")
    arguments = parser.parse_args()
    cases = {}
    for path in sorted(arguments.templates.glob("*.jinja")):
        family = path.name.split(".")[0]
        skipped = SKIPPED.get(path.name.removesuffix(".jinja"), SKIPPED.get(family))
        for number, conversation in enumerate(CONVERSATIONS):
            if conversation[0][0] == skipped or conversation[-1][0] == skipped:
                continue
            text = render(path.read_text(), conversation)
            if family in ADDS_BOS and not text.startswith(BOS):
                text = BOS + text
            known = cases.setdefault((family, number), text)
            assert known == text, f"{path}: conversation {number} differs: {known!r} and {text!r}"
    lines = [json.dumps({"family": family, "messages": [list(m) for m in CONVERSATIONS[number]], "text": text})
             for (family, number), text in sorted(cases.items())]
    source = f"tools/golden_chat.py, jinja2 {jinja2.__version__}, published templates of each family"
    arguments.out.write_text('{\n"source": ' + json.dumps(source) + ',\n"cases": [\n' + ",\n".join(lines) + "\n]}\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
