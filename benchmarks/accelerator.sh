#!/usr/bin/env bash
# All measurements on a machine with an accelerator, in one call of at most eleven minutes.
#
#   bash benchmarks/accelerator.sh --out DIR --corpus DIR [--wheels DIR] [--pairs FILE]
#                                  [--minutes 11] [--platform cuda|tpu] [--tiny]
#
# CORPUS is a folder of `albert-jax data prepare`, PAIRS a table of minimal pairs. Packages that the
# machine lacks are installed from the wheels, without a network, into DIR/venv, which sees those of
# PYTHON (python3). --tiny tries everything on a CPU. benchmarks/accelerator.py tells the stages.
set -euo pipefail
began=$(date +%s)
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
out="" wheels=""
arguments=("$@")
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=${2:-} ;;
    --wheels) wheels=${2:-} ;;
    esac
    shift
done
fail() {
    echo "accelerator.sh: $1" >&2
    exit 2
}
[ -n "$out" ] || fail "no --out: name a folder for the results"
command -v "$python" >/dev/null || fail "$python is missing: install Python, or set PYTHON"
missing=$("$python" "$here/accelerator_machine.py") || exit 2

mkdir -p "$out"
venv=$out/venv
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv --without-pip --system-site-packages "$venv" 2>"$out/venv.log" ||
        fail "$python makes no environment: install its venv module (python3-venv)"
    # If the interpreter is an environment itself, its packages are seen too.
    inner=$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$python" -c 'import site; print("\n".join(site.getsitepackages()))' >"$inner/outer.pth"
fi
if [ -n "$missing" ]; then
    [ -d "$wheels" ] || fail "${missing//$'\n'/, } must be installed: give their wheels with --wheels DIR"
    mapfile -t names <<<"$missing"
    if ! "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-index \
        --find-links "$wheels" "${names[@]}" >"$out/wheels.log" 2>&1; then
        name=$(sed -n 's/^ERROR: No matching distribution found for //p' "$out/wheels.log" | tail -1)
        fail "$wheels has no wheel of ${name:-some package, see $out/wheels.log}: add it"
    fi
fi
export PYTHONPATH=${here%/*}${PYTHONPATH:+:$PYTHONPATH}
exec "$venv/bin/python" "$here/accelerator.py" "${arguments[@]}" --began "$began"
