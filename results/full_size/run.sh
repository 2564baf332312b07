#!/usr/bin/env bash
# Train what is missing of the study in stress.yaml until an hour of the day, then judge what there is.
#
#     results/full_size/run.sh 18:00          # today; a date is accepted too: "tomorrow 7:00"
#     JOBS=1 results/full_size/run.sh 18:00   # leave a core to other work
#
# Started again it goes on: with the next trial, or within one at its last resume point. Journals of several machines,
# copied into one outputs/full_size_stress, are one study.
set -euo pipefail
cd "$(dirname "$0")/../.."
until=$(date -d "${1:?until when? e.g. 18:00}" +%s)
train() { # what is missing of these arms, as far as the time goes
  local left=$((until - $(date +%s)))
  [ "$left" -gt 0 ] && timeout --kill-after=120 "$left" \
    fnostab run results/full_size/stress.yaml --profile full --jobs "${JOBS:-2}" --arms "$@"
}
{ train control_0.01,cure_0.01 &&
  train control_0.003,cure_0.003 &&
  train bounded_0.01,opt_fix_0.01,arch_fix_0.01 &&
  train bounded_0.003,opt_fix_0.003,arch_fix_0.003 &&
  train control_0.001,cure_0.001,bounded_0.001,opt_fix_0.001,arch_fix_0.001 --seeds 400,401,402
} || echo "not all of it has been run"
fnostab sync outputs/full_size_stress
fnostab decide --experiment full_size_stress --evidence
fnostab export results/full_size/stress.csv --experiment full_size_stress
fnostab report --experiment full_size_stress --output results/full_size/report
