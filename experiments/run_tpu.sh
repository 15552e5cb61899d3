#!/usr/bin/env bash
# One process of a sweep on a TPU pod; run it on every worker (README, "Pods, clusters, kills").
# Arguments go to ptrm_sweep.py; give --output a folder that all workers see, such as gs://BUCKET/NAME.
set -euo pipefail
cd "$(dirname "$0")/.."
pip install --quiet -e ".[tpu]"
exec python experiments/ptrm_sweep.py --distributed --compilation-cache "${HOME}/.cache/ptrm_jax" "$@"
