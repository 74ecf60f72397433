#!/usr/bin/env bash
# Makes .venv-lmms ready: Foveate and lmms-eval, beside the torch that setup.sh picks.
#
#   LMMS_EVAL=lmms-eval==0.7.3   another release
#
# lmms-eval asks for torchvision, whose usual wheel belongs to a GPU build of torch and breaks beside
# any other. So pip only resolves, and what it picked is installed without torchvision, and without
# timm, which cannot be imported then and which accelerate imports where it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LMMS_EVAL=${LMMS_EVAL:-lmms-eval==0.7.3}
venv=.venv-lmms
python=$venv/bin/python
stamp=$venv/.lmms-setup

VENV=$venv ./setup.sh
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$LMMS_EVAL" ]; then exit 0; fi
# decord is imported at the top of some of the models that lmms-eval brings along.
echo "lmms: resolving $LMMS_EVAL"
"$python" -m pip install -qq --dry-run --report "$venv/lmms.json" -c "$venv/constraints.txt" \
    "$LMMS_EVAL" decord
"$python" - "$venv/lmms.json" >"$venv/lmms.txt" <<'PY'
import json, sys
with open(sys.argv[1]) as file:
    picked = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in json.load(file)["install"]}
refused = sorted(name for name in picked if name == "torch" or name.startswith(("nvidia", "cuda")))
if refused:
    sys.exit(f"lmms: this would replace the installed torch: {refused}")
left_out = ("torchvision", "timm")
print("\n".join(f"{name}=={version}" for name, version in sorted(picked.items()) if name not in left_out))
PY
echo "lmms: installing $(wc -l <"$venv/lmms.txt") packages"
[ ! -s "$venv/lmms.txt" ] || "$python" -m pip install -qq --no-deps -r "$venv/lmms.txt"
printf '%s' "$LMMS_EVAL" >"$stamp"
