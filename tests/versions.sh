#!/usr/bin/env bash
# The test suite on one version of torch and one of Python: tests/versions.sh 2.11.0 python3.12 [arguments of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
torch=$1 python=$2 home=.versions/torch-$1-$(basename "$2")
shift 2

printf '\n==== torch %s, %s ====\n' "$torch" "$python"
[ -d "$home" ] || "$python" -m venv "$home"
# the other packages as pinned, but for those that this torch brings itself
grep -viE '^(torch|triton|nvidia-|cuda-)' constraints.txt > "$home/constraints.txt"
"$home/bin/python" -m pip install --quiet --disable-pip-version-check "torch==$torch"
"$home/bin/python" -m pip install --quiet --disable-pip-version-check -c "$home/constraints.txt" -e '.[test]'
"$home/bin/python" -m pytest -n 2 -q "$@"
