#!/usr/bin/env python3
"""Trains the demo model: its tokenizer first, then its weights.

Packages: numpy, sentencepiece, torch (the CPU build is enough).

Written to --out:
  tokenizer.model  SentencePiece BPE with byte fallback
  demo.npz         f32 weights under their GGUF names, the best checkpoint
  train.json       what was run, and the losses

The corpus is cut in three, in its own order: training, validation (the last twentieth of the first nine
tenths; it picks the checkpoint), held out (the last tenth; measured once, at the end). A folder that holds a
tokenizer.model already keeps it. `--steps 0` writes an untrained model.
"""
import argparse
import json
import math
import os
import pathlib
import time

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F

CONFIG = {
    "vocab": 2048,
    "width": 256,
    "layers": 4,
    "heads": 8,
    "kv_heads": 4,
    "head_dim": 64,
    "feed_forward": 768,
    "context": 1024,
    "rope_base": 10000.0,
    "rms_eps": 1e-5,
}
BOS = 1
EVALUATION_WINDOW = 512


def split_corpus(text: str) -> tuple[str, str, str]:
    """(training, validation, held out), each cut moved forward to the end of a speech."""

    def cut(position: int) -> int:
        return text.index("\n\n", position) + 2

    held_out = cut(len(text) * 9 // 10)
    validation = cut(held_out * 19 // 20)
    return text[:validation], text[validation:held_out], text[held_out:]


def train_tokenizer(text: str, out: pathlib.Path) -> None:
    # Lines go in without the dummy prefix: a newline is a byte token at run time, so only the first word of a
    # text gets the prefix and words that open a later line must have pieces of their own.
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in text.split("\n") if line),
        model_prefix=str(out.with_suffix("")),
        model_type="bpe",
        vocab_size=CONFIG["vocab"],
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        add_dummy_prefix=False,
        unk_id=0,
        bos_id=BOS,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=1,
    )


class Speeches:
    """A text as speeches, so that every window opens with BOS at the start of one, as a prompt does."""

    def __init__(self, text: str, tokenizer: sentencepiece.SentencePieceProcessor):
        parts = [part + "\n\n" for part in text.split("\n\n") if part]
        # No piece holds a newline, so speeches tokenized one by one join to the tokens of the whole text.
        encoded = [tokenizer.encode(part) for part in parts]
        self.first = [tokenizer.encode(" " + part) for part in parts]
        self.stream = [token for ids in encoded for token in ids]
        self.after = np.cumsum([len(ids) for ids in encoded])
        self.text_bytes = sum(len(part.encode()) for part in parts)

    def window(self, speech: int, length: int) -> list[int]:
        """BOS and the `length` tokens from the start of a speech; the end of the text wraps to its start."""
        position = int(self.after[speech])
        ids = [BOS] + self.first[speech] + self.stream[position : position + length]
        return (ids + self.stream[:length])[: length + 1]

    def batch(self, rng: np.random.Generator, count: int, length: int) -> torch.Tensor:
        picks = rng.integers(len(self.first), size=count)
        return torch.tensor([self.window(int(pick), length) for pick in picks])


class RmsNorm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(CONFIG["width"]))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_eps"]) * self.weight


def rope(x, cos, sin):
    """Rotates adjacent pairs, the convention of GGUF's llama architecture."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Block(torch.nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        width, dim = CONFIG["width"], CONFIG["head_dim"]

        def linear(inputs, outputs):
            return torch.nn.Linear(inputs, outputs, bias=False)

        self.attn_norm = RmsNorm()
        self.attn_q = linear(width, CONFIG["heads"] * dim)
        self.attn_k = linear(width, CONFIG["kv_heads"] * dim)
        self.attn_v = linear(width, CONFIG["kv_heads"] * dim)
        self.attn_output = linear(CONFIG["heads"] * dim, width)
        self.ffn_norm = RmsNorm()
        self.ffn_gate = linear(width, CONFIG["feed_forward"])
        self.ffn_up = linear(width, CONFIG["feed_forward"])
        self.ffn_down = linear(CONFIG["feed_forward"], width)
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, x, cos, sin):
        batch, seq, _ = x.shape

        def heads(y):
            return y.view(batch, seq, -1, CONFIG["head_dim"]).transpose(1, 2)

        h = self.attn_norm(x)
        v = heads(self.attn_v(h))
        q = rope(heads(self.attn_q(h)), cos, sin).to(v.dtype)
        k = rope(heads(self.attn_k(h)), cos, sin).to(v.dtype)
        share = CONFIG["heads"] // CONFIG["kv_heads"]
        y = F.scaled_dot_product_attention(
            q, k.repeat_interleave(share, 1), v.repeat_interleave(share, 1), is_causal=True
        )
        x = x + self.dropout(self.attn_output(y.transpose(1, 2).reshape(batch, seq, -1)))
        h = self.ffn_norm(x)
        return x + self.dropout(self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h)))


class Model(torch.nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        self.token_embd = torch.nn.Embedding(CONFIG["vocab"], CONFIG["width"])
        self.blk = torch.nn.ModuleList(Block(dropout) for _ in range(CONFIG["layers"]))
        self.output_norm = RmsNorm()
        self.output = torch.nn.Linear(CONFIG["width"], CONFIG["vocab"], bias=False)
        self.dropout = torch.nn.Dropout(dropout)
        half = CONFIG["head_dim"] // 2
        rates = CONFIG["rope_base"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(CONFIG["context"], dtype=torch.float64)[:, None] * rates
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                into_residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
                scale = 0.02 if "embd" in name or name == "output.weight" else weight.shape[1] ** -0.5
                torch.nn.init.normal_(weight, std=scale / math.sqrt(2 * CONFIG["layers"]) if into_residual else scale)

    def forward(self, ids):
        seq = ids.shape[1]
        x = self.dropout(self.token_embd(ids))
        for block in self.blk:
            x = block(x, self.cos[:seq], self.sin[:seq])
        return self.output(self.output_norm(x))

    def loss(self, windows):
        logits = self(windows[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def evaluate(model: Model, speeches: Speeches, device: str) -> tuple[float, int]:
    """(mean nats per token in f32, tokens) over the whole stream in windows, each after a BOS."""
    model.eval()
    total = count = 0
    stream = speeches.stream
    for start in range(0, len(stream), EVALUATION_WINDOW):
        ids = torch.tensor([[BOS] + stream[start : start + EVALUATION_WINDOW]], device=device)
        total += float(model.loss(ids)) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    model.train()
    return total / count, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus_default = os.path.join(os.environ.get("MLXN_TEST_DATA", "."), "tinyshakespeare.txt")
    parser.add_argument("--corpus", type=pathlib.Path, default=corpus_default)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a step")
    parser.add_argument("--length", type=int, default=256, help="window; the last fifth of the steps uses the whole context")
    parser.add_argument("--rate", type=float, default=2e-3, help="AdamW rate; Muon has ten times this")
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--every", type=int, default=90, help="steps between validations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-autocast", action="store_true", help="train in f32 instead of bf16 autocast")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = args.corpus.read_bytes().decode("utf-8")
    training_text, validation_text, held_out_text = split_corpus(text)
    tokenizer_path = args.out / "tokenizer.model"
    if not tokenizer_path.exists():
        train_tokenizer(training_text + validation_text, tokenizer_path)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_path))
    training, validation, held_out = (
        Speeches(part, tokenizer) for part in (training_text, validation_text, held_out_text)
    )
    print(f"tokens: {len(training.stream)} training, {len(validation.stream)} validation, "
          f"{len(held_out.stream)} held out; {training.text_bytes / len(training.stream):.2f} bytes a token", flush=True)

    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = Model(args.dropout).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters on {device}", flush=True)

    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blk.")]
    tables = [p for name, p in model.named_parameters() if p.ndim == 2 and not name.startswith("blk.")]
    norms = [p for p in model.parameters() if p.ndim == 1]
    optimizers = [
        torch.optim.Muon(hidden, lr=10 * args.rate, weight_decay=args.decay, momentum=0.95),
        torch.optim.AdamW(
            [{"params": tables, "weight_decay": args.decay}, {"params": norms, "weight_decay": 0.0}],
            lr=args.rate, betas=(0.9, 0.95),
        ),
    ]
    warm_up = max(1, args.steps // 20)

    def rate_at(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, args.steps - warm_up)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate_at) for optimizer in optimizers]

    def save() -> None:
        weights = {name: p.detach().float().cpu().numpy() for name, p in model.named_parameters()}
        np.savez(args.out / "demo.npz", **weights)

    history = []
    best = math.inf
    start = time.time()
    save()
    for step in range(args.steps):
        length = args.length if step < args.steps * 4 // 5 else CONFIG["context"]
        windows = training.batch(rng, args.tokens // length, length).to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=not args.no_autocast):
            loss = model.loss(windows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            validation_loss, _ = evaluate(model, validation, device)
            history.append({"step": step + 1, "training": round(loss.item(), 4), "validation": round(validation_loss, 4)})
            kept = validation_loss < best
            if kept:
                best = validation_loss
                save()
            print(f"step {step + 1} of {args.steps}: training {loss.item():.4f} validation {validation_loss:.4f}"
                  f"{' kept' if kept else ''} ({time.time() - start:.0f} s)", flush=True)

    with np.load(args.out / "demo.npz") as weights:
        model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    nats, count = evaluate(model, held_out, device)
    report = {
        "config": CONFIG,
        "parameters": parameters,
        "steps": args.steps,
        "tokens_per_step": args.tokens,
        "training_window": args.length,
        "evaluation_window": EVALUATION_WINDOW,
        "rate": args.rate,
        "weight_decay": args.decay,
        "dropout": args.dropout,
        "seed": args.seed,
        "history": history,
        "validation_nats_per_token": None if best == math.inf else round(best, 4),
        "held_out_nats_per_token": round(nats, 4),
        "held_out_bits_per_byte": round(nats * count / math.log(2) / held_out.text_bytes, 4),
        "held_out_tokens": count,
    }
    (args.out / "train.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"held out: {nats:.4f} nats a token, {report['held_out_bits_per_byte']} bits a byte", flush=True)


if __name__ == "__main__":
    main()
