"""A recipe in the style of SpeechBrain's wav2vec2 recipes, with MuQ by one YAML line.

The Brain below does what upstream's emotion-recognition recipe does with its encoder:
two optimizers, pooling by length, freezing through `model.feature_extractor`, and
checkpoints that are loaded again for the test.
"""

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml

from muq_plugins import MuQEncoder
from muq_plugins.inference.muq import save_muq

YAML = """
seed: 1
__set_seed: !apply:speechbrain.utils.seed_everything [!ref <seed>]
save_folder: !PLACEHOLDER
muq: !PLACEHOLDER
encoder: !new:muq_plugins.PretrainedMuQ
    source: !ref <muq>
    save_path: !ref <save_folder>/muq
    output_norm: True
    input_sample_rate: 16000
    OPTIONS
avg_pool: !new:speechbrain.nnet.pooling.StatisticsPooling
    return_std: False
output_mlp: !new:speechbrain.nnet.linear.Linear
    input_size: 32
    n_neurons: 2
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: 6
modules:
    wav2vec2: !ref <encoder>
    output_mlp: !ref <output_mlp>
opt_class: !name:torch.optim.Adam
    lr: 0.01
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: !ref <save_folder>
    recoverables:
        wav2vec2: !ref <encoder>
        model: !ref <output_mlp>
        counter: !ref <epoch_counter>
"""


class PitchBrain(sb.Brain):
    """Tells low from high tones."""

    def compute_forward(self, batch, stage):
        wavs, lens = batch.sig
        pooled = self.hparams.avg_pool(self.modules.wav2vec2(wavs, lens), lens)
        return self.modules.output_mlp(pooled.squeeze(1)).log_softmax(-1)

    def compute_objectives(self, predictions, batch, stage):
        return torch.nn.functional.nll_loss(predictions, batch.label)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        self.stage_loss = stage_loss
        if stage == sb.Stage.VALID:
            self.checkpointer.save_and_keep_only({"loss": stage_loss})

    def init_optimizers(self):
        self.encoder_optimizer = self.opt_class(self.modules.wav2vec2.parameters())
        self.optimizer = self.opt_class(self.modules.output_mlp.parameters())
        self.checkpointer.add_recoverable("encoder_opt", self.encoder_optimizer)
        self.checkpointer.add_recoverable("optimizer", self.optimizer)
        self.optimizers_dict = {"a": self.encoder_optimizer, "b": self.optimizer}


@pytest.fixture(scope="module")
def clips():
    """Tones of different lengths at 16 kHz."""
    torch.manual_seed(2)
    clips = {}
    for index in range(8):
        times = torch.arange(8000 + 1000 * index) / 16000
        tone = 0.3 * torch.sin(2 * torch.pi * (300, 3000)[index % 2] * times)
        noisy = tone + 0.01 * torch.randn_like(tone)
        clips[f"clip{index}"] = {"sig": noisy, "label": index % 2}
    return sb.dataio.dataset.DynamicItemDataset(clips, output_keys=["sig", "label"])


@pytest.fixture
def build(tmp_path):
    """Builds the Brain from YAML, as the main part of a recipe does."""
    torch.manual_seed(0)
    encoder = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    folder = save_muq(tmp_path / "inference", encoder)

    def build(options):
        overrides = {"save_folder": str(tmp_path / "save"), "muq": str(folder)}
        hparams = load_hyperpyyaml(YAML.replace("OPTIONS", options), overrides)
        if "freeze" not in options:
            hparams["encoder"].model.feature_extractor._freeze_parameters()
        return PitchBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts={"device": "cpu", "noprogressbar": True},
            checkpointer=hparams["checkpointer"],
        )

    return build


def evaluate(brain, clips):
    """The loss with the newest checkpoint, or without one if there is none."""
    return brain.evaluate(clips, test_loader_kwargs={"batch_size": 4})


@pytest.mark.parametrize(
    "options",
    [
        "freeze: False",
        "freeze_feature_extractor: True",
        "frozen_layers: 1",
        "output_weighted_sum: True",
        "lora: {r: 4, lora_alpha: 8, lora_dropout: 0.1}",
        "freeze: True\n    output_weighted_sum: True",
    ],
)
def test_a_recipe_learns_saves_and_loads(build, clips, options):
    brain = build(options)
    before = evaluate(brain, clips)
    brain.fit(
        brain.hparams.epoch_counter,
        clips,
        clips,
        train_loader_kwargs={"batch_size": 4},
        valid_loader_kwargs={"batch_size": 4},
    )
    after = evaluate(brain, clips)
    assert after < 0.9 * before

    again = build(options)
    # The checkpoint is loaded first. SpeechBrain's pooling adds a little noise.
    assert evaluate(again, clips) == pytest.approx(after, rel=1e-4)
    trained, loaded = brain.modules.state_dict(), again.modules.state_dict()
    assert trained.keys() == loaded.keys()
    assert all(torch.equal(trained[name], loaded[name]) for name in trained)
