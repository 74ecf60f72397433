#!/usr/bin/env bash
# Makes .venv-NAME ready: Foveate and other packages, beside the torch that setup.sh picks.
#
#   scripts/beside.sh NAME "LEFT OUT" PACKAGE...
#
# The packages ask for torchvision and the like, whose usual wheels belong to a GPU build of torch and
# break beside any other. So pip only resolves, and what it picked is installed without what is left
# out. Nothing is done again until the first package's release changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=$1 left_out=$2
shift 2
venv=.venv-$name
python=$venv/bin/python
stamp=$venv/.$name-setup

VENV=$venv ./setup.sh
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$1" ]; then exit 0; fi
echo "$name: resolving $1"
"$python" -m pip install -qq --dry-run --report "$venv/$name.json" -c "$venv/constraints.txt" "$@"
"$python" - "$venv/$name.json" "$left_out" >"$venv/$name.txt" <<'PY'
import json, sys
with open(sys.argv[1]) as file:
    picked = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in json.load(file)["install"]}
refused = sorted(name for name in picked if name == "torch" or name.startswith(("nvidia", "cuda")))
if refused:
    sys.exit(f"this would replace the installed torch: {refused}")
left_out = sys.argv[2].split()
print("\n".join(f"{name}=={version}" for name, version in sorted(picked.items()) if name not in left_out))
PY
echo "$name: installing $(wc -l <"$venv/$name.txt") packages"
[ ! -s "$venv/$name.txt" ] || "$python" -m pip install -qq --no-deps -r "$venv/$name.txt"
printf '%s' "$1" >"$stamp"
