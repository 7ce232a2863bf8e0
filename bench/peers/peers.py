#!/usr/bin/env python3
"""Measures the matrix products of other libraries on one GPU, and compares them with ours.

    peers.py measure --ggml DIR --marlin LIB --cublas > peers.jsonl
    mlxn bench matmul --device cuda --json ... > ours.jsonl
    peers.py compare peers.jsonl ours.jsonl

Nothing of a peer is part of this project: DIR holds the libggml*.so and LIB is the shared library of Marlin's kernel that you
have built (docs/benchmarks.md has the lines); cuBLAS is the one that torch brings. Packages: numpy; torch for Marlin and cuBLAS.

Every case is timed as `mlxn bench matmul` times ours: CUDA graphs of 32 or more calls whose weights take turns among so many
copies that the L2 holds none, medians over the graphs' runs, the time of a call. A run of several graphs in a row is one sample,
so that no peer pays for a graph's start. x is f32 and y f32 for ggml (as it wants them: its making 8-bit numbers of x is a part
of the call, as ours is), f16 for Marlin and f16 or bf16 for cuBLAS. Before its times count, a result is checked against float64.
"""
import argparse
import ctypes
import faulthandler
import glob
import json
import os
import statistics
import sys
import time
import traceback

import numpy as np

# enum ggml_type of ggml.h
GGML_TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_K": 10, "q3_K": 11, "q4_K": 12, "q5_K": 13, "q6_K": 14,
              "iq4_nl": 20, "iq4_xs": 23, "mxfp4": 39}
ROWS = [1, 4, 8, 16, 32, 64, 128, 512, 4096]
GROUP = 128  # weights per scale of Marlin
CHECKED = 16  # columns of y


def say(text):
    print(text, file=sys.stderr, flush=True)


def copies_of(weight_bytes, cache_bytes):
    """As `mlxn bench matmul` chooses: four times the cache and one more."""
    return max(2, -(-4 * cache_bytes // weight_bytes) + 1)


def calls_of(m, copies, most):
    """Calls of one graph: whole rounds over the copies, some milliseconds of work."""
    least = 256 if m <= 32 else 64 if m <= 512 else 32
    return -(-min(least, most) // copies) * copies


def sample(run, calls, seconds, floor_us=8000.0):
    """Times of one call, us. `run(n)` waits for n graphs in a row and returns their time in us."""
    in_a_row = max(1, round(floor_us / run(1)))
    us, begin = [], time.perf_counter()
    while len(us) < 3 or time.perf_counter() - begin < seconds:
        us.append(run(in_a_row) / (in_a_row * calls))
    return sorted(us)


def nmse(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(((got - want) ** 2).sum() / (want**2).sum())


def checked_rows(n):
    return np.unique(np.linspace(0, n - 1, CHECKED).astype(int))


wrong = []  # results that are too far from float64: said, not printed as times


def emit(peer, version, device, type_name, shape, m, us, weight_bytes, error, bound, calls, **more):
    n, k = shape
    median = statistics.median(us)
    row = {"op": "matmul", "peer": peer, "version": version, "type": type_name, "m": m, "n": n, "k": k, "device": device, "us": median,
           "low_us": us[len(us) // 10], "high_us": us[len(us) - 1 - len(us) // 10], "gbps": weight_bytes / median * 1e-3,
           "tflops": 2e-6 * m * n * k / median, "nmse": error, "calls": calls, "samples": len(us), **more}
    if not error <= bound:
        wrong.append(row)
        say(f"{peer} {type_name} {n}x{k} m={m}: error {error:.1e} against float64, at most {bound:.0e}: left out")
        return
    print(json.dumps(row), flush=True)
    say(f"{peer:7} {type_name:8} {n:6}x{k:<6} {m:5} {median:10.1f} us {row['gbps']:8.0f} GB/s {row['tflops']:7.1f} TFLOP/s  {error:.0e}")


# ---- ggml ----


def load_first(names):
    """Opens a library of the CUDA toolkit where it is found: by name, in the toolkit, in torch's packages."""
    folders = ["", "/usr/local/cuda/lib64/", "/usr/local/cuda/targets/x86_64-linux/lib/"]
    for site in sys.path:
        folders += [folder + "/" for folder in glob.glob(f"{site}/nvidia/*/lib")]
    for name in names:
        for folder in folders:
            try:
                return ctypes.CDLL(folder + name, mode=ctypes.RTLD_GLOBAL)
            except OSError:
                pass
    return None


class InitParams(ctypes.Structure):
    """struct ggml_init_params"""

    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class TypeTraits(ctypes.Structure):
    """struct ggml_type_traits, as far as it is read here"""

    _fields_ = [("type_name", ctypes.c_char_p), ("blck_size", ctypes.c_int64), ("blck_size_interleave", ctypes.c_int64),
                ("type_size", ctypes.c_size_t), ("is_quantized", ctypes.c_bool),
                ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64))]


LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
P, SIZE, I64, INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int
GGML_FUNCTIONS = {
    "ggml_version": (ctypes.c_char_p, []),
    "ggml_commit": (ctypes.c_char_p, []),
    "ggml_log_set": (None, [LOG, P]),
    "ggml_init": (P, [InitParams]),
    "ggml_free": (None, [P]),
    "ggml_new_tensor_2d": (P, [P, INT, I64, I64]),
    "ggml_mul_mat": (P, [P, P, P]),
    "ggml_new_graph_custom": (P, [P, SIZE, ctypes.c_bool]),
    "ggml_build_forward_expand": (None, [P, P]),
    "ggml_tensor_overhead": (SIZE, []),
    "ggml_graph_overhead_custom": (SIZE, [SIZE, ctypes.c_bool]),
    "ggml_row_size": (SIZE, [INT, I64]),
    "ggml_nbytes": (SIZE, [P]),
    "ggml_quantize_chunk": (SIZE, [INT, P, P, I64, I64, I64, P]),
    "ggml_get_type_traits": (ctypes.POINTER(TypeTraits), [INT]),
    "ggml_backend_alloc_ctx_tensors": (P, [P, P]),
    "ggml_backend_alloc_buffer": (P, [P, SIZE]),
    "ggml_backend_buffer_free": (None, [P]),
    "ggml_backend_buffer_get_base": (P, [P]),
    "ggml_backend_buffer_set_usage": (None, [P, INT]),
    "ggml_backend_tensor_alloc": (INT, [P, P, P]),
    "ggml_backend_tensor_set": (None, [P, P, SIZE, SIZE]),
    "ggml_backend_tensor_get": (None, [P, P, SIZE, SIZE]),
    "ggml_backend_tensor_copy": (None, [P, P]),
    "ggml_backend_graph_compute": (INT, [P, P]),
    "ggml_backend_graph_compute_async": (INT, [P, P]),
    "ggml_backend_synchronize": (None, [P]),
    "ggml_backend_get_device": (P, [P]),
    "ggml_backend_dev_description": (ctypes.c_char_p, [P]),
    "ggml_backend_free": (None, [P]),
}
USAGE_WEIGHTS, F32 = 1, 0  # of ggml-backend.h and ggml.h


class Ggml:
    def __init__(self, folder, device):
        found = {}
        for name in ["base", "cpu", "cuda"]:
            for place in glob.glob(f"{folder}/**/libggml-{name}.so", recursive=True):
                found[name] = place
        if "base" not in found or device not in found:
            raise RuntimeError(f"{folder}: wanted libggml-base.so and libggml-{device}.so there or below")
        self.base = ctypes.CDLL(found["base"], mode=ctypes.RTLD_GLOBAL)
        if device == "cuda":
            for names in [["libcudart.so.13", "libcudart.so.12"], ["libcublasLt.so.13", "libcublasLt.so.12"],
                          ["libcublas.so.13", "libcublas.so.12"]]:
                load_first(names)
        backend_library = ctypes.CDLL(found[device])
        for name, (result, arguments) in GGML_FUNCTIONS.items():
            function = getattr(self.base, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("ggml_"), function)
        self.graphs = 0

        def log(level, text, _):
            self.graphs += text is not None and b"graph warmup complete" in text
            if level in (3, 4) and text:  # GGML_LOG_LEVEL_WARN, _ERROR
                say(text.decode(errors="replace").rstrip())

        self.log = LOG(log)  # kept alive
        self.log_set(self.log, None)
        init = getattr(backend_library, f"ggml_backend_{device}_init")
        init.restype, init.argtypes = P, [INT] if device == "cuda" else []
        self.backend = init(0) if device == "cuda" else init()
        if not self.backend:
            raise RuntimeError(f"ggml has no device {device}")
        self.device = self.backend_dev_description(self.backend_get_device(self.backend)).decode()
        commit = self.commit().decode()
        self.version_text = self.version().decode() + ("" if commit == "unknown" else f" ({commit})")

    def context(self, tensors, graph=0):
        size = self.tensor_overhead() * (tensors + 1) + (self.graph_overhead_custom(graph, False) if graph else 0)
        return self.init(InitParams(size, None, True))

    def blocks(self, type_id, n, k, rng):
        """The bytes of N rows: 32 rows of normal numbers, quantised by ggml, over and over."""
        rows = min(n, 32)
        values = (rng.standard_normal((rows, k)) * 0.02).astype(np.float32)
        row_bytes = self.row_size(type_id, k)
        out = np.empty(rows * row_bytes, np.uint8)
        if self.quantize_chunk(type_id, values.ctypes.data, out.ctypes.data, 0, rows, k, None) != out.nbytes:
            raise RuntimeError("ggml_quantize_chunk wrote another size than ggml_row_size says")
        return np.resize(out, n * row_bytes)

    def decode(self, type_id, data, k):
        out = np.empty(k, np.float32)
        self.get_type_traits(type_id).contents.to_float(data.ctypes.data, out.ctypes.data, k)
        return out


def run_ggml_rows(g, type_name, shape, xs, weights, blocks, options):
    (n, k), m = shape, len(xs)
    type_id, copies = GGML_TYPES[type_name], len(weights)
    calls = calls_of(m, copies, options.calls)
    size = calls + copies + 16
    context = g.context(calls + copies + 8, size)
    x = g.new_tensor_2d(context, F32, k, m)
    graph = g.new_graph_custom(context, size, False)
    ys = [g.mul_mat(context, weights[i % copies], x) for i in range(calls)]
    # Every call writes the same y, as ours do.
    buffers = [g.backend_alloc_buffer(g.backend, 4 * m * k + 256), g.backend_alloc_buffer(g.backend, 4 * m * n + 256)]
    if None in buffers:
        raise RuntimeError("no memory for x or y")
    g.backend_tensor_alloc(buffers[0], x, g.backend_buffer_get_base(buffers[0]))
    for y in ys:
        g.backend_tensor_alloc(buffers[1], y, g.backend_buffer_get_base(buffers[1]))
        g.build_forward_expand(graph, y)
    g.backend_tensor_set(x, xs.ctypes.data, 0, xs.nbytes)
    graphs_before = g.graphs

    def run(times):
        begin = time.perf_counter()
        for _ in range(times):
            if g.backend_graph_compute_async(g.backend, graph) != 0:
                raise RuntimeError("ggml failed to compute a graph")
        g.backend_synchronize(g.backend)
        return (time.perf_counter() - begin) * 1e6

    for _ in range(3):  # ggml runs a graph once as it is and captures it at the second time
        run(1)
    row_bytes, rows, got, want = g.row_size(type_id, k), checked_rows(n), [], []
    for token in sorted({0, m - 1}):
        ys_of_token = np.empty(n, np.float32)
        g.backend_tensor_get(ys[-1], ys_of_token.ctypes.data, token * n * 4, n * 4)
        for row in rows:
            w = g.decode(type_id, blocks[row * row_bytes : (row + 1) * row_bytes], k)
            got.append(ys_of_token[row])
            want.append(np.dot(w.astype(np.float64), xs[token].astype(np.float64)))
    error = nmse(got, want)
    us = sample(run, calls, options.seconds)
    g.free(context)
    for buffer in buffers:
        g.backend_buffer_free(buffer)
    emit("ggml", g.version_text, g.device, type_name, shape, m, us, row_bytes * n, error, 1e-2, calls, cuda_graph=g.graphs > graphs_before)


def measure_ggml(options):
    g = Ggml(options.ggml, options.device)
    rng = np.random.default_rng(1)
    pool = rng.standard_normal((1 << 20) + 7).astype(np.float32)
    for shape in options.shapes:
        n, k = shape
        activations = [np.resize(pool, (m, k)) for m in options.rows]
        for type_name in options.types:
            type_id = GGML_TYPES[type_name]
            blocks = g.blocks(type_id, n, k, rng)
            copies = copies_of(blocks.nbytes, options.cache_mb << 20)
            context = g.context(copies)
            weights = [g.new_tensor_2d(context, type_id, k, n) for _ in range(copies)]
            buffer = g.backend_alloc_ctx_tensors(context, g.backend)
            if not buffer:
                raise RuntimeError(f"no memory for {copies} copies of {type_name}")
            g.backend_buffer_set_usage(buffer, USAGE_WEIGHTS)
            if g.nbytes(weights[0]) != blocks.nbytes:
                raise RuntimeError(f"{type_name}: ggml holds another size")
            g.backend_tensor_set(weights[0], blocks.ctypes.data, 0, blocks.nbytes)
            for weight in weights[1:]:
                g.backend_tensor_copy(weights[0], weight)
            for xs in activations:
                run_ggml_rows(g, type_name, shape, xs, weights, blocks, options)
            g.backend_buffer_free(buffer)
            g.free(context)
    g.backend_free(g.backend)


# ---- torch: cuBLAS, and Marlin's kernel on torch's memory and streams ----


def run_torch(call, calls, seconds):
    """Times of one call of a CUDA graph of call(0), call(1) and so on."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for i in range(3):
            call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            call(i)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def run(times):
        start.record()
        for _ in range(times):
            graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    run(1)
    return sample(run, calls, seconds)


def measure_cublas(options):
    import torch

    device = torch.cuda.get_device_name()
    for shape in options.shapes:
        n, k = shape
        for type_name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16)]:
            weight_bytes = 2 * n * k
            copies = copies_of(weight_bytes, options.cache_mb << 20)
            weights = [torch.randn((n, k), dtype=dtype, device="cuda") * 0.02 for _ in range(copies)]
            for m in options.rows:
                x = torch.randn((m, k), dtype=dtype, device="cuda")
                y = torch.empty((m, n), dtype=dtype, device="cuda")
                calls = calls_of(m, copies, options.calls)
                us = run_torch(lambda i: torch.mm(x, weights[i % copies].t(), out=y), calls, options.seconds)
                rows = checked_rows(n).tolist()
                want = x[[0, m - 1]].double() @ weights[-1][rows].double().t()
                error = nmse(y[[0, m - 1]][:, rows].double().cpu().numpy(), want.cpu().numpy())
                emit("cublas", f"torch {torch.__version__}", device, type_name, shape, m, us, weight_bytes, error, 1e-4, calls)
                del x, y
            del weights
            torch.cuda.empty_cache()


# int marlin_cuda(A, B, C, s, m, n, k, workspace, groupsize, dev, stream, thread_k, thread_n, sms, max_par) of marlin_cuda_kernel.cu
MARLIN = "_Z11marlin_cudaPKvS0_PvS1_iiiS1_iiP11CUstream_stiiii"
MARLIN_ARGUMENTS = [P, P, P, P, INT, INT, INT, P, INT, INT, P, INT, INT, INT, INT]
MAX_PAR = 16


def open_marlin(path):
    library = ctypes.CDLL(path)
    function = getattr(library, MARLIN)
    function.restype, function.argtypes = INT, MARLIN_ARGUMENTS
    return function


def measure_marlin(options):
    import torch

    function = open_marlin(options.marlin)
    device = torch.cuda.get_device_name()
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    for shape in options.shapes:
        n, k = shape
        weight_bytes = n * k // 2 + 2 * n * (k // GROUP)
        copies = copies_of(weight_bytes, options.cache_mb << 20)
        integers = torch.randint(-(2**31), 2**31, (copies, k // 16, 2 * n), dtype=torch.int32, device="cuda")
        scales = (torch.rand((copies, k // GROUP, n), device="cuda") * 0.01 + 0.005).half()
        # The kernel's own counters, which it leaves at zero.
        workspace = torch.zeros(n // 128 * MAX_PAR, dtype=torch.int32, device="cuda")
        for m in options.rows:
            x = torch.randn((m, k), dtype=torch.float16, device="cuda")
            y = torch.empty((m, n), dtype=torch.float16, device="cuda")

            def multiply(w, s):
                result = function(x.data_ptr(), w.data_ptr(), y.data_ptr(), s.data_ptr(), m, n, k, workspace.data_ptr(), GROUP, 0,
                                  torch.cuda.current_stream().cuda_stream, -1, -1, multiprocessors, MAX_PAR)
                if result != 0:
                    raise RuntimeError(f"Marlin returns {result} for m={m}, {n}x{k}")

            # Weights of one in groups of different scales: in these the kernel's order of weights does not show.
            ones = torch.full((k // 16, 2 * n), 0x99999999 - (1 << 32), dtype=torch.int32, device="cuda")
            by_group = (torch.rand((k // GROUP, 1), device="cuda") + 0.5).half()
            multiply(ones, by_group.expand(-1, n).contiguous())
            sums = x[[0, m - 1]].double().reshape(2, k // GROUP, GROUP).sum(2) @ by_group.double()
            rows = checked_rows(n).tolist()
            error = nmse(y[[0, m - 1]][:, rows].double().cpu().numpy(), sums.expand(-1, len(rows)).cpu().numpy())
            del ones
            calls = calls_of(m, copies, options.calls)
            us = run_torch(lambda i: multiply(integers[i % copies], scales[i % copies]), calls, options.seconds)
            emit("marlin", "int4 group 128", device, "int4_g128", shape, m, us, weight_bytes, error, 1e-4, calls)
            del x, y
        del integers, scales
        torch.cuda.empty_cache()


# ---- comparing ----


def is_four_bit(type_name):
    return type_name in ("q4_0", "q4_1", "q4_K", "iq4_nl", "iq4_xs", "mxfp4") or type_name.startswith("affine4")


PEERS = {"ggml": "ggml, the same type", "marlin": "Marlin, int4 in groups of 128", "cublas": "cuBLAS, f16 or bf16"}


def number(value):
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def peer_type(peer, type_name):
    """The type of the peer that a type of ours is compared with, or None."""
    if peer == "ggml":
        return type_name if type_name in GGML_TYPES else None
    if peer == "marlin":
        return "int4_g128" if is_four_bit(type_name) else None
    return "bf16" if type_name.startswith("bf16") else "f16"


def compare(files):
    times, errors, devices, versions = {}, {}, set(), set()
    for name in files:
        with open(name) as lines:
            for line in lines:
                if not line.startswith("{"):
                    continue
                try:
                    row = json.loads(line)
                except ValueError:  # of a program that was stopped
                    say(f"{name}: left out: {line.rstrip()[:60]}...")
                    continue
                if row.get("op") != "matmul" or "us" not in row or row.get("batch_invariant"):
                    continue
                # Ours are told apart by the types of x and y and by whether kernels may start early.
                who = row.get("peer") or (row.get("x", "f32"), row.get("y", "f32"), row.get("early_starts", True))
                times.setdefault((who, row["type"], row["n"], row["k"], row["m"]), []).append(row["us"])
                errors[who] = max(errors.get(who, 0.0), row.get("nmse", 0.0))
                devices.add(row["device"])
                if "version" in row:
                    versions.add(f"{who} {row['version']}")
    times = {key: statistics.median(us) for key, us in times.items()}
    present = {key[0] for key in times}
    ours = sorted((who for who in present if isinstance(who, tuple)), key=lambda who: (who[:2] != ("f32", "f32"), who[:2], not who[2]))
    print(f"Devices: {'; '.join(sorted(devices))}. Peers: {'; '.join(sorted(versions))}.")
    print("Times are medians in us, ours / theirs, and in brackets theirs / ours: above 1 we are faster.")
    said = [f"{who if isinstance(who, str) else f'ours with {who[0]} x and {who[1]} y'} {error:.1e}" for who, error in errors.items()]
    print(f"Largest normalised mean square error against float64: {', '.join(dict.fromkeys(said))}.")
    slower, missing, compared = [], [], 0
    for peer, title in PEERS.items():
        for who in ours if peer in present else []:
            x, y, early = who
            if peer == "ggml" and x != "f32":
                continue
            label = f"{title}; ours with {x} x and {y} y" + ("" if early else ", no early starts")
            mine = [key for key in times if key[0] == who]
            types = [t for t in dict.fromkeys(key[1] for key in mine) if peer_type(peer, t)]
            rows = sorted({key[4] for key in mine})
            for n, k in dict.fromkeys(key[2:4] for key in mine) if types else []:
                print(f"\n**{n}x{k}: {label}**\n\n| type | " + " | ".join(f"M={m}" for m in rows) + " |\n" + "|---" * (len(rows) + 1) + "|")
                for type_name in types:
                    cells = []
                    for m in rows:
                        us, theirs = times.get((who, type_name, n, k, m)), times.get((peer, peer_type(peer, type_name), n, k, m))
                        case = f"{type_name} {n}x{k} M={m}" + ("" if who == ours[0] else f" (ours: {x} x, {y} y{'' if early else ', no early starts'})")
                        if us is None or theirs is None:
                            missing.append(f"{case}: no time of {'ours' if us is None else peer}")
                            cells.append("")
                            continue
                        compared += 1
                        cells.append(f"{number(us)} / {number(theirs)} ({theirs / us:.2f})")
                        if theirs <= us:
                            slower.append((peer, theirs / us, f"{case}: {number(us)} / {number(theirs)} ({theirs / us:.2f})"))
                    print(f"| {type_name} | " + " | ".join(cells) + " |")
    print(f"\n{compared} pairs compared.")
    for peer in PEERS:
        lines = [text for its, _, text in sorted(slower) if its == peer]
        if peer in present:
            print(f"\nNot faster than {peer}: {len(lines)} pairs" + "".join(f"\n- {line}" for line in lines))
    if missing:
        print(f"\nWithout a partner: {len(missing)} pairs" + "".join(f"\n- {line}" for line in missing))
    return 0 if compared else 1


def parse_shape(text):
    n, x, k = text.partition("x")
    if not x or not n.isdigit() or not k.isdigit() or int(n) < 1 or int(k) < 1:
        raise argparse.ArgumentTypeError(f"'{text}', wanted NxK such as 4096x14336")
    return int(n), int(k)


def parse_type(text):
    if text not in GGML_TYPES:
        raise argparse.ArgumentTypeError(f"'{text}', wanted one of {', '.join(GGML_TYPES)}")
    return text


def listed(parse):
    return lambda text: [parse(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description="Matrix products of other libraries on one GPU, beside ours")
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="JSON lines of the peers that are named, on stdout")
    measure.add_argument("--ggml", metavar="DIR", help="a folder with libggml-base.so and libggml-cuda.so, there or below")
    measure.add_argument("--marlin", metavar="LIB", help="a shared library built from marlin_cuda_kernel.cu")
    measure.add_argument("--cublas", action="store_true", help="torch.mm")
    measure.add_argument("--type", dest="types", type=listed(parse_type), default=list(GGML_TYPES), help="of ggml, comma separated")
    measure.add_argument("--shape", dest="shapes", type=listed(parse_shape), default=[(4096, 14336), (14336, 4096)], help="NxK, comma separated")
    measure.add_argument("--m", dest="rows", type=listed(int), default=ROWS, help="rows of activations, comma separated")
    measure.add_argument("--seconds", type=float, default=0.1, help="time of a case's samples; at least three are taken")
    measure.add_argument("--calls", type=int, default=256, help="of a graph at most, but whole rounds over the copies of the weights")
    measure.add_argument("--cache-mb", type=int, default=60, help="the L2 cache that the weights have to leave")
    measure.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="of ggml; cpu tells whether the harness works, not how fast ggml is")
    comparison = commands.add_parser("compare", help="tables of ratios from the JSON lines of `measure` and of `mlxn bench matmul --json`")
    comparison.add_argument("files", nargs="+")
    options = parser.parse_args()
    if options.command == "compare":
        return compare(options.files)
    if not (options.ggml or options.marlin or options.cublas):
        parser.error("measure: name a peer: --ggml DIR, --marlin LIB, --cublas")
    failed = 0
    for wanted, part in [(options.ggml, measure_ggml), (options.marlin, measure_marlin), (options.cublas, measure_cublas)]:
        if not wanted:
            continue
        try:
            part(options)
        except Exception:  # the other peers are still worth their times; the exit code tells
            traceback.print_exc()
            failed = 1
    return 1 if wrong else failed


if __name__ == "__main__":
    # Modules are loaded when a kernel is first wanted, in graphs as outside.
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    faulthandler.enable()  # ggml aborts
    sys.exit(main())
