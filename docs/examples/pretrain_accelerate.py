r"""Pre-trains MuQ with Accelerate: the stage is its model, the rest is an experiment.

> accelerate launch docs/examples/pretrain_accelerate.py \
    hparams/targets/baseline_bestrq.yaml --data_folder /my/music \
    --output_folder results/accelerate
"""

import sys

from accelerate import Accelerator

from muq_plugins.data.clips import training_loader
from muq_plugins.data.mel_statistics import normalise
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.experiment import load_experiment
from muq_plugins.inference.muq import save_muq

experiment, accelerator = load_experiment(sys.argv[1:]).hparams, Accelerator()
manifests = prepare_manifests(**experiment["data"])
stage = experiment["modules"]["pretrain"]
normalise(stage, manifests, experiment["mel_statistics"])
optimizer = experiment["opt_class"](p for p in stage.parameters() if p.requires_grad)
model, optimizer = accelerator.prepare(stage, optimizer)
# A loader of each process's share, which has no end: nothing to prepare.
settings = [experiment[key] for key in ("clip_seconds", "batch_size", "seed")]
share = accelerator.process_index, accelerator.num_processes
loader = iter(training_loader(manifests.train, *settings, *share))

for step in range(1, experiment["optimizer_step_limit"] + 1):
    batch = next(loader).to(accelerator.device)
    experiment["lr_schedule"](optimizer, step)
    loss = model(batch.wavs, batch.wav_lens, batch.clip_keys).loss
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(model.parameters(), experiment["max_grad_norm"])
    optimizer.step()
    stage.after_update()  # some objectives have a slower copy of the encoder
    optimizer.zero_grad()
    if step % experiment["log_interval"] == 0:
        mean = accelerator.reduce(loss.detach(), "mean")
        accelerator.print(f"step {step}: loss {mean:.3f}", flush=True)

if accelerator.is_main_process:
    save_muq(f"{experiment['output_folder']}/inference", experiment["encoder"])
accelerator.wait_for_everyone()  # or torchrun ends the one that saves
accelerator.end_training()
