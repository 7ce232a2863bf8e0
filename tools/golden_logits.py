#!/usr/bin/env python3
"""Writes tests/golden/demo: what llama.cpp computes from the demo files.

Packages: gguf, llama-cpp-python, numpy.

The reference of a file is the model with every tensor decoded to F32, run in F32 (KV cache F32, flash attention
off). From it come, for each prompt, 128 greedy tokens and the logits that chose them: position p was fed the
prompt and greedy[0..p-1]. `llamacpp_nmse` is the error of llama.cpp's own kernels on the file itself, fed the same
tokens: sum((got - reference)^2) / sum(reference^2) over all positions and the whole vocabulary.
"""
import argparse
import base64
import ctypes
import json
import math
import pathlib
import tempfile

import gguf
import llama_cpp
import numpy as np

TYPES = ["f16", "q8_0", "q4_k", "q5_k", "q6_k"]
PROMPTS = ["First Citizen:\n", "ROMEO:\nBut soft, what", "The king"]
GREEDY = 128
SOURCE = f"tools/golden_logits.py, llama-cpp-python {llama_cpp.__version__}"

TEXTS = [
    "",
    " ",
    "  ",
    "     ",
    "\n",
    "\n\n",
    "\t",
    " \n \n",
    "\r\n",
    "a",
    "The king",
    " The king",
    "  The   king  ",
    "The king ",
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n",
    "ROMEO:\nBut soft, what light through yonder window breaks?",
    "\nROMEO:",
    "\n\n ROMEO:\n ",
    "O, that this too too solid flesh would melt,\nThaw and resolve itself into a dew!",
    "wherefore art thou Romeo?",
    "antidisestablishmentarianism",
    "GLOUCESTER gloucester Gloucester",
    "don't 'tis o'er--and ne'er; th' other",
    "0123456789 3.14159 1,000,000 -42",
    "x = (a + b) * c[0] / {d} % e & f | g ^ ~h;",
    "#include <stdio.h>\nint main(void) {\n\treturn 0;\n}\n",
    "https://example.org/path?query=1&other=%20",
    "café naïve façade Ærøskøbing Größe",
    "e\u0301 o\u0308 n\u0303",
    "Привет, мир! Γειά σου Κόσμε",
    "日本語のテキスト 中文字符 한국어",
    "שלום עולם مرحبا بالعالم",
    "🙂 😀👍🏽 👩‍👩‍👧 🏳️‍🌈",
    "▁ underscore ▁▁ \u00a0no-break\u2003em\u200bzero",
    "\u0000 \u0001 \u007f \ufeff \ufffd \U0010ffff",
    "<s>",
    "</s> The king <s> of <unk> England</s>",
    "a<s>b <s> c<s><s>",
    "<0x0A> <0x41> <|endoftext|> [INST] <s",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]


@llama_cpp.llama_log_callback
def keep_quiet(level, text, user_data):
    pass


class Session:
    """One file loaded in llama.cpp."""

    def __init__(self, path: pathlib.Path, threads: int, cache=gguf.GGMLQuantizationType.F32):
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 1024
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = int(cache)
        params.flash_attn_type = 0  # disabled
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.batch = llama_cpp.llama_batch_init(1024, 0, 1)
        self.fed = 0

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def restart(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.fed = 0

    def feed(self, ids: list[int], every: bool = False) -> np.ndarray:
        """Logits after the last of `ids`, or after each of them."""
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i] = token
            self.batch.pos[i] = self.fed + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = every or i + 1 == len(ids)
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        self.fed += len(ids)
        rows = range(len(ids)) if every else [len(ids) - 1]
        return np.stack([
            np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, i), (self.vocab_size,)).copy()
            for i in rows
        ])

    def tokenize(self, text: str, bos: bool, special: bool) -> list[int]:
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 16))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), bos, special)
        if count < 0:
            raise SystemExit(f"llama_tokenize failed on {text!r}")
        return list(ids[:count])

    def detokenize(self, ids: list[int]) -> str:
        text = ctypes.create_string_buffer(64 * len(ids) + 64)
        array = (llama_cpp.llama_token * len(ids))(*ids)
        size = llama_cpp.llama_detokenize(self.vocab, array, len(ids), text, len(text), True, False)
        return text.raw[:size].decode("utf-8", "replace")


def decode_to_f32(source: pathlib.Path, path: pathlib.Path) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.quantization_version"):
            continue
        value = int(gguf.LlamaFileType.ALL_F32) if field.name == "general.file_type" else field.contents()
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=element)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(np.float32).reshape(tuple(reversed(tensor.shape.tolist()))))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def greedy(session: Session, prompt: list[int]) -> tuple[list[int], np.ndarray]:
    session.restart()
    ids, rows = [], []
    feed = prompt
    for _ in range(GREEDY):
        rows.append(session.feed(feed)[0])
        ids.append(int(rows[-1].argmax()))
        feed = ids[-1:]
    return ids, np.stack(rows)


def teacher_forced(session: Session, prompt: list[int], ids: list[int]) -> np.ndarray:
    session.restart()
    return np.stack([session.feed(prompt if p == 0 else [ids[p - 1]])[0] for p in range(len(ids))])


def floats(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def write_json(path: pathlib.Path, value: dict) -> None:
    lines = [f"{json.dumps(key)}: {json.dumps(item, ensure_ascii=True)}" for key, item in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_tokenize(session: Session, file: str, out: pathlib.Path) -> None:
    cases = [
        {
            "text": text,
            "ids": session.tokenize(text, bos=False, special=False),
            "ids_special": session.tokenize(text, bos=False, special=True),
        }
        for text in TEXTS
    ]
    write_json(out / "tokenize.json", {"source": SOURCE, "file": file, "cases": cases})


def write_logits(kind: str, path: pathlib.Path, out: pathlib.Path, f32: pathlib.Path, full: pathlib.Path | None,
                 threads: int) -> None:
    decode_to_f32(path, f32)
    session = Session(f32, threads)
    prompts = [session.tokenize(text, bos=True, special=False) for text in PROMPTS]
    results = [greedy(session, prompt) for prompt in prompts]
    for text, (ids, _) in zip(PROMPTS, results):
        print(f"--- {kind}: {text!r}\n{session.detokenize(ids)}")
    session.close()
    reference = np.stack([rows for _, rows in results])

    session = Session(path, threads)
    got = np.stack([teacher_forced(session, prompt, ids) for prompt, (ids, _) in zip(prompts, results)])
    session.close()
    exact = reference.astype(np.float64)
    nmse = float(((got - exact) ** 2).sum() / (exact**2).sum())
    agree = float((got.argmax(-1) == reference.argmax(-1)).mean())
    print(f"--- {kind}: llama.cpp nmse {nmse:.3e}, same first choice {agree:.4f}")

    vocab_ids = np.sort(np.random.default_rng(64).choice(reference.shape[-1], 64, replace=False))
    top2 = np.argsort(-reference, axis=-1, kind="stable")[..., :2]
    write_json(out / f"{kind}.json", {
        "source": SOURCE,
        "file": path.name,
        "prompts": [
            {"text": text, "prompt_ids": prompt, "greedy_ids": ids}
            for text, prompt, (ids, _) in zip(PROMPTS, prompts, results)
        ],
        "vocab_ids": vocab_ids.tolist(),
        "logits": floats(reference[..., vocab_ids]),
        "top2_ids": top2.tolist(),
        "top2_logits": floats(np.take_along_axis(reference, top2, -1)),
        "llamacpp_nmse": nmse,
    })
    if full:
        np.savez(full / f"{kind}.npz", reference=reference, llamacpp=got, greedy=[ids for ids, _ in results],
                 **{f"prompt{i}": prompt for i, prompt in enumerate(prompts)})


def held_out_loss(path: pathlib.Path, corpus: pathlib.Path, threads: int) -> tuple[float, float]:
    """(nats per token, bits per byte) over the corpus's last tenth, measured as train_demo.py does."""
    text = corpus.read_bytes().decode("utf-8")
    text = text[text.index("\n\n", len(text) * 9 // 10) + 2 :]
    parts = [part + "\n\n" for part in text.split("\n\n") if part]
    session = Session(path, threads)
    bos = llama_cpp.llama_vocab_bos(session.vocab)
    newline = session.tokenize("\n", bos=False, special=False)
    # After a newline nothing is put before a text: the tokens of "\n" + part, without those of "\n".
    stream = [token for part in parts for token in session.tokenize("\n" + part, bos=False, special=False)[len(newline) :]]
    total = 0.0
    for start in range(0, len(stream), 512):
        window = stream[start : start + 512]
        session.restart()
        rows = session.feed([bos] + window[:-1], every=True).astype(np.float64)
        peaks = rows.max(-1)
        sums = peaks + np.log(np.exp(rows - peaks[:, None]).sum(-1))
        total += float((sums - rows[np.arange(len(window)), window]).sum())
    session.close()
    return total / len(stream), total / math.log(2) / sum(len(part.encode()) for part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("data/demo"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden/demo"))
    parser.add_argument("--full", type=pathlib.Path, help="also keep the logits of the whole vocabulary here")
    parser.add_argument("--f32", type=pathlib.Path, help="keep the decoded files here")
    parser.add_argument("--corpus", type=pathlib.Path, help="only print each file's loss on this text's last tenth")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    llama_cpp.llama_log_set(keep_quiet, None)
    llama_cpp.llama_backend_init()
    files = {kind: args.models / f"demo-{kind}.gguf" for kind in TYPES}
    if args.corpus:
        for kind, path in files.items():
            nats, bits = held_out_loss(path, args.corpus, args.threads)
            print(f"{kind}: {nats:.4f} nats a token, {bits:.4f} bits a byte", flush=True)
        return
    for folder in (args.out, args.full, args.f32):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    session = Session(files["f16"], args.threads)
    write_tokenize(session, files["f16"].name, args.out)
    session.close()
    with tempfile.TemporaryDirectory() as temporary:
        for kind, path in files.items():
            write_logits(kind, path, args.out, (args.f32 or pathlib.Path(temporary)) / f"demo-{kind}-f32.gguf",
                         args.full, args.threads)


if __name__ == "__main__":
    main()
