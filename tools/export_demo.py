#!/usr/bin/env python3
"""Writes the demo model that train_demo.py left as GGUF: F16 first, then quantised by llama.cpp.

Packages: gguf, numpy, sentencepiece; llama-cpp-python for the quantised files (not with --f16-only).

Every matrix of a file, the embedding and the output included, has the file's type; norms are F32.
"""
import argparse
import json
import pathlib

import gguf
import numpy as np
import sentencepiece

QUANTISED = {"q8_0": "MOSTLY_Q8_0", "q4_k": "MOSTLY_Q4_K_S", "q5_k": "MOSTLY_Q5_K_S", "q6_k": "MOSTLY_Q6_K"}


def add_tokenizer(writer: gguf.GGUFWriter, path: pathlib.Path) -> None:
    """The metadata that llama.cpp's converter writes for a SentencePiece model."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokens, scores, types = [], [], []
    for token in range(tokenizer.vocab_size()):
        kind = gguf.TokenType.NORMAL
        if tokenizer.is_unknown(token):
            kind = gguf.TokenType.UNKNOWN
        elif tokenizer.is_control(token):
            kind = gguf.TokenType.CONTROL
        elif tokenizer.is_byte(token):
            kind = gguf.TokenType.BYTE
        tokens.append(tokenizer.id_to_piece(token).encode())
        scores.append(tokenizer.get_score(token))
        types.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(tokenizer.bos_id())
    writer.add_eos_token_id(tokenizer.eos_id())
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)


def write_f16(run: pathlib.Path, path: pathlib.Path) -> None:
    config = json.loads((run / "train.json").read_text())["config"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("mlx-native demo")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(config["vocab"])
    writer.add_context_length(config["context"])
    writer.add_embedding_length(config["width"])
    writer.add_block_count(config["layers"])
    writer.add_feed_forward_length(config["feed_forward"])
    writer.add_head_count(config["heads"])
    writer.add_head_count_kv(config["kv_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_base"])
    writer.add_layer_norm_rms_eps(config["rms_eps"])
    add_tokenizer(writer, run / "tokenizer.model")
    with np.load(run / "demo.npz") as weights:
        for name in weights.files:
            tensor = weights[name]
            writer.add_tensor(name, tensor.astype(np.float16) if tensor.ndim == 2 else tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source: pathlib.Path, path: pathlib.Path, file_type: str) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = int(gguf.LlamaFileType[file_type])
    params.pure = True
    params.nthread = 2
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), params) != 0:
        raise SystemExit(f"llama.cpp could not write {path}")


def check(path: pathlib.Path) -> None:
    reader = gguf.GGUFReader(path)
    kinds = {(len(t.shape), t.tensor_type.name) for t in reader.tensors}
    if len(kinds) != 2:
        raise SystemExit(f"{path}: matrices of several types: {sorted(kinds)}")
    print(f"{path.name}: {path.stat().st_size} bytes, {len(reader.tensors)} tensors, {sorted(kinds)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="the folder that train_demo.py wrote")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/demo"))
    parser.add_argument("--f16-only", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    f16 = args.out / "demo-f16.gguf"
    write_f16(args.run, f16)
    check(f16)
    if not args.f16_only:
        for name, file_type in QUANTISED.items():
            path = args.out / f"demo-{name}.gguf"
            quantise(f16, path, file_type)
            check(path)


if __name__ == "__main__":
    main()
