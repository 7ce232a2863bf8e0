#!/bin/sh
# run.sh OUT: peers and ours in one run, by the programs that these variables name; what is empty or unset is left out.
#   GGML    a folder with libggml-base.so and libggml-cuda.so
#   MARLIN  a shared library of Marlin's kernel
#   MLXN    our program, as a command (default: build/release/mlxn)
#   QUICK   not empty: one small case of each, which tells within seconds whether all parts work
#   TIME    seconds of a case's samples, of which there are three at least (default: 0.1)
#   LIMIT   seconds that a part may take (default: 600)
#   ROUNDS  how often all is measured, by turns (default: 1); the comparison takes medians
# Writes peers.jsonl, ours.jsonl and compare.md into the folder OUT; needs python3 with numpy and torch.
out=${1:?usage: run.sh OUT}
mlxn=${MLXN:-build/release/mlxn}
here=$(dirname "$0")
mkdir -p "$out" || exit 1
: > "$out/peers.jsonl"
: > "$out/ours.jsonl"
types=q4_0,q4_1,q5_0,q5_1,q8_0,q2_K,q3_K,q4_K,q5_K,q6_K,iq4_nl,iq4_xs,mxfp4
ours=$types,affine4_g64,f16,bf16
ours_f16=q4_0,q4_1,q4_K,iq4_nl,iq4_xs,mxfp4,affine4_g64,q8_0,f16
shapes=4096x14336,14336x4096
rows=1,4,8,16,32,64,128,512,4096
seconds=${TIME:-0.1}
if [ -n "$QUICK" ]; then types=q4_K ours=q4_K,affine4_g64,f16 ours_f16=q4_K shapes=4096x4096 rows=1,16,128 seconds=0.01; fi
failed=0
part() {
  echo "== $* ($(date +%T))" >&2
  timeout "${LIMIT:-600}" "$@"
  code=$?
  [ $code = 0 ] || { echo "run.sh: exit code $code from: $*" >&2; failed=1; }
}
peers() { part python3 "$here/peers.py" measure --shape $shapes --m $rows --seconds $seconds "$@" >> "$out/peers.jsonl"; }
ours() { part $mlxn bench matmul --device cuda --json --shape $shapes --seconds $seconds "$@" >> "$out/ours.jsonl"; }
for round in $(seq "${ROUNDS:-1}"); do
  # A process each: a kernel that fails takes the GPU's context with it.
  [ -z "$MARLIN" ] || peers --marlin "$MARLIN"
  peers --cublas
  [ -z "$GGML" ] || peers --type $types --ggml "$GGML"
  ours --type $ours --m $rows
  case $($mlxn bench matmul --help 2>&1) in
    *--early-starts*)
      # As Marlin and cuBLAS get and leave them; and a graph without programmatic launches.
      ours --type $ours_f16 --m $rows --x f16 --y f16
      ours --type bf16 --m $rows --x bf16 --y bf16 --precision bf16
      ours --type q4_0 --m 1 --early-starts off ;;
    *) echo "run.sh: $mlxn has no --x, --y and --early-starts: measured without" >&2 ;;
  esac
done
part python3 "$here/peers.py" compare "$out/peers.jsonl" "$out/ours.jsonl" > "$out/compare.md"
echo "== done ($(date +%T)): $out/compare.md" >&2
exit $failed
