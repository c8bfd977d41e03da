#!/bin/sh
# Installs a wheel of glas3d in the versions that are tested, and checks that all of it arrived. The container recipes and
# .ci/run call it, so that what a container does is tried on every change.
# usage: install.sh PYTHON WHEEL [EXTRAS]
# TORCH_INDEX: an index with other builds of torch, such as https://download.pytorch.org/whl/cpu
set -eu
python=$1
wheel=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
extras=${3:+[$3]}
constraints=$(cd "$(dirname "$0")/.." && pwd)/constraints.txt
index=${TORCH_INDEX:+--extra-index-url=$TORCH_INDEX}

# shellcheck disable=SC2086 # no index is no argument
"$python" -m pip install --quiet --no-cache-dir $index --constraint "$constraints" "$wheel$extras"
cd / # not the checkout: what is found must come from the wheel
"$python" - <<'PY'
import glas3d

assert "site-packages" in glas3d.__file__, glas3d.__file__
from importlib.resources import files
static = files("glas3d.report.webpage") / "static"
assert all((static / name).is_file() for name in ("report.html", "report.css", "viewer.js", "niivue/niivue.umd.js"))
print(glas3d.Atlas.load("AAL"), "and", glas3d.load_model("adnc-simulated").info.name, "load from the wheel")
PY
"$(dirname "$python")/glas3d" --version
