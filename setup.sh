#!/usr/bin/env bash
# Makes .venv ready for Foveate; quick and silent when nothing is to do.
#
#   PYTHON=python3.12      the interpreter for a new .venv
#   TORCH=gpu              take the GPU build of torch although no GPU is found here
#   TORCH=any              take whatever build of torch pip picks, gigabytes or not
#   EXTRAS=lm              extras of foveate that are installed as well
#   TORCH_CPU_INDEX=URL    where the CPU wheels of torch are, if pip does not find one by itself
set -euo pipefail
export PYTHONWARNINGS=ignore # torch complains while numpy is not there yet
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=${VENV:-.venv}
CPU_TORCH=torch==2.13.0
stamp=$VENV/.foveate-setup
fingerprint="$(cat pyproject.toml setup.sh | cksum) $PWD ${EXTRAS:-}"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

is_ready() {
    [ -x "$VENV/bin/foveate" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$fingerprint" ]
}

pick_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.10 or newer among: ${PYTHON:-python3, python3.10 to python3.13, python}. Install one, or name it: PYTHON=/path/to/python ./setup.sh"
}

make_venv() {
    [ -x "$VENV/bin/python" ] && return
    local python
    python=$(pick_python)
    say "creating $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
}

# From 25.1 on, pip knows dependency groups, and a dry run does not fetch the wheels themselves.
freshen_pip() {
    if ! "$VENV/bin/python" -c 'import pip, sys; v = pip.__version__.split("."); sys.exit((int(v[0]), int(v[1])) < (25, 1))'; then
        say "updating pip"
        "$VENV/bin/python" -m pip install -qq --upgrade "pip>=25.1" \
            || die "pip 25.1 or newer is needed and could not be installed; check the network or pip's configuration"
    fi
}

has_torch() { "$VENV/bin/python" -c 'import torch' 2>/dev/null; }

has_gpu() {
    [ "${TORCH:-}" = gpu ] && return 0
    command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q '^GPU'
}

# Succeeds if pip, given these flags, would install a CPU build and no GPU libraries.
resolves_to_cpu() {
    local report
    report=$(mktemp)
    if ! "$VENV/bin/python" -m pip install -qq --dry-run --report "$report" "$@" "$CPU_TORCH" >/dev/null 2>&1; then
        rm -f "$report"
        return 1
    fi
    "$VENV/bin/python" - "$report" <<'PY'
import json, os, sys
with open(sys.argv[1]) as file:
    picked = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in json.load(file)["install"]}
os.remove(sys.argv[1])
is_cpu_wheel = picked.get("torch", "").endswith("+cpu")
brings_gpu_libraries = any(name.startswith(("nvidia", "cuda")) for name in picked)
sys.exit("torch" not in picked or (brings_gpu_libraries and not is_cpu_wheel))
PY
}

install_torch() {
    local pip=("$VENV/bin/python" -m pip install)
    if has_gpu; then
        say "GPU found (or TORCH=gpu): installing torch for it"
        "${pip[@]}" "torch>=2.6"
    elif [ "${TORCH:-}" = any ]; then
        say "TORCH=any: installing whatever torch pip picks"
        "${pip[@]}" "torch>=2.6"
    elif resolves_to_cpu; then
        say "no GPU found: installing $CPU_TORCH for the CPU"
        "${pip[@]}" "$CPU_TORCH"
    elif [ -n "${TORCH_CPU_INDEX:-}" ] && resolves_to_cpu --retries 0 --timeout 5 --extra-index-url "$TORCH_CPU_INDEX"; then
        say "no GPU found: installing $CPU_TORCH from TORCH_CPU_INDEX"
        "${pip[@]}" --extra-index-url "$TORCH_CPU_INDEX" "$CPU_TORCH"
    else
        die "no GPU is found here, and pip offers no CPU build of $CPU_TORCH (only one with gigabytes of GPU libraries, or none). Nothing was installed. Do one of these:
  - TORCH_CPU_INDEX=<URL of PyTorch's CPU wheels, see pytorch.org> ./setup.sh
  - install a CPU torch into $VENV yourself, then run ./setup.sh again (an installed torch is kept)
  - TORCH=any ./setup.sh   (takes what pip picks)"
    fi
}

install_foveate() {
    # The installed torch is pinned, so that nothing in the next step can swap it.
    "$VENV/bin/python" -c 'import torch; print("torch==" + torch.__version__)' >"$VENV/constraints.txt"
    say "installing foveate and its development tools beside $(cat "$VENV/constraints.txt")"
    "$VENV/bin/python" -m pip install -qq -c "$VENV/constraints.txt" --editable ".${EXTRAS:+[$EXTRAS]}" --group dev
}

is_ready && exit 0
make_venv
freshen_pip
if has_torch; then
    say "keeping the torch that is installed"
else
    install_torch
fi
install_foveate
printf '%s' "$fingerprint" >"$stamp"
say "ready; try $VENV/bin/foveate demo"
