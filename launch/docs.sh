#!/usr/bin/env bash
# Builds the documentation site in build/site, and fails at any warning or dead link.
#
#   bash launch/docs.sh
#
# Pages and the files that they link to keep their relative places, so that every link works both
# in the checkout and on the site. Tools are installed into .venv-docs.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"

make_environment "$root" "$root/.venv-docs" "[docs]"
cd -- "$root"
rm -rf build/docs build/site
mkdir -p build/docs
find . -path './.*' -prune -o -path ./build -prune -o -path ./runs -prune -o -path ./work -prune -o -path ./tests -prune -o \
    \( -name '*.md' -o -name '*.ipynb' -o -name '*.svg' -o -name '*.png' -o -name '*.yaml' \
    -o -path './albert_jax/*.py' -o -path './examples/*.py' -o -path './benchmarks/*.tsv' -o -name LICENSE \
    -o -name CITATION.cff \) \
    -type f -exec cp --parents -t build/docs {} +
# The theme announces the end of its own life in 2027 at every build.
NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
echo "the site is in $root/build/site"
