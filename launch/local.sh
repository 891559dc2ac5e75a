#!/usr/bin/env bash
# The main job on this machine: text in, a fine-tunable ALBERT out.
#
#   bash launch/local.sh [--text FILE... [TEXT OPTIONS]] [--config PRESET] [--out DIR]
#                        [--processes N] [-- PRETRAIN OPTIONS]
#
# Without --text it learns from the documentation that Python carries with it. FILE may be a
# quoted pattern ('my/*.txt'). TEXT OPTIONS are --format, --field, --sentences, --language and
# --on-bad-text of `albert-jax data prepare`, and --kind, --lower-case, --keep-accents and
# --keep-width of `albert-jax tokenizer train`. Results lie in runs/; the same command continues an
# interrupted run, and says so when all is done. Stages: tokenizer, prepare, pretrain, evaluate,
# export, fill-mask; each is skipped when its result is complete. --processes N trains with N
# processes that talk over the loopback network, as the hosts of a cluster do.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"

usage() {
    sed -n '2,/^set /{/^#/{s/^# \{0,1\}//;p;}}' "${BASH_SOURCE[0]}"
}

text=()
reading=()
rules=()
config=tiny
out=
processes=1
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --text)
        shift
        while [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; do
            text+=("$1")
            shift
        done
        if [ ${#text[@]} -eq 0 ]; then
            echo "local.sh: --text needs at least one file" >&2
            exit 2
        fi
        ;;
    --config | --out | --processes | --format | --field | --sentences | --language | \
        --on-bad-text | --kind | --lower-case | --keep-accents | --keep-width)
        if [ $# -lt 2 ]; then
            echo "local.sh: $1 needs a value" >&2
            exit 2
        fi
        case $1 in
        --config) config=$2 ;;
        --out) out=$2 ;;
        --kind | --lower-case | --keep-accents | --keep-width) rules+=("$1" "$2") ;;
        --processes)
            processes=$2
            if ! [[ $processes =~ ^[1-9][0-9]*$ ]]; then
                echo "local.sh: --processes $2: give a number from 1" >&2
                exit 2
            fi
            ;;
        *) reading+=("$1" "$2") ;;
        esac
        shift 2
        ;;
    --)
        shift
        options=("$@")
        break
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "local.sh: unknown option $1 (bash launch/local.sh --help)" >&2
        exit 2
        ;;
    esac
done

if [ ${#text[@]} -eq 0 ] && [ $((${#reading[@]} + ${#rules[@]})) -gt 0 ]; then
    echo "local.sh: ${reading[0]-${rules[0]}} is for a text of yours: give --text" >&2
    exit 2
fi

began=$SECONDS
make_environment "$root" "$root/.venv" ""
echo "environment: $((SECONDS - began)) s"
albert=("$root/.venv/bin/albert-jax")
runner=()
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
use_large_pages

source=(--text "${text[@]}" "${reading[@]}")
name=$(basename -- "$config" .toml)
if [ ${#text[@]} -eq 0 ]; then
    source=(--text python-docs:)
else
    # Other text, other results: the folder is named after the content of the files and the options.
    name+=-$("$root/.venv/bin/python" - "${reading[*]} ${rules[*]}" "${text[@]}" <<'PY'
import glob, hashlib, sys
digest = hashlib.sha256(sys.argv[1].strip().encode())
for pattern in sys.argv[2:]:
    for name in sorted(glob.glob(pattern, recursive=True)) or [pattern]:
        try:
            with open(name, "rb") as file:
                digest.update(f"{name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            sys.exit(f"local.sh: {name}: {error.strerror}: give the files of your text")
print(digest.hexdigest()[:10])
PY
    )
fi
out=${out:-$root/runs/$name}
mkdir -p -- "$out"
# A folder that is named by hand may hold the results of other text, which the stages would keep.
if [ -e "$out/made-of" ] && [ "$(cat -- "$out/made-of")" != "$name" ]; then
    echo "local.sh: $out holds $(cat -- "$out/made-of"), not $name: give another --out" >&2
    exit 2
fi
echo "$name" >"$out/made-of"
run=$out/run

# stage NAME RESULT COMMAND...: runs the command unless RESULT was already made by it.
stage() {
    local title=$1 result=$2 started=$SECONDS stamp=$out/$1.done
    shift 2
    if [ -e "$stamp" ] && [ -e "$result" ]; then
        echo "== $title: complete, skipped"
        return
    fi
    echo "== $title"
    "${runner[@]}" "${albert[@]}" "$@"
    touch -- "$stamp"
    echo "== $title: $((SECONDS - started)) s"
}

vocabulary=$("${albert[@]}" config show --config "$config" --get model.vocab_size)
stage tokenizer "$out/tokenizer" \
    tokenizer train "${source[@]}" --vocab-size "$vocabulary" "${rules[@]}" --out "$out/tokenizer"
stage prepare "$out/data/manifest.json" \
    data prepare "${source[@]}" --tokenizer "$out/tokenizer" --out "$out/data"
# Always asked: it continues what was interrupted, and says in seconds that it is done.
if [ "$processes" -gt 1 ]; then
    runner=("$root/.venv/bin/python" "$root/launch/local_processes.py" "$processes")
fi
stage pretrain "$out/never" \
    pretrain --config "$config" --data "$out/data" --out "$run" "${options[@]}"
runner=()
for made in evaluate export; do
    if [ "$run/complete" -nt "$out/$made.done" ]; then
        # It was made from an earlier step of the run.
        rm -rf -- "$out/$made.done" "${out:?}/$made"
    fi
done
stage evaluate "$run/evaluation.json" evaluate "$run"
stage export "$out/export/config.json" export "$run" --out "$out/export"

echo "== fill-mask"
if [ ${#text[@]} -eq 0 ]; then
    # Three sentences of what was held out, with their true words.
    "${albert[@]}" fill-mask "$run"
else
    echo "try: $root/.venv/bin/albert-jax fill-mask '$run' 'a sentence of yours with [MASK]'"
fi
echo "done in $((SECONDS - began)) s: $out (run/curves.png, export/ for Transformers)"
