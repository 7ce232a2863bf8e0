#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_classes.inc: the class that each code point has in the splitting rules of byte-level BPE.

The classes are those of Unicode 15.1, which models' reference implementations use; a tokenizer must not change with the
version of a library, so the table lies in the repository. Run from the repository's root with unicodedata2 15.1.0.
"""
import pathlib

import unicodedata2

assert unicodedata2.unidata_version == "15.1.0", unicodedata2.unidata_version
# White_Space beyond ASCII.
SPACES = {0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
CLASSES = {"L": "letter", "M": "mark", "N": "number", "P": "punctuation", "S": "symbol"}
SHORT = {"letter": "L", "mark": "M", "number": "N", "punctuation": "P", "symbol": "S", "space": "W", "other": "O"}


def class_of(code):
    return "space" if code in SPACES else CLASSES.get(unicodedata2.category(chr(code))[0], "other")


ranges = []
for code in range(0x80, 0x110000):
    name = class_of(code)
    if not ranges or ranges[-1][1] != name:
        ranges.append((code, name))
lines = ["// Written by tools/unicode_classes.py: first code point and class of each run from U+0080 on, Unicode 15.1."]
line = ""
for code, name in ranges:
    item = f"{SHORT[name]}(0x{code:x}) "
    if len(line) + len(item) > 118:
        lines.append(line.rstrip())
        line = ""
    line += item
lines.append(line.rstrip())
(pathlib.Path(__file__).parent.parent / "src/tokenizer/unicode_classes.inc").write_text("\n".join(lines) + "\n")
print(len(ranges), "runs")
