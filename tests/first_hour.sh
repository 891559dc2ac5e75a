#!/usr/bin/env bash
# What a newcomer does in the first hour, in a fresh clone with an environment of its own:
#
#     bash tests/first_hour.sh [FOLDER]
#
# clones the commit of this checkout into FOLDER (default: a temporary one) and runs the two commands
# of the README there, then fine-tuning on the reviews of examples/ in English and in Chinese with
# no option but files and folders, every command that looks at the result, the local page, the export
# and its use in Hugging Face Transformers. It ends with the number of commands that failed. It
# takes about 20 minutes of two cores and installs torch and transformers from the package index.
# shellcheck disable=SC2329  # try calls the functions by their names.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:-/tmp}" && folder=$(mktemp -d "$(cd "${1:-/tmp}" && pwd)/first-hour-XXXXXX") || exit 2
count=0 failed=0

try() {
    local begin=$SECONDS
    count=$((count + 1))
    echo "\$ $*"
    if "$@"; then
        echo "-- $((SECONDS - begin)) s"
    else
        local code=$?
        failed=$((failed + 1))
        echo "-- FAILED with exit code $code after $((SECONDS - begin)) s"
    fi
}

page() { # page NAME MODEL ... : the page of these models answers, and is pictured where a browser is
    local name=$1 browser server port=8917
    shift
    albert-jax serve "$@" --port "$port" &
    server=$!
    for _ in $(seq 60); do
        python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/')" 2>/dev/null && break
        sleep 1
    done
    python -c "import urllib.request as u; assert b'<html' in u.urlopen('http://127.0.0.1:$port/').read()"
    local result=$?
    browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
    if [ -n "$browser" ]; then
        "$browser" --headless --no-sandbox --disable-gpu --window-size=1200,1600 \
            --screenshot="$folder/$name.png" "http://127.0.0.1:$port/" >/dev/null 2>&1 || result=1
    fi
    kill "$server" && wait "$server" 2>/dev/null
    return "$result"
}

card() { # card EXPORT: the Python of an export's card runs as it stands there
    python - "$1" <<'CODE'
import re, sys
card = open(f"{sys.argv[1]}/README.md").read()
code = re.search(r"```python\n(.*?)```", card, re.S)[1].replace("THIS_FOLDER", sys.argv[1])
print(code)
exec(compile(code, "the card", "exec"))
CODE
}

reviews() { # reviews NAME LINE LINE [--init RUN]: from a table to a model in Transformers
    local name=$1 first=$2 second=$3
    shift 3
    try albert-jax finetune --task classification --train "examples/$name/train.tsv" \
        --dev "examples/$name/dev.tsv" --out "runs/$name" "$@"
    try albert-jax evaluate "runs/$name"
    try test -s "runs/$name/curves.png"
    try test -s "runs/$name/confusion.svg"
    printf '%s\n%s\n' "$first" "$second" > "$folder/lines.txt"
    try albert-jax predict "runs/$name" --input - < "$folder/lines.txt"
    try albert-jax explain "runs/$name" "$first" --out "runs/$name-why"
    try page "$name" "runs/$name"
    try albert-jax export "runs/$name" --out "runs/$name-export"
    try card "runs/$name-export"
}

try git clone --quiet "$here" "$folder/albert_jax"
cd "$folder/albert_jax" || exit 1
try bash launch/local.sh
# shellcheck source=/dev/null
source .venv/bin/activate || exit 1
try python -m pip install --quiet torch transformers
try page pretrained runs/tiny/run
try albert-jax export runs/tiny/run --head mlm --out runs/tiny-export
try card runs/tiny-export
reviews reviews "The soup was cold and nobody apologized." "What a lovely quiet room." --init runs/tiny/run
reviews reviews-zh "菜凉了，也没有人道歉。" "房间很安静，我很喜欢。"
echo "$count commands, $failed failed; everything lies in $folder"
exit $((failed > 0))
