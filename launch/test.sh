#!/usr/bin/env bash
# Linter, type checker and tests, in an environment of their own (.venv-test).
#
#   bash launch/test.sh [--all] [--slow] [PYTEST OPTIONS]
#
# --all adds the thorough tests, the comparisons with other programs, the compilation for TPUs and
# the storage emulator, for which torch, Transformers, libtpu and gcsfs are installed (gigabytes);
# --slow adds these thorough tests and those that take minutes.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"

extras="[test]"
marks=(-m "not slow and not thorough")
while [ $# -gt 0 ]; do
    case $1 in
    --all)
        extras="[test,parity,tpu-plan,gcs,gcs-emulator]"
        [ ${#marks[@]} -eq 0 ] || marks=(-m "not slow")
        ;;
    --slow) marks=() ;;
    *) break ;;
    esac
    shift
done
make_environment "$root" "$root/.venv-test" "$extras"
if [ "$extras" != "[test]" ]; then # Only Kokoro's model is needed, not its front end and spaCy.
    "$root/.venv-test/bin/python" -m pip install --disable-pip-version-check -qq --no-deps \
        'kokoro==0.9.4; python_version < "3.13"' loguru==0.7.3
fi
export PATH="$root/.venv-test/bin:$PATH" JAX_PLATFORMS=cpu
cd -- "$root"
failed=0
ruff check . || failed=1
ruff format --check --quiet . || failed=1
pyright --pythonpath "$root/.venv-test/bin/python" || failed=1
# Last, so that its count is the last line.
python -m pytest -n 2 --dist loadfile "${marks[@]}" "$@" || failed=1
exit "$failed"
