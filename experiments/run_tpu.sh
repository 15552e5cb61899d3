#!/usr/bin/env bash
# One process of a sweep on a TPU pod; run it on every worker (docs/sweeps.md, "Many machines").
# Arguments go to ptrm_sweep.py; give --output a folder that all workers see, such as gs://BUCKET/NAME.
#   PYTHON      interpreter of at least 3.11 to make the environment with (default: python3)
#   PTRM_CACHE  folder for it and for compiled programs (default: ~/.cache/ptrm_jax, which may be shared)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: Python >= 3.11 is needed; $python is $("$python" --version 2>&1 || true); set PYTHON, such as PYTHON=python3.11" >&2
  exit 2
fi

# An environment for each host, where the home folder is shared, made once, however many processes
# start. It has the dependencies alone: the package is used from this checkout, in which installers
# of several hosts would write at once.
host=${PTRM_CACHE:-$HOME/.cache/ptrm_jax}/$(hostname)
mkdir -p "$host"
needed=$("$python" -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
more = project["optional-dependencies"]
print("\n".join([*project["dependencies"], *more["tpu"], *more["gcs"]]))')
exec 9> "$host/lock"
flock 9
if [[ ! -f $host/installed || $(< "$host/installed") != "$needed" ]]; then
  rm -rf "$host/installed" "$host/venv"
  "$python" -m venv "$host/venv"
  printf '%s\n' "$needed" > "$host/requirements.txt"
  "$host/venv/bin/python" -m pip install --quiet --requirement "$host/requirements.txt"
  printf '%s\n' "$needed" > "$host/installed"
fi
exec 9>&-

export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
exec "$host/venv/bin/python" experiments/ptrm_sweep.py --distributed --compilation-cache "$host/compiled" "$@"
