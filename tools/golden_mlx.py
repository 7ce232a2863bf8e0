#!/usr/bin/env python3
"""Makes tests/golden/mlx: matrices as MLX quantises, decodes and multiplies them.

Source: mx.quantize, mx.dequantize and mx.quantized_matmul of the PyPI package mlx (mlx[cpu] on Linux), on the CPU.

    python tools/golden_mlx.py            # writes the files
    python tools/golden_mlx.py --check    # compares them with what would be written

<mode><bits>_g<group>_<type of scales>.bin, little-endian:
    u32 n, k, m
    u32 codes [n, k * bits / 32], scales [n, k / group], biases [n, k / group] (not of mxfp4)
    f32 values [n, k]: scale * q + bias rounded once; f32 x [m, k]; f32 y [m, n] as MLX multiplies
MLX decodes in the type of the scales; with f16 and bf16 ones widened to f32, which changes none, it has these values bit for bit.
"""

import argparse
import pathlib
import sys

import mlx.core as mx
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "mlx"
N, K, M = 4, 256, 3
TYPES = {"f16": mx.float16, "bf16": mx.bfloat16, "f32": mx.float32}


def weights(rng):
    w = rng.normal(size=(N, K)).astype(np.float32) * np.float32(0.05)
    w[1] = -np.abs(w[1])          # no group reaches zero
    w[2, :128] = 0                # scales at their least
    w[2, 200] = 6                 # an outlier
    w[3] *= np.float32(2.0**-20)  # scales that f16 has no full precision for
    return mx.array(w)


def raw(array):
    """The array's bytes; numpy has no bfloat16."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array).tobytes()


def unpacked(codes, bits):
    words = np.array(codes)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return ((words[:, :, None] >> shifts) & np.uint32((1 << bits) - 1)).reshape(N, K)


def bits_of(a):
    return np.asarray(a, np.float32).view(np.uint32)


def affine(rng, bits, group, kind):
    codes, scales, biases = mx.quantize(weights(rng).astype(TYPES[kind]), group_size=group, bits=bits)
    assert scales.dtype == biases.dtype == TYPES[kind]
    wide = [a.astype(mx.float32) for a in (scales, biases)]
    s, b = (np.repeat(np.array(a, np.float64), group, axis=1) for a in wide)
    # Exact in f64 but for f32 scales, whose sum f64 rounds so finely that another rounding to f32 is hardly ever seen.
    values = (s * unpacked(codes, bits) + b).astype(np.float32)
    theirs = np.array(mx.dequantize(codes, *wide, group_size=group, bits=bits))
    if kind == "f32":
        assert np.all(np.abs(theirs - values) <= np.spacing(np.maximum(np.abs(b), np.abs(s) * (2**bits - 1)).astype(np.float32)))
    else:
        assert np.all((bits_of(theirs) == bits_of(values)) | ((theirs == 0) & (values == 0)))
    x = rng.uniform(-1, 1, size=(M, K)).astype(np.float32)
    y = mx.quantized_matmul(mx.array(x), codes, *wide, transpose=True, group_size=group, bits=bits)
    return [codes, scales, biases, mx.array(values), mx.array(x), y]


def mxfp4(rng):
    codes, scales = mx.quantize(weights(rng), group_size=32, bits=4, mode="mxfp4")
    values = mx.dequantize(codes, scales, group_size=32, bits=4, mode="mxfp4", dtype=mx.float32)
    e2m1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
    ours = e2m1[unpacked(codes, 4)] * np.exp2(np.repeat(np.array(scales, np.float64), 32, axis=1) - 127)
    assert np.all(np.array(values) == ours.astype(np.float32))
    x = rng.uniform(-1, 1, size=(M, K)).astype(np.float32)
    y = mx.quantized_matmul(mx.array(x), codes, scales, transpose=True, group_size=32, bits=4, mode="mxfp4")
    return [codes, scales, values, mx.array(x), y]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    mx.set_default_device(mx.cpu)
    files = {}
    for bits in (4, 8):
        for group in (32, 64, 128):
            for kind in TYPES:
                rng = np.random.default_rng(bits * 1000 + group)
                files[f"affine{bits}_g{group}_{kind}.bin"] = affine(rng, bits, group, kind)
    files["mxfp4_g32_u8.bin"] = mxfp4(np.random.default_rng(4))
    OUT.mkdir(parents=True, exist_ok=True)
    differ = 0
    for name, arrays in files.items():
        data = np.array([N, K, M], np.uint32).tobytes() + b"".join(raw(a) for a in arrays)
        if not check:
            (OUT / name).write_bytes(data)
        elif not (OUT / name).exists() or (OUT / name).read_bytes() != data:
            differ += 1
            print(f"{name} differs")
    print(f"mlx {mx.__version__}: {len(files)} files, {differ} differ" if check else f"mlx {mx.__version__}: wrote {len(files)} files to {OUT}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
