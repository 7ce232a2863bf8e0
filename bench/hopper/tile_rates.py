#!/usr/bin/env python3
"""Fits the rates of Hopper's tile kernels to measured launches and rewrites the planner's table.

    bench/hopper/tile_check.sh OUT && OUT --tune > tune.txt     on the device, a minute and a half
    python3 bench/hopper/tile_rates.py tune.txt                 from the repository's root: rewrites the table
    python3 bench/hopper/tile_rates.py --keep tune.txt          only says how good the table is
    python3 bench/hopper/tile_rates.py --keep-reads tune.txt    of some types alone: the rates of reading, which all share, stay

A line of the table: type, kind of kernel, nanoseconds of HopperTileRates (src/ops/matmul/hopper_tile.h, whose hopper_tile_us()
is us_of() here). Types that were not measured keep their lines. Least squares of relative errors, launches that take twice as
long as the best for their product a quarter as weighty; from there, or from the table's rates if they choose better, in small
changes towards rates that choose best (choose()). Then, for every product that was measured, the launch that the table makes
the fastest against the one that was, of those that the planner can choose. All types take this program a minute or two.
"""
import argparse
import collections
import concurrent.futures
import json
import math
import re
import sys

TABLE = "src/ops/matmul/hopper_tile_rates.inc"
READS = re.compile(r"MLXN_TILE_READS\((\d+), (\d+)\)")
NAMES = ("step", "filled", "beside", "wave", "parts", "each_part", "alone")
ROW = re.compile(r"MLXN_(?:TILE|DENSE)_RATES\((\w+), (\d+)((?:, \d+){7})\)")
DENSE = ("f16", "bf16", "bf16_narrow")
# GB/s that may be fitted, of all multiprocessors and of one.
ALL = range(4000, 4700, 100)
ONE = (34, 50, 65, 85, 105)
FIRST = [500, 50, 50, 4000, 500, 200, 100]  # of kernels that have no line yet
CLOSE = 0.015  # relative, of predictions
LEAST = (1, 0, 0, 0, 0, 0, 0)  # a step of zero would say that the kernel is not known


def multiply_us(rates, t):
    return 1e-3 * (t["steps"] * rates[0] + t["filled"] * rates[1] + t["beside"] * rates[2])


def us_of(rates, t):
    """hopper_tile_us()."""
    adding = rates[4] + rates[5] * t["splits"] + rates[6] * t["alone"] if t["splits"] > 0 else 0
    return max(multiply_us(rates, t), t["read_us"]) + 1e-3 * (t["waves"] * rates[3] + adding)


def solve(matrix, values):
    """x of matrix * x = values, by elimination with pivots."""
    n = len(values)
    a = [row[:] + [v] for row, v in zip(matrix, values)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(a[r][i]))
        a[i], a[pivot] = a[pivot], a[i]
        for r in range(n):
            if r != i:
                f = a[r][i] / a[i][i]
                a[r] = [x - f * y for x, y in zip(a[r], a[i])]
    return [a[i][n] / a[i][i] for i in range(n)]


def least_squares(rows, values, weights, prior):
    """x >= 0 with least sum of weight * (row * x - value)^2, drawn to the prior where rows do not tell."""
    n = len(prior)
    free = list(range(n))
    while True:
        matrix = [[sum(w * r[i] * r[j] for r, w in zip(rows, weights)) for j in free] for i in free]
        right = [sum(w * r[i] * v for r, v, w in zip(rows, values, weights)) for i in free]
        for at, i in enumerate(free):
            pull = 1e-4 / max(prior[i], 50) ** 2 * len(rows)
            matrix[at][at] += pull
            right[at] += pull * prior[i]
        x = [0.0] * n
        for i, v in zip(free, solve(matrix, right)):
            x[i] = v
        least = min(free, key=lambda i: x[i])
        if x[least] >= 0:
            return x
        free.remove(least)


def read_at(launches, reads):
    for l in launches:
        l["read_us"] = 1e-3 * l["bytes"] / min(reads[1] * l["busy"], reads[0])


def fit(launches, prior, polish=True):
    """Rates of one kernel, and how far they are off. What hides behind the reading of weights has no say in least squares: there the
    rates before stand in for it."""
    def loss(rates):
        wrong = sum(l["weight"] * (us_of(rates, l) / l["us"] - 1) ** 2 for l in launches)
        return wrong + 1e-6 * len(launches) * sum(((r - p) / max(p, 50)) ** 2 for r, p in zip(rates, prior))

    best = [max(r, least) for r, least in zip(prior, LEAST)]
    # What is hidden depends on the rates: by turns, each time from the best so far, or as if nothing were.
    for hides in (False, True, True, True, True, True):
        rows, values = [], []
        for l in launches:
            reads = hides and multiply_us(best, l) < l["read_us"]
            row = [0, 0, 0] if reads else [l["steps"], l["filled"], l["beside"]]
            row += [l["waves"], 1 if l["splits"] > 0 else 0, l["splits"], l["alone"]]
            rows.append([1e-3 * r / l["us"] for r in row])
            values.append(1 - (l["read_us"] / l["us"] if reads else 0))
        rates = least_squares(rows, values, [l["weight"] for l in launches], prior)
        best = min(best, [max(round(r), least) for r, least in zip(rates, LEAST)], key=loss)
    # And in small changes of one rate at a time.
    change = 64 if polish else 0
    while change >= 1:
        tries = [[max(r + d * (i == at), LEAST[i]) for i, r in enumerate(best)] for at in range(len(best)) for d in (-change, change)]
        found = min(tries, key=loss)
        if loss(found) < loss(best):
            best = found
        else:
            change //= 2
    return best, loss(best)


def choose(products, *starts):
    """Rates of a type's kernels, by kind, in small changes from the better of the starts: what a choice by them, off by CLOSE or so,
    loses in each product, beyond what one by the measured times off by as much would; how far they are off counts beside it."""
    launches = [l for of in products for l in of]
    by_kind = collections.defaultdict(list)
    for l in launches:
        by_kind[l["kind"]].append(l)

    def expected(of, time):
        least = min(l[time] for l in of)
        chances = [math.exp((1 - l[time] / least) / CLOSE) for l in of]
        return sum(c * l["us"] for c, l in zip(chances, of)) / sum(chances)

    at_best = [expected(of, "us") for of in products]

    def loss(rates):
        for kind, of in by_kind.items():
            for l in of:
                l["table_us"] = us_of(rates[kind], l)
        lost = sum(max(expected(of, "table_us") / best - 1, 0) for of, best in zip(products, at_best))
        wrong = sum(l["weight"] * (l["table_us"] / l["us"] - 1) ** 2 for l in launches)
        return lost / len(products) + 0.2 * wrong / len(launches)

    rates = min(starts, key=loss)
    rates, best = {kind: list(rates[kind]) for kind in by_kind}, loss(rates)
    change = 128
    while change >= 2:
        found = False
        for of_kind in rates.values():
            for at, least in enumerate(LEAST):
                for d in (-change, change):
                    before = of_kind[at]
                    of_kind[at] = max(before + d, least)
                    tried = loss(rates)
                    if tried < best:
                        best, found = tried, True
                    else:
                        of_kind[at] = before
        if not found:
            change //= 2
    return rates


def fit_reads(launches, products, kernels, rates, reads):
    """What makes the picks the fastest, to a hundredth, and then what fits launches best; of either number by turns. The rate of one
    multiprocessor is no constant (fewer of them read faster each, but not in parts of any size), so what fits best need not choose
    best. Where they do not tell, what is nearest to the table's."""
    def wrong(reads):
        read_at(launches, reads)
        fitted = {key: fit(of, rates.get(key, FIRST), polish=False) for key, of in kernels.items()}
        ratios = [min(of, key=lambda l: us_of(fitted[l["type"], l["kind"]][0], l))["us"] / min(l["us"] for l in of)
                  for of in products.values()]
        few = sum(loss for key, (_, loss) in fitted.items() if key[1] < 3)  # those of more tokens hide no reading
        return round(sum(ratios) / len(ratios), 2), float(f"{few:.2e}")

    every, one = reads
    for _ in range(2):
        one = min(sorted(ONE, key=lambda r: abs(r - reads[1])), key=lambda r: wrong([every, r]))
        every = min(sorted(ALL, key=lambda r: abs(r - reads[0])), key=lambda r: wrong([r, one]))
    return [every, one]


def read_table(path):
    rates = {}
    with open(path) as file:
        text = file.read()
    for m in ROW.finditer(text):
        rates[m[1], int(m[2])] = [int(v) for v in m[3].split(",")[1:]]
    return rates, [int(v) for v in READS.search(text).groups()]


def write_table(path, rates, reads, device, order, measured):
    types = dict.fromkeys(name for name, _ in order)
    of = "all types" if all(name in measured for name in types) else "only " + ", ".join(n for n in types if n in measured)
    lines = [
        "// Written by bench/hopper/tile_rates.py, which says how. Nanoseconds of HopperTileRates (hopper_tile.h) of each kernel,",
        f"// measured on {device['device']} ({device['multiprocessors']} multiprocessors), CUDA {device['cuda']}, {device['date']}: {of}.",
        "// GB/s that all multiprocessors read, and one; type, kind: " + ", ".join(NAMES),
        f"MLXN_TILE_READS({reads[0]}, {reads[1]})",
    ]
    for type_name, kind in order:
        macro = "MLXN_DENSE_RATES" if type_name in DENSE else "MLXN_TILE_RATES"
        lines.append(f"{macro}({type_name}, {kind}, {', '.join(str(v) for v in rates[type_name, kind])})")
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tune", nargs="+", help="what tile_check --tune printed")
    parser.add_argument("--table", default=TABLE)
    parser.add_argument("--keep", action="store_true", help="rewrite nothing")
    parser.add_argument("--keep-reads", action="store_true", help="the reads of the table as they are: for launches of some types")
    args = parser.parse_args()

    device, launches = None, []
    for path in args.tune:
        with open(path) as file:
            for line in file:
                if not line.startswith("{"):
                    continue
                row = json.loads(line)
                if "device" in row:
                    device = row
                else:
                    launches.append(row)
    if device is None or not launches:
        sys.exit("tile_rates: no launches of tile_check --tune")
    products = collections.defaultdict(list)
    kernels = collections.defaultdict(list)
    for l in launches:
        products[l["type"], l["n"], l["k"], l["m"]].append(l)
        kernels[l["type"], l["kind"]].append(l)
    for of_product in products.values():
        least = min(l["us"] for l in of_product)
        for l in of_product:
            l["weight"] = (least / l["us"]) ** 2

    rates, reads = read_table(args.table)
    order = list(rates)
    for key in kernels:
        if key not in order:
            order.append(key)
    if not args.keep and not args.keep_reads:
        reads = fit_reads(launches, products, kernels, rates, reads)
    read_at(launches, reads)
    if not args.keep:
        fitted = {key: fit(of_kernel, rates.get(key, FIRST))[0] for key, of_kernel in kernels.items()}
        with concurrent.futures.ProcessPoolExecutor() as pool:
            chosen = {}
            for name in dict.fromkeys(name for name, _ in kernels):
                kinds = [kind for of_type, kind in kernels if of_type == name]
                starts = [{kind: of[name, kind] for kind in kinds} for of in (rates, fitted) if all((name, kind) in of for kind in kinds)]
                chosen[name] = pool.submit(choose, [of for key, of in products.items() if key[0] == name], *starts)
            for name, of_type in chosen.items():
                for kind, of_kind in of_type.result().items():
                    rates[name, kind] = of_kind
    print(f"reads: {reads[0]} GB/s, {reads[1]} of one multiprocessor")

    print(f"{'type':18} kind  rates of {', '.join(NAMES)} (ns){'':12} error of launches within 1.1 of the best: mean, worst")
    for (type_name, kind), of_kernel in kernels.items():
        near = [abs(us_of(rates[type_name, kind], l) / l["us"] - 1) for l in of_kernel if l["weight"] > 1.1**-2]
        text = f"{sum(near) / len(near):6.1%} {max(near):6.1%} of {len(near)}" if near else "     none"
        print(f"{type_name:18} {kind:4}  {' '.join(f'{v:6}' for v in rates[type_name, kind]):38} {text}")

    print("\nThe launch that the table makes the fastest, as a multiple of the fastest one's time:")
    all_ratios = []
    for type_name in dict.fromkeys(l["type"] for l in launches):
        ratios = []
        for (of_type, n, k, m), of_product in products.items():
            if of_type != type_name:
                continue
            pick = min(of_product, key=lambda l: us_of(rates[l["type"], l["kind"]], l))
            best = min(of_product, key=lambda l: l["us"])
            ratio = pick["us"] / best["us"]
            ratios.append(ratio)
            if ratio > 1.03:
                print(f"  {type_name} {n}x{k} m {m}: kind {pick['kind']} in {pick['parts']} parts {pick['us']:.2f} us, "
                      f"kind {best['kind']} in {best['parts']} {best['us']:.2f} us, {ratio:.3f}")
        all_ratios += ratios
        print(f"{type_name:18} mean {sum(ratios) / len(ratios):.4f} worst {max(ratios):.3f} of {len(ratios)} products")
    print(f"{'all':18} mean {sum(all_ratios) / len(all_ratios):.4f} worst {max(all_ratios):.3f} of {len(all_ratios)} products")
    if not args.keep:
        write_table(args.table, rates, reads, device, order, {name for name, _ in kernels})
        print(f"{args.table}: {len(kernels)} of {len(order)} kernels measured anew")


if __name__ == "__main__":
    main()
