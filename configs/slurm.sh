#!/usr/bin/env bash
# Train on two machines of four GPUs each under SLURM; the job queues itself again until training is finished.
#
#     sbatch configs/slurm.sh run.yaml parallel.tp=4
#
# The lines marked with ! are the site's: set them, and activate the environment that weatherfm is installed in.

#SBATCH --job-name=weatherfm
#SBATCH --nodes=2              # !
#SBATCH --gpus-per-node=4      # !
#SBATCH --cpus-per-task=32     # !
#SBATCH --time=12:00:00        # !
#SBATCH --ntasks-per-node=1    # one torchrun a machine, which starts one rank a GPU
#SBATCH --signal=B:USR1@300    # five minutes before the end, to this script
#SBATCH --requeue              # also when a machine fails
#SBATCH --open-mode=append
#SBATCH --output=weatherfm-%j.log

set -euo pipefail

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
gpus=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-$gpus} / gpus))
export PYTHONSAFEPATH=1 # the installed package, not a folder of the same name here
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240 # seconds for the last step and its checkpoint (torch 2.13; before it, 30)

# At the end of its time, srun hands the signal on, and all ranks stop after the same step with a checkpoint.
ending=
trap 'ending=yes; kill -USR1 $!' USR1

# A rank that fails is started again with all others, from the newest checkpoint, three times at most.
srun --kill-on-bad-exit=1 torchrun \
    --nnodes="$SLURM_NNODES" --nproc-per-node="$gpus" --max-restarts=3 \
    --rdzv-backend=c10d --rdzv-endpoint="$head:29500" --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    --signals-to-handle=SIGTERM,SIGINT,SIGUSR1 \
    -m weatherfm.cli train "$@" &

status=0
wait $! || status=$?
if [[ $ending ]]; then # wait has returned for the signal; now for the end of srun
    status=0
    wait $! || status=$?
fi
if [[ $ending && $status != 0 ]]; then # it may have been finished just then
    scontrol requeue "$SLURM_JOB_ID"
    exit 75 # stopped, not done: as training's own status, which torchrun turns into 1
fi
exit "$status" # 0: training is finished; only then may a forecast follow
