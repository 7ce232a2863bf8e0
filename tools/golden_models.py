#!/usr/bin/env python3
"""Writes tests/golden/models: small models of every family and the logits that llama.cpp gives for them.

Packages: gguf, llama-cpp-python, numpy.

A model is made of numbers that the tests can make again: element i of tensor t is
(offset + h - 32768) / 2^exponent, where h is the upper 16 bits of output i of SplitMix64 seeded with t. A golden file holds
metadata, tensor names, shapes, exponents, offsets and the CRC-32 of all data, then tokens and logits. Weights, keys and
values are F32 in llama.cpp, attention is not fused.

Beside llama.cpp a forward pass in float64 (numpy, below) judges. A model whose window llama.cpp does not apply takes its
logits from there. Those of Gemma are kept twice: llama.cpp looks GELU up in a table of f16, so the norms after the
feed-forward networks are small here, for its logits to be as good as 1e-8.
"""
import argparse
import base64
import ctypes
import json
import pathlib
import tempfile
import zlib

import gguf
import llama_cpp
import numpy as np

POSITIONS = 64
SOURCE = f"tools/golden_models.py, llama-cpp-python {llama_cpp.__version__}"


# ---- models ------------------------------------------------------------------------------------------------------------


class Model:
    """Metadata and tensors of a model; sizes that a variant does not name are these."""

    def __init__(self, arch: str, *, layers: int, vocab=96, dim=64, ff=96, heads=4, kv_heads=2, head_dim=None, eps=1e-5, context=512):
        self.arch, self.layers, self.vocab, self.dim, self.ff = arch, layers, vocab, dim, ff
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim or dim // heads
        self.metadata: list[list] = []
        self.tensors: list[list] = []
        self.contexts = [512]
        self.from_float64 = False
        self.key("general.architecture", "string", arch, plain=True)
        self.key("tokenizer.ggml.model", "string", "no_vocab", plain=True)
        self.key("vocab_size", "u32", vocab)
        self.key("block_count", "u32", layers)
        self.key("context_length", "u32", context)
        self.key("embedding_length", "u32", dim)
        self.key("feed_forward_length", "u32", ff)
        self.key("attention.head_count", "u32", heads)
        self.key("attention.head_count_kv", "u32", kv_heads)
        self.key("attention.layer_norm_rms_epsilon", "f32", eps)
        if head_dim:
            self.key("attention.key_length", "u32", head_dim)
            self.key("attention.value_length", "u32", head_dim)

    def key(self, name: str, kind: str, value, plain=False) -> None:
        self.metadata.append([name if plain else f"{self.arch}.{name}", kind, value])

    def matrix(self, name: str, n: int, k: int, gain=1.0) -> None:
        # Uniform numbers of variance gain^2 / k, to the next power of two.
        self.tensors.append([name, [k, n], int(round(15 - np.log2(gain * np.sqrt(3 / k)))), 0])

    def norm(self, name: str, n: int, centre=1.0) -> None:
        self.tensors.append([name, [n], 17, int(centre * 2**17)])  # centre +- 1/4

    def bias(self, name: str, n: int) -> None:
        self.tensors.append([name, [n], 17, 0])  # +- 1/4

    def factors(self, name: str, n: int, least: int) -> None:
        self.tensors.append([name, [n], 15, 32768 + (least << 15)])  # least .. least + 2

    def ends(self, tied: bool, embedding_gain=8.0) -> None:
        self.matrix("token_embd.weight", self.vocab, self.dim, embedding_gain)
        self.norm("output_norm.weight", self.dim)
        if not tied:
            self.matrix("output.weight", self.vocab, self.dim, 4)

    def blocks(self, *, biases=(), head_norms=False, post_norms=None, fused=False) -> None:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for i in range(self.layers):
            def linear(name: str, n: int, k: int, gain: float) -> None:
                self.matrix(f"blk.{i}.{name}.weight", n, k, gain)
                if name in biases:
                    self.bias(f"blk.{i}.{name}.bias", n)

            self.norm(f"blk.{i}.attn_norm.weight", self.dim)
            if fused:
                linear("attn_qkv", q + 2 * kv, self.dim, 2)
            else:
                linear("attn_q", q, self.dim, 2)
                linear("attn_k", kv, self.dim, 2)
                linear("attn_v", kv, self.dim, 2)
            if head_norms:
                self.norm(f"blk.{i}.attn_q_norm.weight", self.head_dim, 2)
                self.norm(f"blk.{i}.attn_k_norm.weight", self.head_dim, 2)
            linear("attn_output", self.dim, q, 2)
            if post_norms:
                self.norm(f"blk.{i}.post_attention_norm.weight", self.dim, post_norms[0])
            self.norm(f"blk.{i}.ffn_norm.weight", self.dim)
            if not fused:
                linear("ffn_gate", self.ff, self.dim, 1)
            linear("ffn_up", 2 * self.ff if fused else self.ff, self.dim, 1)
            linear("ffn_down", self.dim, self.ff, 1)
            if post_norms:
                self.norm(f"blk.{i}.post_ffw_norm.weight", self.dim, post_norms[1])


def models() -> dict[str, Model]:
    made = {}

    # Llama 3: divisors of the frequencies, heads of a size of their own, every bias that a file may have.
    m = made["llama"] = Model("llama", layers=2, head_dim=24)
    m.key("rope.freq_base", "f32", 500000.0)
    m.ends(tied=False)
    m.factors("rope_freqs.weight", 12, 1)
    m.blocks(biases=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"))

    m = made["llama_linear_tied"] = Model("llama", layers=2)
    m.key("rope.dimension_count", "u32", 16)
    m.key("rope.scaling.type", "string", "linear")
    m.key("rope.scaling.factor", "f32", 4.0)
    m.ends(tied=True)
    m.blocks()

    m = made["mistral_window"] = Model("llama", layers=2)
    m.key("attention.sliding_window", "u32", 12)
    m.from_float64 = True
    m.ends(tied=False)
    m.blocks()

    m = made["qwen2"] = Model("qwen2", layers=2, eps=1e-6)
    m.key("rope.freq_base", "f32", 1000000.0)
    m.ends(tied=False)
    m.blocks(biases=("attn_q", "attn_k", "attn_v"))

    m = made["qwen2_yarn_tied"] = Model("qwen2", layers=2, eps=1e-6)
    m.key("rope.freq_base", "f32", 10000.0)
    m.key("rope.scaling.type", "string", "yarn")
    m.key("rope.scaling.factor", "f32", 4.0)
    m.key("rope.scaling.original_context_length", "u32", 128)
    m.key("rope.scaling.attn_factor", "f32", 1.125)
    m.ends(tied=True)
    m.blocks(biases=("attn_q", "attn_k", "attn_v"))

    m = made["qwen3"] = Model("qwen3", layers=2, head_dim=24, eps=1e-6)
    m.key("rope.freq_base", "f32", 1000000.0)
    m.ends(tied=False)
    m.blocks(head_norms=True)

    m = made["qwen3_tied"] = Model("qwen3", layers=2, head_dim=32, kv_heads=4, eps=1e-6)
    m.ends(tied=True)
    m.blocks(head_norms=True)

    m = made["gemma2"] = Model("gemma2", layers=4, head_dim=24, eps=1e-6)
    m.key("attention.sliding_window", "u32", 12)
    m.key("attn_logit_softcapping", "f32", 3.0)
    m.key("final_logit_softcapping", "f32", 6.0)
    m.ends(tied=True, embedding_gain=4)
    m.blocks(post_norms=(1, 0.25))

    m = made["gemma3"] = Model("gemma3", layers=7, head_dim=24, eps=1e-6)
    m.key("attention.sliding_window", "u32", 12)
    m.key("rope.freq_base", "f32", 1000000.0)
    m.key("rope.scaling.type", "string", "linear")
    m.key("rope.scaling.factor", "f32", 8.0)
    m.ends(tied=True, embedding_gain=4)
    m.blocks(head_norms=True, post_norms=(1, 0.25))

    m = made["gemma3_capped"] = Model("gemma3", layers=3, head_dim=24, eps=1e-6)
    m.key("attention.sliding_window", "u32", 20)
    m.key("attention.sliding_window_pattern", "u32", 2)
    m.key("rope.freq_base_swa", "f32", 500.0)
    m.key("final_logit_softcapping", "f32", 6.0)
    m.ends(tied=False, embedding_gain=4)
    m.blocks(head_norms=True, post_norms=(1, 0.25))

    def phi3(**sizes) -> Model:
        m = Model("phi3", layers=3, **sizes)
        m.key("rope.dimension_count", "u32", 12)  # of 16: Phi-4-mini turns three quarters of a head
        m.key("rope.scaling.original_context_length", "u32", 256)
        m.key("rope.scaling.attn_factor", "f32", 1.19)
        return m

    # Within and beyond the original context.
    m = made["phi3"] = phi3()
    m.key("attention.sliding_window", "u32", 0)
    m.contexts = [256, 512]
    m.ends(tied=False)
    m.factors("rope_factors_long.weight", 6, 4)
    m.factors("rope_factors_short.weight", 6, 1)
    m.blocks(fused=True)

    m = made["phi3_window_tied"] = phi3()
    m.key("attention.sliding_window", "u32", 12)
    m.from_float64 = True
    m.ends(tied=True)
    m.blocks(fused=True)
    return made


MASK = (1 << 64) - 1


def random_16(seed: int, count: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(48)).astype(np.int64)


def data_of(model: Model) -> dict[str, np.ndarray]:
    """f32, shapes outermost first."""
    data = {}
    for index, (name, ne, exponent, offset) in enumerate(model.tensors):
        numbers = random_16(index, int(np.prod(ne))) - 32768 + offset
        data[name] = np.ldexp(numbers.astype(np.float64), -exponent).astype(np.float32).reshape(ne[::-1])
    return data


def write_gguf(model: Model, data: dict[str, np.ndarray], path: pathlib.Path) -> None:
    kinds = {"string": gguf.GGUFValueType.STRING, "u32": gguf.GGUFValueType.UINT32, "f32": gguf.GGUFValueType.FLOAT32}
    writer = gguf.GGUFWriter(path, model.arch)
    for name, kind, value in model.metadata:
        if name != "general.architecture":
            writer.add_key_value(name, value, kinds[kind])
    for name, values in data.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- llama.cpp ---------------------------------------------------------------------------------------------------------


@llama_cpp.llama_log_callback
def keep_quiet(level, text, user_data):
    if level >= 4:
        print(text.decode(errors="replace"), end="")


def run_llamacpp(path: pathlib.Path, tokens: list[int], context: int) -> np.ndarray:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = context, 64, 64
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = int(gguf.GGMLQuantizationType.F32)
    params.flash_attn_type = 0  # disabled
    session = llama_cpp.llama_init_from_model(model, params)
    assert llama_cpp.llama_n_ctx(session) == context
    rows = []
    for position, token in enumerate(tokens):
        batch = llama_cpp.llama_batch_init(1, 0, 1)
        batch.n_tokens = 1
        batch.token[0], batch.pos[0], batch.n_seq_id[0], batch.seq_id[0][0], batch.logits[0] = token, position, 1, 0, 1
        if llama_cpp.llama_decode(session, batch) != 0:
            raise SystemExit("llama_decode failed")
        rows.append(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(session, 0), (vocab,)).copy())
        llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(session)
    llama_cpp.llama_model_free(model)
    return np.stack(rows)


# ---- float64 -----------------------------------------------------------------------------------------------------------


def run_float64(model: Model, data: dict[str, np.ndarray], tokens: list[int], context: int, f16_gelu: bool) -> np.ndarray:
    keys = {name.removeprefix(model.arch + "."): value for name, _, value in model.metadata}
    t = {name: values.astype(np.float64) for name, values in data.items()}
    gemma = model.arch.startswith("gemma")
    hd, heads, kv_heads = model.head_dim, model.heads, model.kv_heads
    eps = float(np.float32(keys["attention.layer_norm_rms_epsilon"]))
    positions = np.arange(len(tokens))

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * t[name]

    def linear(x, name):
        y = x @ t[name + ".weight"].T
        return y + t[name + ".bias"] if name + ".bias" in t else y

    def frequencies(base, scaled):
        """(angle per position and pair, magnitude)"""
        dims = keys.get("rope.dimension_count", hd)
        f = base ** (-np.arange(0, dims, 2) / dims)
        original = keys.get("rope.scaling.original_context_length", keys["context_length"])
        if "rope_freqs.weight" in t:
            f = f / t["rope_freqs.weight"]
        elif "rope_factors_long.weight" in t:
            f = f / t["rope_factors_long.weight" if context > original else "rope_factors_short.weight"]
        factor = keys.get("rope.scaling.factor", 1.0)
        magnitude = keys.get("rope.scaling.attn_factor", 1.0)
        if not scaled:
            return f, 1.0
        if keys.get("rope.scaling.type", "linear") == "yarn":
            def pair(turns):
                return dims * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))
            low, high = max(0, np.floor(pair(32))), min(dims - 1, np.ceil(pair(1)))
            ramp = 1 - np.clip((np.arange(dims // 2) - low) / max(0.001, high - low), 0, 1)
            return f * ((1 - ramp) / factor + ramp), magnitude * (1 + 0.1 * np.log(factor))
        return f / factor, magnitude

    def rope(x, f, magnitude):
        """x [tokens, heads, head_dim]"""
        angle = positions[:, None, None] * f
        cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
        y, n = x.copy(), len(f)
        if model.arch == "llama":
            a, b = x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2]
            y[..., 0 : 2 * n : 2], y[..., 1 : 2 * n : 2] = a * cos - b * sin, b * cos + a * sin
        else:
            a, b = x[..., :n], x[..., n : 2 * n]
            y[..., :n], y[..., n : 2 * n] = a * cos - b * sin, b * cos + a * sin
        return y

    def gate(x):
        if not gemma:
            return x / (1 + np.exp(-x))
        if f16_gelu:
            x = x.astype(np.float16).astype(np.float64)
        y = x * (1 + np.tanh(0.79788456080286535587989211986876 * (x + 0.044715 * x**3))) / 2
        return y.astype(np.float16).astype(np.float64) if f16_gelu else y

    window_size = keys.get("attention.sliding_window", 0)
    period = keys.get("attention.sliding_window_pattern", {"gemma2": 2, "gemma3": 6}.get(model.arch, 0))
    base = keys.get("rope.freq_base", 10000.0)
    x = t["token_embd.weight"][tokens] * (np.sqrt(model.dim) if gemma else 1)
    for i in range(model.layers):
        block = f"blk.{i}."
        windowed = window_size > 0 and (period == 0 or (i + 1) % period != 0)
        h = norm(x, block + "attn_norm.weight")
        if block + "attn_qkv.weight" in t:
            q, k, v = np.split(linear(h, block + "attn_qkv"), [heads * hd, (heads + kv_heads) * hd], -1)
        else:
            q, k, v = (linear(h, block + "attn_" + n) for n in "qkv")
        q, k, v = q.reshape(-1, heads, hd), k.reshape(-1, kv_heads, hd), v.reshape(-1, kv_heads, hd)
        if block + "attn_q_norm.weight" in t:
            q, k = norm(q, block + "attn_q_norm.weight"), norm(k, block + "attn_k_norm.weight")
        local = windowed and model.arch == "gemma3"
        f, magnitude = frequencies(keys.get("rope.freq_base_swa", 10000.0) if local else base, not local)
        q, k = rope(q, f, magnitude), rope(k, f, magnitude)
        k, v = np.repeat(k, heads // kv_heads, 1), np.repeat(v, heads // kv_heads, 1)
        logits = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(hd)
        if "attn_logit_softcapping" in keys:
            cap = keys["attn_logit_softcapping"]
            logits = cap * np.tanh(logits / cap)
        distance = positions[:, None] - positions[None, :]
        visible = (distance >= 0) & ((distance < window_size) | (not windowed))
        w = np.exp(np.where(visible, logits - np.where(visible, logits, -np.inf).max(-1, keepdims=True), -np.inf))
        w /= w.sum(-1, keepdims=True)
        h = linear(np.einsum("hij,jhd->ihd", w, v).reshape(len(tokens), -1), block + "attn_output")
        if gemma:
            h = norm(h, block + "post_attention_norm.weight")
        x = x + h
        h = norm(x, block + "ffn_norm.weight")
        up = linear(h, block + "ffn_up")
        g, up = (linear(h, block + "ffn_gate"), up) if block + "ffn_gate.weight" in t else np.split(up, 2, -1)
        h = linear(gate(g) * up, block + "ffn_down")
        if gemma:
            h = norm(h, block + "post_ffw_norm.weight")
        x = x + h
    logits = linear(norm(x, "output_norm.weight"), "output" if "output.weight" in t else "token_embd")
    if "final_logit_softcapping" in keys:
        cap = keys["final_logit_softcapping"]
        logits = cap * np.tanh(logits / cap)
    return logits


# ---- golden files ------------------------------------------------------------------------------------------------------


def nmse(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(((got.astype(np.float64) - wanted) ** 2).sum() / (wanted.astype(np.float64) ** 2).sum())


def floats(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def write_golden(name: str, model: Model, out: pathlib.Path, folder: pathlib.Path) -> None:
    data = data_of(model)
    tokens = (random_16(1 << 32, POSITIONS) % model.vocab).tolist()
    path = folder / f"{name}.gguf"
    write_gguf(model, data, path)
    runs = []
    for context in model.contexts:
        exact = run_float64(model, data, tokens, context, False)
        logits = exact.astype(np.float32)
        text = "float64"
        if not model.from_float64:
            logits = run_llamacpp(path, tokens, context)
            text = f"llama.cpp against float64: NMSE {nmse(logits, exact):.1e}"
            if model.arch.startswith("gemma"):
                text += f", with its f16 table of GELU {nmse(logits, run_float64(model, data, tokens, context, True)):.1e}"
        print(f"{name}, context {context}: {text}, logits {exact.std():.2f}, up to {abs(exact).max():.2f}")
        run = {"context": context, "logits": floats(logits)}
        if model.arch.startswith("gemma"):
            run["float64"] = floats(exact)
        runs.append(run)
    crc = 0
    for values in data.values():
        crc = zlib.crc32(values.astype("<f4").tobytes(), crc)
    golden = {
        "source": SOURCE if not model.from_float64 else "tools/golden_models.py, float64",
        "metadata": model.metadata,
        "tensors": model.tensors,
        "crc32": crc,
        "tokens": tokens,
        "runs": runs,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    (out / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden/models"))
    parser.add_argument("--gguf", type=pathlib.Path, help="keep the model files here")
    args = parser.parse_args()
    llama_cpp.llama_log_set(keep_quiet, None)
    llama_cpp.llama_backend_init()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.gguf or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, model in models().items():
            write_golden(name, model, args.out, folder)


if __name__ == "__main__":
    main()
