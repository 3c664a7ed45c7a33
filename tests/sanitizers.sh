#!/usr/bin/env bash
# Builds the package with AddressSanitizer and UndefinedBehaviorSanitizer in its compiled library, shows that they would
# speak up, and runs the tests of what is compiled on that build; then layers on several threads with ThreadSanitizer.
# Nothing of it is left behind or installed.
#
#   tests/sanitizers.sh [pytest arguments]
#
# PYTHON  interpreter with the package's test extra; default: .venv/bin/python, which `make install` makes
# CXX     GCC's C++ compiler; default: g++
# JOBS    tests at a time; default: 2
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wanted=${PYTHON:-$repository/.venv/bin/python}
compiler=${CXX:-g++}

fail() {
    echo "sanitizers: $*" >&2
    exit 1
}

# The compiler answers with a path if it has the file, with the bare name if it has not.
runtime() {
    local path
    path=$("$compiler" -print-file-name="$1")
    [[ $path == */* ]] || fail "$compiler has no $1. Install it with the compiler: apt install g++ (Debian, Ubuntu)," \
        "dnf install gcc-c++ libasan libubsan libtsan (Fedora, RHEL)"
    echo "$path"
}

[[ $(uname -s) == Linux ]] || fail "this needs Linux, which can load a library before all others; here is $(uname -s)"
python=$(command -v "$wanted") ||
    fail "there is no $wanted; run \`make install\`, or name an interpreter: PYTHON=python3 $0"
[[ $python == /* ]] || python=$PWD/$python
command -v "$compiler" >/dev/null || fail "there is no compiler $compiler. Install one:" \
    "apt install g++ (Debian, Ubuntu), dnf install gcc-c++ libasan libubsan libtsan (Fedora, RHEL)"
[[ $("$compiler" --version) != *clang* ]] || fail "$compiler is Clang; name a GCC: CXX=g++ $0"
asan=$(runtime libasan.so)
runtime libubsan.so >/dev/null
tsan=$(runtime libtsan.so)
standard_library=$(runtime libstdc++.so.6) # or the sanitizer misses it where it looks for what throws

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# build FOLDER FLAGS...: the package into $scratch/FOLDER/package. setup.py compiles as ever, with a compiler that has the
# last word on the flags. (-w: GCC warns about its own headers.)
build() {
    local folder=$scratch/$1
    mkdir "$folder"
    cat >"$folder/c++" <<END
#!/bin/sh
exec "$compiler" "\$@" -w -O1 -g -fno-omit-frame-pointer ${*:2}
END
    chmod +x "$folder/c++"
    echo "sanitizers: building with $compiler ${*:2}"
    (
        cd "$repository"
        export CC=$folder/c++ CXX=$folder/c++ LDSHARED="$folder/c++ -shared" LDCXXSHARED="$folder/c++ -shared"
        "$python" setup.py --quiet build --build-base "$folder/build" --build-lib "$folder/package" >"$folder/log" 2>&1
    ) || fail "the build failed: $(cat "$folder/log")"
    [[ -f $folder/package/nnunetv2_lightm/ops/_native.so ]] || fail "the library was not built: $(cat "$folder/log")"
}

build address -D_GLIBCXX_ASSERTIONS -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all
library=$scratch/address/package/nnunetv2_lightm/ops/_native.so

# Every Python from here on, also those that tests start, finds this build before the installed package.
sanitized() {
    (
        cd "$scratch" # not the checkout, whose package Python would find first
        # New memory is filled with 0xff, NaN for floats: a result that uses what was never written shows.
        export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:malloc_fill_byte=255:max_malloc_fill_size=1073741824
        export UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1
        export PYTHONPATH=$scratch/address/package OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
        export NNUNETV2_LIGHTM_FUZZ=${NNUNETV2_LIGHTM_FUZZ:-10000} # wrong calls of each operator
        LD_PRELOAD="$asan $standard_library" exec "$python" "$@"
    )
}

# Calls the library with `beyond` values too many, or with a function that it has not. Without either all must be well.
cat >"$scratch/misuse.py" <<'END'
import ctypes
import sys

path, instruction_set, function, beyond = sys.argv[1], *map(int, sys.argv[2:])
library = ctypes.CDLL(path)
library.nnunetv2_lightm_instruction_set.restype = ctypes.c_char_p
library.nnunetv2_lightm_instruction_set.argtypes = [ctypes.c_int64]
name = library.nnunetv2_lightm_instruction_set(instruction_set)
if name is None:
    sys.exit(3)
values = (ctypes.c_float * 4096)()
library.nnunetv2_lightm_apply(function, ctypes.c_int64(instruction_set), values, values, ctypes.c_int64(4096 + beyond))
print(name.decode())
END

must_be_caught() {
    local expected=$1 said
    shift
    if said=$(sanitized "$scratch/misuse.py" "$library" "$@" 2>&1); then
        fail "a deliberate mistake (misuse.py $*) went unnoticed"
    fi
    [[ $said == *"$expected"* ]] || fail "a deliberate mistake (misuse.py $*) gave no \`$expected\` but: $said"
}

instruction_set=0
while true; do
    code=0
    name=$(sanitized "$scratch/misuse.py" "$library" "$instruction_set" 0 0) || code=$?
    ((code == 3)) && break # there are no more
    ((code == 0)) || fail "the sanitized library does not run (exit code $code)"
    must_be_caught "AddressSanitizer: heap-buffer-overflow" "$instruction_set" 0 16
    must_be_caught "runtime error: index 9 out of bounds" "$instruction_set" 9 0
    echo "sanitizers: an overflow and a wrong index are caught in the library ($name)"
    instruction_set=$((instruction_set + 1))
done
((instruction_set > 0)) || fail "the sanitized library has no instruction set"

loaded=$(sanitized -c "from nnunetv2_lightm.ops.backends import native_library as b; print(b.library()._name)")
[[ $loaded == "$library" ]] || fail "the tests would not run on the sanitized library: $loaded"

# What other backends and the specification do on their own is not compiled here, and takes most of the time; nor does the
# choice of a backend or of a library run any of it, nor do layers in PyTorch's operators.
others="torch_chunked or triton or mamba_ssm or [reference or -reference"
uncompiled="test_backends or test_native_library or test_portable or test_recomputing"
# Only what Python writes is captured: of a test that ends in an abort the sanitizer's report is left, and Python's of where
# it happened.
# Left out too: a child that is forked while other threads allocate may find AddressSanitizer's own lock held, for ever
# (before LLVM #75290, which GCC 12 lacks).
sanitized -m pytest --config-file "$repository/pyproject.toml" --rootdir "$repository" \
    -q -p no:cacheprovider --capture=sys --numprocesses "${JOBS:-2}" --dist worksteal \
    "$repository/tests/ops" "$repository/tests/layers" \
    -m "not slow and not end_to_end" \
    -k "not ($others or $uncompiled or test_forks_while_other_threads_scan)" "$@"

build thread -fsanitize=thread
on_threads() (
    cd "$scratch"
    export PYTHONPATH=$scratch/thread/package OMP_NUM_THREADS=1
    LD_PRELOAD=$tsan exec "$python" "$repository/tests/ops/layers_on_threads.py" "$@"
)
if said=$(TSAN_OPTIONS=halt_on_error=1 on_threads race 2>&1); then fail "a deliberate race went unnoticed"; fi
[[ $said == *"ThreadSanitizer: data race"* ]] || fail "a deliberate race gave no \`data race\` but: $said"
echo "sanitizers: a race is noticed in the library"
on_threads
echo "sanitizers: nothing found"
