#!/usr/bin/env bash
# RecBole beside this project: SASRec, LightGCN, DiffRec and L-DiffRec on MovieLens-100K, one thread.
#
#     JAXREC_DATA=DIR benchmarks/recbole.sh [FOLDER]
#
# makes an environment of RecBole's own in FOLDER (default .venv-recbole) once, and then trains and
# evaluates both sides on DIR/ml-100k, a process a system, ours by JAXREC_PYTHON (default
# .venv/bin/python). Prints a json line a system and writes results/recbole-cpu.json.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/.venv-recbole}
ours=${JAXREC_PYTHON:-$root/.venv/bin/python}
if [ ! -x "$folder/bin/python" ]; then
  "${PYTHON:-python3.11}" -m venv "$folder"
  # numpy 1 is what RecBole 1.2.1 was written for
  "$folder/bin/pip" install -q 'recbole==1.2.1' 'numpy<2' 'torch>=2.6,<3' 'setuptools<81'
fi
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
export XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
cd "$root"
for model in sasrec lightgcn diffrec ldiffrec; do
  "$folder/bin/python" benchmarks/recbole_peer.py "$JAXREC_DATA/ml-100k" --model=$model | tee -a "$lines"
  "$ours" benchmarks/recbole_ours.py "$JAXREC_DATA/ml-100k/ml-100k.inter" --model=$model | tee -a "$lines"
done
"$ours" benchmarks/recbole_ours.py --write "$lines"
