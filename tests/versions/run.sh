#!/usr/bin/env bash
# The short suite under one interpreter and one set of releases: run.sh 3.10 lowest VENV. Skips where there is no such
# interpreter. Needs neither torch nor any extra of the package; Pillow draws the made-up set.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$1 releases=$2 venv=$3

for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
    "$python" -c 'import venv' 2>/dev/null && break
    python=
done
if [[ -z $python ]]; then
    echo "Python $version is not here: the short suite with the $releases releases is skipped."
    exit 0
fi
"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet -c "tests/versions/$releases.txt" -e . pytest pillow
"$venv/bin/python" -c 'import sys, keras; print(f"Python {sys.version.split()[0]}, Keras {keras.__version__}")' 2>/dev/null
"$venv/bin/python" -m pytest -q -p no:cacheprovider tests/versions/short.py
