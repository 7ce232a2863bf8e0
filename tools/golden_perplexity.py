#!/usr/bin/env python3
"""Perplexities of the demo model in llama.cpp: of a short text for tests/golden/perplexity.json, or of the held-out tenth.

Packages: gguf, llama-cpp-python, numpy.

The definition is that of llama.cpp's own program, on its library: chunks of `context` tokens, the first token of each replaced
by BOS, the second half scored; keys and values are F16, the program's default.

usage: golden_perplexity.py                                  # writes the golden file, and the text beside it with --corpus
       golden_perplexity.py --held-out held_out.txt --context 512   # prints the figures for that text
       golden_perplexity.py --corpus tinyshakespeare.txt --cut held_out.txt   # writes the held-out tenth
"""
import argparse
import json
import math
import pathlib

import gguf
import llama_cpp
import numpy as np

from golden_logits import SOURCE, Session, keep_quiet

TYPES = ("f16", "q8_0", "q4_k")


def held_out(corpus: pathlib.Path) -> str:
    """The part that train_demo.py never looked at."""
    text = corpus.read_bytes().decode("utf-8")
    return text[text.index("\n\n", len(text) * 9 // 10) + 2 :]


def perplexity(path: pathlib.Path, text: str, context: int, threads: int) -> tuple[float, float, int]:
    """(perplexity, standard error, scored tokens)"""
    session = Session(path, threads, gguf.GGMLQuantizationType.F16)
    tokens = session.tokenize(text.removesuffix("\n"), bos=True, special=False)
    if not llama_cpp.llama_vocab_get_add_bos(session.vocab):
        raise SystemExit(f"{path} adds no BOS")
    surprises = []
    for start in range(0, len(tokens) - context + 1, context):
        chunk = [llama_cpp.llama_vocab_bos(session.vocab)] + tokens[start + 1 : start + context]
        session.restart()
        rows = session.feed(chunk, every=True)[context // 2 : -1].astype(np.float64)
        wanted = chunk[context // 2 + 1 :]
        peaks = rows.max(-1)
        surprises.append(peaks + np.log(np.exp(rows - peaks[:, None]).sum(-1)) - rows[np.arange(len(wanted)), wanted])
    session.close()
    nll = np.concatenate(surprises)
    ppl = math.exp(nll.mean())
    return ppl, ppl * math.sqrt(((nll**2).mean() - nll.mean() ** 2) / (len(nll) - 1)), len(nll)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("data/demo"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden/perplexity"))
    parser.add_argument("--corpus", type=pathlib.Path, help="the corpus that the texts are cut from")
    parser.add_argument("--cut", type=pathlib.Path, help="only write the held-out tenth here")
    parser.add_argument("--held-out", type=pathlib.Path, help="only print the figures for this text")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.cut:
        args.cut.write_text(held_out(args.corpus))
        return
    llama_cpp.llama_log_set(keep_quiet, None)
    llama_cpp.llama_backend_init()
    if args.held_out:
        for kind in TYPES:
            ppl, error, count = perplexity(args.models / f"demo-{kind}.gguf", args.held_out.read_text(), args.context, args.threads)
            print(f"{kind}: PPL = {ppl:.4f} +/- {error:.5f} over {count} tokens", flush=True)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "text.txt"
    if args.corpus:
        path.write_text(held_out(args.corpus)[:4000])
    cases = []
    for kind in TYPES:
        for context in (128, 257):
            ppl, error, count = perplexity(args.models / f"demo-{kind}.gguf", path.read_text(), context, args.threads)
            print(f"{kind}, context {context}: PPL = {ppl:.4f} +/- {error:.5f} over {count} tokens")
            cases.append({"type": kind, "context": context, "perplexity": ppl, "error": error, "tokens": count})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (args.out / "llamacpp.json").write_text(f'{{"source": {json.dumps(SOURCE.replace("golden_logits", "golden_perplexity"))}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
