#!/usr/bin/env bash
# Builds the wheel and imports every module of it in an environment that does not see the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="$(cd "${VENV:-.venv}" && pwd)" # VENV may be absolute
here="$PWD/.ci"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
rm -rf build/lib build/bdist.* # modules that are gone would be packed again
"$venv/bin/python" -m build --wheel --outdir "$out/dist" . >"$out/log" 2>&1 || { cat "$out/log"; exit 1; }
"$venv/bin/python" -m venv "$out/clean"
"$out/clean/bin/python" -m pip -q --disable-pip-version-check install --no-deps "$out"/dist/*.whl
cp "$here/import_all.py" "$out"
cd "$out"
"$out/clean/bin/python" import_all.py "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
