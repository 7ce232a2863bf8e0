#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/rules.json: what llama.cpp makes of texts by each splitting rule of byte-level BPE.

Packages: gguf, llama-cpp-python.

The vocabulary is trained here on the same texts with no regard to words, so that its merges reach across every place where
a rule may cut: a cut in another place shows in the tokens. Rules that give the same tokens for all texts share one row of
hashes (CRC-32 of the ids as little-endian 32-bit numbers, 8 hexadecimal digits a text).
"""
import argparse
import collections
import json
import pathlib
import random
import struct
import tempfile
import unicodedata
import zlib

import gguf
import llama_cpp

MERGES = 2600
RULES = """a.x-4.0 bailingmoe bailingmoe2 bloom chameleon chatglm-bpe codeshell command-r dbrx deepseek-coder deepseek-llm
deepseek-r1-qwen deepseek-v3 default exaone exaone-moe exaone4 f2llmv2 falcon falcon-h1 falcon3 gigachat glm4 glm5 gpt-2
gpt-4o gpt3-finnish granite-docling granite-embed-multi-97m grok-2 hunyuan hunyuan-dense hy_v4 jais jina-de jina-es
jina-v1-en jina-v2-code jina-v2-de jina-v2-es jina-v5-nano joyai-llm kanana2 kormo laguna lfm2 llada-moe llama-bpe llama-v3
llama3 llama4 megrez mellum mellum2 midm-2.0 minerva-7b minicpm5 minimax-m2 modern-bert mpt olmo phi-2 pixtral poro-chat
qwen2 qwen35 refact roberta-bpe seed-coder smaug-bpe smollm solar-open spark2_5 stablelm2 starcoder talkie tekken trillion
ufakzeka viking youtu""".split()

SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", "\v", "\f", "\x1c", "\x85", "\xa0", "\u1680", "\u180e", "\u2003",
          "\u200b", "\u2028", "\u202f", "\u3000", "\ufeff"]
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'RE", "'Re", "'rE", "'ve", "'VE", "'m", "'M", "'ll", "'LL", "'lL", "'d", "'D",
                "\u2019s", "'\u017f", "'x"]
WORDS = ["Hello", "world", "HELLO", "iPhone", "a", "I", "don", "ñandú", "Über", "ÜBER", "straße", "привет", "Москва",
         "αβγ", "日本語", "中文字", "ひらがな", "カタカナ", "한국어", "ㄅㄆㄇ", "ㄱㄴ", "ไทย", "العربية", "עברית", "हिन्दी", "বাংলা",
         "e\u0301", "a\u0308b", "ǅ", "ʰ", "ª", "ﬁ", "Ａｂｃ", "𝐀𝐛", "𐐀𐐨"]
NUMBERS = ["0", "12", "123", "1234", "1234567890", "3.14", "1,000", "½", "Ⅷ", "٣٤٥", "१२३", "²", "123٣456", "①", "𝟘𝟙"]
MARKS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + [
    "...", "--", "->", "<|end|>", "…", "。", "，", "、", "।", "۔", "«", "“", "”", "—", "€", "©", "→", "😀",
    "👨\u200d👩\u200d👧", "🏳️\u200d🌈", "\u0301", "\u20e3", "¿", "·", "\u00ad", "IMGIMGABCZ", "<sentinel:12>", "//"]
CONTROLS = ["\x00", "\x01", "\x1b", "\x7f", "\x80", "\x9f", "\ue000", "\ufffd", "\U0010ffff", "\u0378", "\U000e0001", "\U000323b0"]
SENTENCES = [
    "It's not what you'd think: they're here, we've seen them and I'm sure she'll say so. DON'T! CAN'T WE? It'S",
    "for (int i = 0; i < 1000; ++i) {\n    total += values[i] * 0.5f;  // half of it\n}\n\n\treturn total;\r\n",
    "Am 3. Oktober 2024 kostete es 1.234,56 € (statt 99999 €), also 12,5% mehr als 2019.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. 12345 раз!",
    "私は昨日、東京で友達と会いました。楽しかったです！カタカナとㄅㄆㄇ、한국어도。",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣٤٥ مرة.", "สวัสดีชาวโลก ๑๒๓๔", "हिन्दी में १२३४ शब्द हैं।", "Tiếng Việt có dấu: ạ ả ã à á",
    "https://example.org/a/path?query=1&other=%20#top user@example.org snake_case camelCase HTTPServer2",
    "| a | b |\n|---|---|\n| 1 | 22 |\n", "   leading, trailing   ", "x=1;y=-2;z=+3e-10", "tab\tand\t\ttabs",
    "'sure", "'sure, ", "'llama", "'llama; ", "don'tx", "1 a 1 a b2c b2c", "a\n\nb\n\n c\r\n\r\nd",
]
# Not trained on, and tokens that no merge makes are in them: for rules that take whole words.
UNTRAINED = ["Markdown", "see Markdown, Markdown; xMarkdown", "\n Markdown"]


def texts():
    draw = random.Random(7)
    out = ["", *SENTENCES]
    pools = [SPACES, CONTRACTIONS, WORDS, NUMBERS, MARKS, CONTROLS]
    weights = [6, 2, 5, 3, 4, 1]

    def piece():
        return draw.choice(draw.choices(pools, weights)[0])

    out += ["".join(piece() for _ in range(draw.randint(2, 25))) for _ in range(140)]
    by_category = collections.defaultdict(list)
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            by_category[unicodedata.category(chr(code))].append(chr(code))
    categories = sorted(by_category)
    for _ in range(140):
        out.append("".join(piece() if draw.random() < 0.4 else draw.choice(by_category[draw.choice(categories)])
                           for _ in range(draw.randint(2, 25))))
    for unit in [" ", "\n", "\r\n", "\t", "\u3000", "1", "'", "!", "a", "A", "é", "中", " a", "a ", " 1", " \n", "\n ", "aB", "\u0301"]:
        for count in (1, 2, 3, 5, 8):
            out += [unit * count, "x" + unit * count + "x"]
    return list(dict.fromkeys(out))


def letters():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    out, extra = {}, 0
    for byte in range(256):
        out[byte] = chr(byte) if byte in printable else chr(256 + extra)
        extra += byte not in printable
    return out


def train(corpus, alphabet):
    words = [[alphabet[b] for b in text.encode()] for text in corpus]
    merges = []
    while len(merges) < MERGES:
        pairs = collections.Counter()
        for word in words:
            pairs.update(zip(word, word[1:]))
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append((left, right))
        for at, word in enumerate(words):
            out, i = [], 0
            while i < len(word):
                if i + 1 < len(word) and word[i] == left and word[i + 1] == right:
                    out.append(left + right)
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            words[at] = out
    return merges


def write_vocabulary(path, rule, tokens, merges):
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_feed_forward_length(8)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    root = pathlib.Path(__file__).parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests/golden/tokenizer/rules.json")
    out = parser.parse_args().out
    corpus = texts()
    alphabet = letters()
    merges = train(corpus, alphabet)
    corpus += UNTRAINED
    extra = ["Markdown", "ĠMarkdown"]
    tokens = list(dict.fromkeys([*alphabet.values(), *(a + b for a, b in merges), *extra]))
    lines = [f"{a} {b}" for a, b in merges]
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for rule in RULES:
            path = str(pathlib.Path(folder) / "vocabulary.gguf")
            write_vocabulary(path, rule, tokens, lines)
            model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
            hashes = ""
            for text in corpus:
                ids = model.tokenize(text.encode(), add_bos=False, special=False)
                hashes += f"{zlib.crc32(struct.pack(f'<{len(ids)}i', *ids)):08x}"
            starts = model.tokenize(b"a", add_bos=True, special=False)[0] == 0
            rows.setdefault((hashes, starts), []).append(rule)
            del model
    with out.open("w", encoding="utf-8") as file:
        dump = lambda value: json.dumps(value, ensure_ascii=False)  # noqa: E731
        file.write("{\n" + f'"source": "tools/golden_tokenizer.py, llama-cpp-python {llama_cpp.__version__}",\n')
        file.write(f'"merges": {dump(lines)},\n"extra_tokens": {dump(extra)},\n"texts": {json.dumps(corpus)},\n"rules": [\n')
        file.write(",\n".join(dump({"names": names, "adds_bos": starts, "crc32": hashes})
                              for (hashes, starts), names in rows.items()))
        file.write("\n]}\n")
    print(len(corpus), "texts,", len(tokens), "tokens,", len(rows), "different rules")
    for (_, starts), names in rows.items():
        print(" ", starts, *names)


if __name__ == "__main__":
    main()
