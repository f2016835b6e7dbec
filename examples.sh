#!/usr/bin/env bash
# Examples of alphastomics, each from raw data to scores. Without an argument this is a menu.
#
#   ./examples.sh                     # choose from the menu
#   ./examples.sh 1                   # or basic: dense network, softmax attention
#   ./examples.sh gated|moe|combined|full|compare|all
#
# Environment:
#   PYTHON         interpreter; by default .venv/bin/python if there is one, else python
#   EXAMPLES_DIR   folder of data and outputs; by default examples_data next to this script
#   EXAMPLE_STEPS  training steps of each example; by default 250, about 4 minutes on 2 cores
#   EXAMPLE_CELLS  cells per simulated section; by default 1000
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [[ -z "${PYTHON:-}" ]]; then
    if [[ -x "$here/.venv/bin/python" ]]; then PYTHON="$here/.venv/bin/python"; else PYTHON=python; fi
fi
folder="${EXAMPLES_DIR:-$here/examples_data}"
steps="${EXAMPLE_STEPS:-250}"
cells="${EXAMPLE_CELLS:-1000}"

CHOICES="  1  basic     dense network, softmax attention
  2  gated     a gate on attention
  3  moe       2 of 4 experts in place of each feed-forward
  4  combined  gate and experts
  5  full      gate, 2 of 8 experts, masking ratios 0.3 and 0.33
  6  compare   cost of the configurations; trains nothing
  7  all       all of these, one after the other"

# Print a command as it could be typed, then run it.
run() {
    printf '\n$'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

raw_data() { # raw_data NAME: four simulated sections, one file of raw data
    mkdir -p "$folder/$1/raw"
    run "$PYTHON" -c "import sys, alphastomics as al; al.datasets.simulate_tissue(n_sections=4, n_cells=int(sys.argv[2])).write_h5ad(sys.argv[1])" \
        "$folder/$1/raw/tissue.h5ad" "$cells"
}

example() { # example NAME OPTIONS OF TRAIN...
    local name="$1"
    shift
    local work="$folder/$name"
    raw_data "$name"
    run "$PYTHON" -m alphastomics preprocess --raw_dir "$work/raw" --output_dir "$work/data" \
        --labels_key cell_type --test_sections section_3 --overwrite
    run "$PYTHON" -m alphastomics train --data_dir "$work/data" --exp_name "$name" \
        --output_dir "$work/run" "$@" --max_steps "$steps"
    run "$PYTHON" -m alphastomics test --checkpoint "$work/run"
    run "$PYTHON" -m alphastomics sample --checkpoint "$work/run" --n_cells 1000
    printf '\n%s: done. Everything is in %s\n' "$name" "$work"
}

compare() {
    run "$PYTHON" -m alphastomics compare-configs
}

choose() {
    case "$1" in
        1 | basic) example basic ;;
        2 | gated) example gated --use_gated_attention --gate_type elementwise ;;
        3 | moe) example moe --use_moe --num_experts 4 --moe_top_k 2 ;;
        4 | combined) example combined --use_gated_attention --use_moe --num_experts 4 --moe_top_k 2 ;;
        5 | full)
            example full --use_gated_attention --gate_type elementwise \
                --use_moe --num_experts 8 --moe_top_k 2 \
                --enable_masking --expression_mask_ratio 0.3 --position_mask_ratio 0.33
            ;;
        6 | compare) compare ;;
        7 | all) for number in 1 2 3 4 5 6; do choose "$number"; done ;;
        *)
            printf 'There is no example %q. Choose one of:\n%s\n' "$1" "$CHOICES" >&2
            exit 2
            ;;
    esac
}

if [[ $# -gt 1 ]]; then
    printf 'Give one of:\n%s\n' "$CHOICES" >&2
    exit 2
fi
if [[ $# -eq 0 ]]; then
    printf 'Examples of alphastomics:\n%s\n' "$CHOICES"
    read -r -p "Number or name: " answer
    set -- "$answer"
fi
choose "$1"
