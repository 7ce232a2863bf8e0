#!/usr/bin/env python3
"""Makes tests/golden/quant: weight blocks as ggml decodes and encodes them.

Source: ggml's reference code (`to_float` of every type, `ggml_quantize_chunk` without importance weights) through the
shared library libggml-base of the PyPI package llama-cpp-python, called with ctypes. Each result is compared here with
the numpy code of the PyPI package gguf; where the two differ the script says so and keeps ggml's.

    python tools/golden_quant.py            # writes the files
    python tools/golden_quant.py --check    # compares them with what would be written

decode_<type>.bin  u32 blocks, then that many raw blocks, then the f32 bits of their elements.
encode_<type>.bin  u32 blocks, then the f32 elements of that many blocks, then the encoded blocks.
All little-endian.
"""

import argparse
import ctypes
import pathlib
import struct
import sys

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "quant"
Q = gguf.GGMLQuantizationType

# offsets of the f16 fields in a block
HALVES = {
    Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q2_K: [80, 82], Q.Q3_K: [108],
    Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.IQ4_NL: [0], Q.IQ4_XS: [0], Q.MXFP4: [],
}
NAMES = {Q.Q2_K: "q2_K", Q.Q3_K: "q3_K", Q.Q4_K: "q4_K", Q.Q5_K: "q5_K", Q.Q6_K: "q6_K"}
ENCODED = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.MXFP4]

# zero of both signs, subnormals, the least normal, ordinary scales of both signs, the largest
SCALES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x2E66, 0xAE66, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF]


def name_of(kind):
    return NAMES.get(kind, kind.name.lower())


def load_ggml():
    import llama_cpp

    lib = ctypes.CDLL(str(pathlib.Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))

    class Traits(ctypes.Structure):
        _fields_ = [("type_name", ctypes.c_char_p), ("blck_size", ctypes.c_int64), ("interleave", ctypes.c_int64),
                    ("type_size", ctypes.c_size_t), ("is_quantized", ctypes.c_bool),
                    ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
                    ("from_float_ref", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64))]

    lib.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    lib.ggml_get_type_traits.argtypes = [ctypes.c_int]
    return lib


def ggml_decode(lib, kind, blocks):
    traits = lib.ggml_get_type_traits(int(kind)).contents
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    assert traits.blck_size == elems and traits.type_size == size, kind
    out = np.empty(blocks.size // size * elems, np.float32)
    traits.to_float(blocks.ctypes.data, out.ctypes.data, out.size)
    return out


def ggml_encode(lib, kind, x):
    traits = lib.ggml_get_type_traits(int(kind)).contents
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros(x.size // elems * size, np.uint8)
    traits.from_float_ref(x.ctypes.data, out.ctypes.data, x.size)
    return out


def random_blocks(kind, rng):
    """Random bytes hold every code and every sub-scale; the f16 scales walk through SCALES."""
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    count = 64 if elems == 32 else 16
    blocks = rng.integers(0, 256, (count, size), np.uint8)
    if kind == Q.Q6_K:  # every kind of sub-scale: random signs, zero, the extremes
        blocks[1, 192:208] = 0
        blocks[2, 192:200] = 0x80
        blocks[2, 200:208] = 0x7F
    for field, offset in enumerate(HALVES[kind]):
        for i in range(count):
            bits = SCALES[(i + 5 * field) % len(SCALES)] if i < 2 * len(SCALES) else int(rng.integers(0, 0x7C00)) | (i & 1) << 15
            blocks[i, offset:offset + 2] = list(struct.pack("<H", bits))
    if kind == Q.MXFP4:
        blocks[:6, 0] = [0, 1, 2, 127, 254, 253]
        blocks[6:, 0] = rng.integers(0, 255, count - 6)
    if elems == 32 and kind not in (Q.Q8_0,):  # block 0 on: every nibble in both halves, whatever the random bytes held
        blocks[8, -16:] = np.arange(16) * 0x11
    return blocks


def encoder_inputs(kind, rng):
    x = rng.standard_normal((64, 32)).astype(np.float32)
    x[0] = 0
    x[1] = 0
    x[1, 7] = 1.5             # one element, extreme positive
    x[2] = 0
    x[2, 31] = -1.5           # one element, extreme negative
    x[3] = 0.25               # constant
    x[4] = -0.25
    x[5] = np.linspace(-1, 1, 32)
    x[6] = np.arange(32) - 16  # exact steps, ties of the rounding
    x[7] = (np.arange(32) - 16) / 2
    x[7, 0] = -16
    x[8] *= 1e-6              # scales in the f16 subnormals
    x[9] *= 3e-8              # scales that round to zero
    x[10] *= 1.5e4            # near the top of the f16 range
    x[11] = [2.0, -2.0] * 16  # the first of two equal magnitudes counts
    x[12] = [-2.0, 2.0] * 16
    x[13] = 4.0               # mxfp4: an amax on a power of two
    x[13, 1::2] = -2.5        # mxfp4: a tie between two codes
    x[14] = np.float32(7.9)   # mxfp4: clipped
    x[14, 3] = np.float32(0.7)
    x[15] = np.abs(x[15])
    x[16] = -np.abs(x[16])
    x[17] *= np.float32(2.0 ** -100)
    x[18] = -0.0              # gguf's numpy code takes the sign of the first zero into the scale, ggml does not
    x[19, ::2] = 0
    for i in range(20, 64):
        x[i] *= np.float32(2.0 ** rng.integers(-8, 8))
    if kind == Q.MXFP4:
        x[20] *= np.float32(2.0 ** -24)
        x[21] = np.float32(2.0 ** -124) * rng.standard_normal(32).astype(np.float32).clip(-1.9, 1.9)
        x[21, 0] = np.float32(2.0 ** -124)
        x[22] = np.nextafter(np.float32(64), np.float32(0))  # log2 in f32 rounds up to 6
        x[23] = np.nextafter(np.float32(2.0 ** -7), np.float32(0))
        x[24] = np.float32(2.0 ** 120) * x[24] / np.abs(x[24]).max()
    return x


def same_bits_but_zero_sign(a, b):
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | ((a == 0) & (b == 0))))


def make(lib):
    files = {}
    for kind in HALVES:
        rng = np.random.default_rng([int(kind), 1])
        blocks = np.ascontiguousarray(random_blocks(kind, rng))
        values = ggml_decode(lib, kind, blocks)
        with np.errstate(all="ignore"):
            other = gguf.quants.dequantize(blocks, kind).ravel()
        if not same_bits_but_zero_sign(values, other):
            print(f"{name_of(kind)}: gguf's numpy decoder differs from ggml", file=sys.stderr)
        files[f"decode_{name_of(kind)}.bin"] = struct.pack("<I", len(blocks)) + blocks.tobytes() + values.tobytes()
    for kind in ENCODED:
        rng = np.random.default_rng([int(kind), 2])
        x = np.ascontiguousarray(encoder_inputs(kind, rng))
        blocks = ggml_encode(lib, kind, x)
        with np.errstate(all="ignore"):
            other = gguf.quants.quantize(x, kind).reshape(len(x), -1)
        different = np.nonzero((other != blocks.reshape(len(x), -1)).any(axis=1))[0]
        if different.size:
            print(f"{name_of(kind)}: gguf's numpy encoder differs from ggml in blocks {different.tolist()}", file=sys.stderr)
        files[f"encode_{name_of(kind)}.bin"] = struct.pack("<I", len(x)) + x.tobytes() + blocks.tobytes()
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, content in make(load_ggml()).items():
        path = OUT / name
        if check:
            if not path.exists() or path.read_bytes() != content:
                stale.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if stale:
        sys.exit("differs: " + ", ".join(stale))


if __name__ == "__main__":
    main()
