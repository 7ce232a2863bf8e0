#!/usr/bin/env python3
"""Writes a Llama-shaped GGUF with random q8_0 weights and the demo model's vocabulary, for measurements of memory and time.

Packages: gguf, numpy.
usage: make_random_model.py --like data/demo/demo-q8_0.gguf --layers 23 --out random-1gib.gguf
"""
import argparse

import gguf
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--like", required=True, help="GGUF whose vocabulary is taken")
parser.add_argument("--layers", type=int, default=23)
parser.add_argument("--dim", type=int, default=2048)
parser.add_argument("--ff", type=int, default=5632)
parser.add_argument("--heads", type=int, default=32)
parser.add_argument("--kv-heads", type=int, default=4)
parser.add_argument("--context", type=int, default=2048)
parser.add_argument("--out", required=True)
args = parser.parse_args()

source = gguf.GGUFReader(args.like)
writer = gguf.GGUFWriter(args.out, "llama")
writer.add_name("random")
writer.add_block_count(args.layers)
writer.add_context_length(args.context)
writer.add_embedding_length(args.dim)
writer.add_feed_forward_length(args.ff)
writer.add_head_count(args.heads)
writer.add_head_count_kv(args.kv_heads)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(args.dim // args.heads)


def field(key):
    return source.fields[key].contents()


writer.add_tokenizer_model(field("tokenizer.ggml.model"))
writer.add_token_list(field("tokenizer.ggml.tokens"))
writer.add_token_scores(field("tokenizer.ggml.scores"))
writer.add_token_types(field("tokenizer.ggml.token_type"))
writer.add_bos_token_id(field("tokenizer.ggml.bos_token_id"))
writer.add_eos_token_id(field("tokenizer.ggml.eos_token_id"))
vocab = len(field("tokenizer.ggml.tokens"))
rng = np.random.default_rng(1)


def matrix(name, n, k):
    """Blocks of an f16 scale and 32 int8; values of about 1 / sqrt(k), so that activations keep their size."""
    blocks = np.empty((n, k // 32, 34), np.uint8)
    scale = np.full((n, k // 32, 1), 1.7 / 127 / np.sqrt(k), np.float16)
    blocks[:, :, :2] = scale.view(np.uint8).reshape(n, k // 32, 2)
    blocks[:, :, 2:] = rng.integers(-127, 128, (n, k // 32, 32), np.int8).view(np.uint8)
    writer.add_tensor(name, blocks.reshape(n, k // 32 * 34), raw_dtype=gguf.GGMLQuantizationType.Q8_0)


def ones(name, n):
    writer.add_tensor(name, np.ones(n, np.float32))


d, kv = args.dim, args.dim // args.heads * args.kv_heads
matrix("token_embd.weight", vocab, d)
for i in range(args.layers):
    b = f"blk.{i}."
    ones(b + "attn_norm.weight", d)
    matrix(b + "attn_q.weight", d, d)
    matrix(b + "attn_k.weight", kv, d)
    matrix(b + "attn_v.weight", kv, d)
    matrix(b + "attn_output.weight", d, d)
    ones(b + "ffn_norm.weight", d)
    matrix(b + "ffn_gate.weight", args.ff, d)
    matrix(b + "ffn_up.weight", args.ff, d)
    matrix(b + "ffn_down.weight", d, args.ff)
ones("output_norm.weight", d)
matrix("output.weight", vocab, d)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
