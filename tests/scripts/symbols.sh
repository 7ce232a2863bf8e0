# What the archive's symbols tell: the library does not end the process or print, and code compiled for one
# instruction set cannot take the place of another's when the linker merges inline functions.
set -eu
archive=$MLXN_BUILD/libmlxn.a
command -v nm > /dev/null || exit 77
failed=0

nm -A -u "$archive" 2> /dev/null | awk '/ U /' | sed 's/^[^:]*://' > "$TMPDIR/undefined"
grep -q . "$TMPDIR/undefined" || { echo "symbols: nm shows nothing of $archive"; exit 1; }
# std::terminate is allowed: every thread and noexcept function refers to it.
forbidden='abort|exit|_exit|_Exit|quick_exit|raise|kill|__assert_fail|__assert_rtn|puts|putchar|printf|fprintf|vprintf'
forbidden="$forbidden|vfprintf|fputs|fputc|putc|fwrite|perror|syslog|__(v|f|vf)?printf_chk|_ZSt4(cout|cerr|clog)"
if grep -E " U _?($forbidden)(@.*)?$" "$TMPDIR/undefined"; then
  echo "symbols: the library must not use these"
  failed=1
fi

# MEMBER ISA SYMBOL of every function or object that a linker may merge, if its name has linkage beyond the file.
nm -A --defined-only "$archive" 2> /dev/null | awk '
  {
    member = $1
    sub(/:[0-9a-f]*$/, "", member)
    sub(/^.*:/, "", member)
    isa = "base"
    if (match(member, /_(avx2|avx512|neon)\.cpp\.o$/)) {
      isa = substr(member, RSTART + 1)
      sub(/\..*/, "", isa)
    }
    if ($2 ~ /^[WVu]$/) {
      if (($3 in first) && first[$3] != isa) print first[$3], "and", isa ":", $3
      else first[$3] = isa
    }
  }' | sort -u > "$TMPDIR/merged"
if grep -q . "$TMPDIR/merged"; then
  c++filt < "$TMPDIR/merged"
  echo "symbols: these are compiled for two instruction sets under one name"
  failed=1
fi
exit $failed
