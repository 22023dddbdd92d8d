#!/bin/bash
# One command on several machines by Slurm: a torchrun on each, which meet at the first.
#
#   sbatch docs/examples/slurm.sh -m muq_plugins scan /shared/music
#   sbatch docs/examples/slurm.sh recipes/MuQ/train.py hparams/large/muq_large.yaml \
#       --data_folder /shared/music --output_folder /shared/results/large \
#       --tokenizer.batch_size 1 --compile
#
# Submit from a folder that all machines share: manifests are in results/ of it. A job
# that was killed goes on when it is submitted again, also with other numbers of machines.
#SBATCH --job-name=muq
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -eu
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes="$SLURM_NNODES" --nproc_per_node="${SLURM_GPUS_ON_NODE:-8}" \
    --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$first:29500" "$@"
