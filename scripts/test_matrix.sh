#!/usr/bin/env bash
# Runs the seam tests on several releases of transformers, each in a venv of its own under .matrix/.
#
#   scripts/test_matrix.sh                   the generations we support, and the newest
#   scripts/test_matrix.sh 4.57 newest       only these
#   MATRIX_TESTS="tests/hf -k llama"         other tests
#
# torch and the rest come from .venv through a .pth file; only transformers and what it pins is new.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
tests=${MATRIX_TESTS:-$(ls -d tests/hf tests/cache tests/serve/test_engine*.py 2>/dev/null || true)}
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(4.57 5.4 5.14 newest)

requirement() {
    if [ "$1" = newest ]; then echo "transformers<6"; else echo "transformers==$1.*"; fi
}

prepare() {
    local version=$1 folder=.matrix/$1
    if [ -f "$folder/.ready" ] && [ "$version" != newest ]; then return; fi
    echo "matrix: preparing $folder"
    [ -x "$folder/bin/python" ] || "$VENV/bin/python" -m venv --without-pip "$folder"
    local site
    site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -f "$site/shared.pth" # or pip would find the packages of .venv here, and replace them there
    "$VENV/bin/python" -m pip --python "$folder/bin/python" install --quiet --upgrade --no-deps \
        "$(requirement "$version")"
    # These two are what releases of transformers pin differently; the rest is shared.
    "$VENV/bin/python" - "$site" >"$folder/pins.txt" <<'PY'
import importlib.metadata, sys
distribution = next(d for d in importlib.metadata.distributions(path=[sys.argv[1]]) if d.name == "transformers")
wanted = ("huggingface-hub", "huggingface_hub", "tokenizers")
print("\n".join(r.split(";")[0] for r in distribution.requires if r.startswith(wanted) and "extra" not in r))
PY
    "$VENV/bin/python" -m pip --python "$folder/bin/python" install --quiet --upgrade \
        --no-warn-conflicts -c "$VENV/constraints.txt" -r "$folder/pins.txt"
    { "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; echo "$PWD/src"; } >"$site/shared.pth"
    touch "$folder/.ready"
}

failed=()
for version in "${versions[@]}"; do
    prepare "$version"
    python=.matrix/$version/bin/python
    echo "matrix: $("$python" -c 'import transformers; print("transformers", transformers.__version__)')"
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=1 "$python" -m pytest -q -n "${JOBS:-2}" $tests || failed+=("$version")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "matrix: failed on ${failed[*]}" >&2
    exit 1
fi
echo "matrix: passed on ${versions[*]}"
