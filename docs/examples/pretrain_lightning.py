r"""Pre-trains MuQ with Lightning: the stage is its module, the rest is an experiment.

> python docs/examples/pretrain_lightning.py hparams/targets/baseline_bestrq.yaml \
    --data_folder /my/music --output_folder results/lightning
"""

import sys

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from muq_plugins.data.clips import training_loader
from muq_plugins.data.mel_statistics import normalise
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.experiment import load_experiment
from muq_plugins.inference.muq import save_muq

experiment = load_experiment(sys.argv[1:]).hparams


class Pretraining(pl.LightningModule):
    """Masked prediction of the codes of a target."""

    def __init__(self):
        super().__init__()
        self.stage = experiment["modules"]["pretrain"]

    def configure_optimizers(self):
        return experiment["opt_class"](self.parameters())

    def training_step(self, batch, number):
        experiment["lr_schedule"](self.optimizers(), self.global_step + 1)
        loss = self.stage(batch.wavs, batch.wav_lens, batch.clip_keys).loss
        self.log("loss", loss, prog_bar=True)
        return loss

    def optimizer_step(self, *arguments, **options):
        super().optimizer_step(*arguments, **options)
        self.stage.after_update()  # some objectives have a slower copy of the encoder


module = Pretraining()
manifests = prepare_manifests(**experiment["data"])
normalise(module.stage, manifests, experiment["mel_statistics"])
trainer = pl.Trainer(
    max_steps=experiment["optimizer_step_limit"],
    gradient_clip_val=experiment["max_grad_norm"],
    log_every_n_steps=experiment["log_interval"],
    logger=CSVLogger(experiment["output_folder"]),
    use_distributed_sampler=False,  # each process has its share already
)
settings = [experiment[key] for key in ("clip_seconds", "batch_size", "seed")]
share = trainer.global_rank, trainer.world_size
trainer.fit(module, training_loader(manifests.train, *settings, *share))
if trainer.is_global_zero:
    save_muq(f"{experiment['output_folder']}/inference", module.stage.encoder)
