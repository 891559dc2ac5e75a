# Sourced by the scripts beside it: a virtual environment with the pinned versions, and memory.
#
#   make_environment ROOT FOLDER EXTRAS
#
# installs the checkout ROOT (editable) into FOLDER, with EXTRAS such as "[test]" or "". It does
# nothing when FOLDER already holds exactly that. Needs python3 (>= 3.11, with venv) and pip;
# PYTHON names another interpreter.
# shellcheck shell=bash

# Before 4.4 an empty array is an unbound variable.
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
    echo "$0: bash $BASH_VERSION is too old: 4.4 or later is needed" >&2
    exit 2
}

make_environment() {
    local root=$1 folder=$2 extras=$3 python=${PYTHON:-python3} wanted
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$0: $python is missing or older than 3.11: install it, or set PYTHON" >&2
        return 2
    fi
    wanted=$("$python" - "$root" "$extras" <<'PY'
import hashlib, pathlib, sys
root, extras = sys.argv[1:]
digest = hashlib.sha256(f"{sys.version} {root} {extras}".encode())
for name in ("constraints.txt", "setup.cfg", "pyproject.toml"):
    digest.update((pathlib.Path(root) / name).read_bytes())
print(digest.hexdigest())
PY
    )
    if [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    echo "installing into $folder" >&2
    rm -f "$folder/installed"
    if ! "$python" -m venv "$folder"; then
        echo "$0: $python cannot make $folder: install its venv module (python3-venv)" >&2
        return 2
    fi
    "$folder/bin/python" -m pip install --disable-pip-version-check -qq \
        --constraint "$root/constraints.txt" --editable "$root$extras"
    echo "$wanted" >"$folder/installed"
}

# use_large_pages
#
# lets the C library keep big buffers, in large pages, instead of giving them back after every
# step: XLA on CPU allocates its temporaries anew each time, and faulting them in page by page
# costs up to a third of a small model's step. Only glibc reads this; elsewhere nothing happens.
use_large_pages() {
    local malloc=glibc.malloc
    export GLIBC_TUNABLES=${GLIBC_TUNABLES:-$malloc.hugetlb=1:$malloc.mmap_threshold=4000000000:$malloc.trim_threshold=8000000000:$malloc.top_pad=300000000}
}
