#!/usr/bin/env python3
"""Writes the seeds of the fuzz corpus: small valid inputs that reach every branch of a reader.

Run from anywhere; inputs that a fuzzer found and that stay as reproducers lie in the same folders under other names.
"""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def payload(kind, value):
    if kind == STRING:
        return string(value)
    if kind == ARRAY:
        inner, values = value
        return struct.pack("<IQ", inner, len(values)) + b"".join(payload(inner, v) for v in values)
    return struct.pack("<" + FORMATS[kind], value)


def gguf(entries, tensors=(), version=3, alignment=32):
    out = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(entries))
    for key, kind, value in entries:
        out += string(key) + struct.pack("<I", kind) + payload(kind, value)
    data = b""
    for name, ne, type_id, size in tensors:
        out += string(name) + struct.pack("<I", len(ne)) + struct.pack(f"<{len(ne)}Q", *ne)
        out += struct.pack("<IQ", type_id, len(data))
        data += bytes(size) + bytes(-size % alignment)
    return out + bytes(-len(out) % alignment) + data if tensors else out


ARCHITECTURE = [
    ("general.architecture", STRING, "llama"),
    ("llama.block_count", U32, 2),
    ("llama.context_length", U64, 64),
    ("llama.embedding_length", U32, 32),
    ("llama.feed_forward_length", ARRAY, (I32, [64, 96])),
    ("llama.attention.head_count", U16, 4),
    ("llama.attention.head_count_kv", ARRAY, (U32, [2, 4])),
    ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
    ("llama.expert_count", U8, 4),
    ("llama.expert_used_count", U8, 2),
]
TOKENS = ["<unk>", "<s>", "</s>", "<0x0A>", "\u2581", "a", "b", "ab", "\u2581a", "[x]", b"\xff"]
TOKENIZER = [
    ("tokenizer.ggml.model", STRING, "llama"),
    ("tokenizer.ggml.tokens", ARRAY, (STRING, TOKENS)),
    ("tokenizer.ggml.scores", ARRAY, (F32, [float(-i) for i in range(len(TOKENS))])),
    ("tokenizer.ggml.token_type", ARRAY, (I32, [2, 3, 3, 6, 1, 1, 1, 1, 1, 4, 1])),
    ("tokenizer.ggml.bos_token_id", U32, 1),
    ("tokenizer.ggml.eos_token_id", U32, 2),
    ("tokenizer.ggml.add_bos_token", BOOL, True),
]
EVERY_TYPE = [(f"k{kind}", kind, 1) for kind in FORMATS] + [
    ("s", STRING, "text"),
    ("flags", ARRAY, (BOOL, [True, False])),
    ("nested", ARRAY, (ARRAY, [(U8, [1, 2]), (STRING, ["a", "bc"]), (ARRAY, [(ARRAY, [])])])),
]

GGUF = {
    "empty": gguf([]),
    "version2": gguf([("general.name", STRING, "two")], version=2),
    "types": gguf(EVERY_TYPE),
    "architecture": gguf(ARCHITECTURE),
    "tokenizer": gguf(TOKENIZER),
    "tensors": gguf(
        [],
        [("f32", [3, 2], 0, 24), ("q4_0", [32, 2], 2, 36), ("none", [0, 5], 0, 0), ("scalar", [], 28, 8),
         ("iq2_xs", [256], 17, 74), ("strange", [7], 97, 9), ("deep", [2, 1, 2, 1], 1, 8)],
    ),
    "aligned": gguf([("general.alignment", U32, 64)], [("a", [5], 24, 5), ("b", [5], 25, 10)], alignment=64),
    "all": gguf(ARCHITECTURE + TOKENIZER, [("token_embd.weight", [32, 11], 0, 1408)]),
}


def parts(*files):
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def part(number, count, tensors, entries=(), all_tensors=None):
    split = [("split.no", U16, number), ("split.count", U16, count), ("split.tensors.count", I32, all_tensors)]
    return gguf(list(entries) + split, [(name, [4], 0, 16) for name in tensors])


PARTS_OF_A_MODEL = {
    "one": parts(part(0, 1, ["a", "b"], all_tensors=2)),
    "three": parts(part(0, 3, ["a", "b"], ARCHITECTURE, 4), part(1, 3, ["c"], all_tensors=4), part(2, 3, ["d"], all_tensors=4)),
    "metadata_first": parts(part(0, 2, [], TOKENIZER, 1), part(1, 2, ["a"], all_tensors=1)),
    "twice": parts(part(0, 2, ["a"], all_tensors=2), part(1, 2, ["a"], all_tensors=2)),
    "swapped": parts(part(1, 2, ["a"], all_tensors=2), part(0, 2, ["b"], all_tensors=2)),
    "short": parts(part(0, 2, ["a"], all_tensors=3), part(1, 2, ["b"], all_tensors=3)),
}


def vocabulary(tokens, text, flags=0):
    out = bytes([flags, len(tokens)])
    for token, kind, score in tokens:
        raw = token if isinstance(token, bytes) else token.encode()
        out += bytes([len(raw) | (kind - 1) << 5, score & 0xFF]) + raw
    return out + (text if isinstance(text, bytes) else text.encode())


WORDS = [("a", 1, -1), ("b", 1, -2), ("ab", 1, -3), ("\u2581a", 1, -4), ("\u2581\u2581", 1, -5), ("aa", 1, -6)]
SPECIAL = [("[x]", 4, 0), ("[x][y]", 4, 0), ("<go>", 3, 0), ("<", 1, 0), ("go>", 1, 0), ("\n\n", 4, 0), ("u", 5, 0)]
PARTS = [(b"\xe2\x96", 1, 0), (b"\x81", 1, 0), (b"\xf0\x9f", 4, 0), (b"\xa6\x99", 1, 3), ("\u2581", 4, 0)]
TOKENIZERS = {
    "words": vocabulary(WORDS, "ab  aab ba\n\u00e9 \U0001f999"),
    "special": vocabulary(WORDS + SPECIAL, "a[x][x][y] <go> a<go>\n\n\nu"),
    "parts": vocabulary(PARTS + WORDS, "a\U0001f999 \U0001f999b".encode() + b"\xe2\x96 \xff\xe2"),
    "runs": vocabulary([("a" * n, 1, n) for n in (1, 2, 4, 8, 16)] + [("b" * n, 4, 0) for n in (1, 2, 3)], "a" * 90 + "b" * 20),
    "no_prefix": vocabulary(WORDS + SPECIAL, "a [x] b", flags=4),
    "incomplete": vocabulary([("<unk>", 3, 0)] + WORDS, "ab z", flags=3),
    "doubled": vocabulary(WORDS + WORDS, "ab", flags=2),
}



def byte_pairs(rule, merges, tokens, text, flags=0):
    out = bytes([flags, rule, len(merges)])
    for merge in merges:
        out += merge if isinstance(merge, bytes) else bytes(merge)
    out += bytes([len(tokens)])
    for token, kind in tokens:
        raw = token if isinstance(token, bytes) else token.encode()
        out += bytes([len(raw) | (kind - 1) << 5]) + raw
    return out + (text if isinstance(text, bytes) else text.encode())


LETTERS = [(ord("a"), ord("b")), (ord(" "), ord("a")), (ord("a"), ord("a")), (0xC3, 0xA9), (ord("1"), ord("2")), (ord(" "), ord(" "))]
ENTRIES = [("[x]", 4), ("[x][y]", 4), ("<go>", 3), ("\u0120a", 4), ("  ", 4), (b"\xff", 1), ("<unk>", 2), ("old", 5)]
MIXED = "ab  aab'S 1234567 it's\r\n\u4e2d\u6587\u3042 \u0301e\u0301 <go>[x][x][y]!? caf\u00e9 \U0001f999\u3000".encode() + b"\xff\xe4\xb8 a"
BYTE_PAIRS = {f"rule{rule}": byte_pairs(rule, LETTERS, ENTRIES[:4], MIXED) for rule in (2, 4, 8, 10, 11, 12, 13, 15, 18, 24, 25, 28, 47, 64, 65, 72, 76, 80)}
BYTE_PAIRS |= {
    "absent": byte_pairs(24, LETTERS, ENTRIES, MIXED, flags=1),
    "doubled": byte_pairs(24, LETTERS, ENTRIES + ENTRIES, "ab", flags=2),
    "lines": byte_pairs(24, [b"\x03a b", b"\x05\xc4\xa0 ab", b"\x03  a"], ENTRIES, " ab", flags=4),
    "broken_lines": byte_pairs(24, [b"\x03a b", b"\x02ab"], [], "ab", flags=4),
    "runs": byte_pairs(47, [(ord("a"), ord("a")), (255, 255), (254, 254)], [], "a" * 90 + " " * 40 + "\n" * 9),
}

for folder, seeds in (("gguf", GGUF), ("gguf_parts", PARTS_OF_A_MODEL), ("tokenizer", TOKENIZERS), ("byte_pairs", BYTE_PAIRS)):
    (CORPUS / folder).mkdir(parents=True, exist_ok=True)
    for name, raw in seeds.items():
        (CORPUS / folder / name).write_bytes(raw)
