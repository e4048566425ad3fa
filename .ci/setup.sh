#!/usr/bin/env bash
# Makes the virtual environment and installs petground in it: `.ci/setup.sh [EXTRA,EXTRA]`. Quick when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
extra="${1:-}"
venv="${VENV:-.venv}"
python="${PYTHON:-python3}"
mark="$venv/.installed${extra:+-$extra}"
if [ -e "$mark" ] && [ "$mark" -nt pyproject.toml ] && [ "$mark" -nt constraints.txt ]; then exit 0; fi

start=$(date +%s)
if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; then
  echo "petground needs Python 3.10 to 3.13, '$python' is $("$python" --version 2>&1); name another: make PYTHON=python3.12 ..." >&2
  exit 1
fi
if [ ! -x "$venv/bin/python" ] && ! "$python" -m venv "$venv"; then
  echo "could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
  exit 1
fi
echo "Installing petground${extra:+ with its $extra tools} into $venv (some minutes the first time) ..."
pip=("$venv/bin/python" -m pip --disable-pip-version-check -q)
"${pip[@]}" install -c constraints.txt -e ".${extra:+[$extra]}"

# nnunetv2 pulls torchvision in through timm. Where torch is a CPU build there is no torchvision to match, and a broken
# one takes transformers and Lightning down with it; nnU-Net itself works without.
if ! "$venv/bin/python" -c 'import torchvision' >/dev/null 2>&1; then
  if "${pip[@]}" show torchvision >/dev/null 2>&1; then
    echo "torchvision does not import beside this torch: removed (petground does not need it)."
    "${pip[@]}" uninstall -y torchvision
  fi
fi
"$venv/bin/python" -c 'import lightning, transformers, nnunetv2, petground.pipeline.cli' ||
  { echo "the installed libraries do not import; remove $venv and try again" >&2; exit 1; }
[ -e "$venv/.seconds" ] || echo $(($(date +%s) - start)) >"$venv/.seconds"
touch "$mark"
