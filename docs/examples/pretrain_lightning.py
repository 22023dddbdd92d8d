r"""Pre-trains MuQ with Lightning: the stage is its module, the rest is an experiment.

> python docs/examples/pretrain_lightning.py hparams/targets/baseline_bestrq.yaml \
    --data_folder /my/music --output_folder results/lightning
"""

import sys

import pytorch_lightning as pl

from muq_plugins.data.clips import training_loader
from muq_plugins.data.mel_statistics import normalise
from muq_plugins.data.preparation import prepare_manifests
from muq_plugins.experiment import load_experiment
from muq_plugins.inference.muq import save_muq


class Pretraining(pl.LightningModule):
    """Masked prediction of the codes of a target."""

    def __init__(self, experiment):
        super().__init__()
        self.experiment = experiment
        self.stage = experiment["modules"]["pretrain"]
        self.manifests = prepare_manifests(**experiment["data"])
        normalise(self.stage, self.manifests, experiment["mel_statistics"])

    def train_dataloader(self):
        settings = [self.experiment[k] for k in ("clip_seconds", "batch_size", "seed")]
        share = self.trainer.global_rank, self.trainer.world_size
        return training_loader(self.manifests.train, *settings, *share)

    def configure_optimizers(self):
        trained = [p for p in self.stage.parameters() if p.requires_grad]
        return self.experiment["opt_class"](trained)

    def training_step(self, batch, number):
        self.experiment["lr_schedule"](self.optimizers(), self.global_step + 1)
        loss = self.stage(batch.wavs, batch.wav_lens, batch.clip_keys).loss
        self.log("loss", loss, prog_bar=True)
        return loss


if __name__ == "__main__":
    experiment = load_experiment(sys.argv[1:]).hparams
    module = Pretraining(experiment)
    pl.Trainer(
        max_steps=experiment["optimizer_step_limit"],
        gradient_clip_val=experiment["max_grad_norm"],
        log_every_n_steps=experiment["log_interval"],
        default_root_dir=experiment["output_folder"],
        use_distributed_sampler=False,  # each process has its share already
    ).fit(module)
    save_muq(f"{experiment['output_folder']}/inference", module.stage.encoder)
