"""What SpeechBrain's recipes do with an encoder, done with ours and with its own.

Rows are encoders, columns are what recipes do with one of theirs. The wrappers of a
random wav2vec 2.0 are the control: what they fail at is no call of a recipe.
"""

import inspect

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.integrations.audio_tokenizers.discrete_ssl import (
    DiscreteSSL,
    DiscreteSSLTokenizer,
)
from speechbrain.integrations.huggingface.hubert import HuBERT
from speechbrain.integrations.huggingface.mert import MERT
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from speechbrain.integrations.huggingface.wavlm import WavLM
from speechbrain.integrations.huggingface.weighted_ssl import WeightedSSLModel
from speechbrain.utils.parameter_transfer import Pretrainer
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from muq_plugins import MuQEncoder, PretrainedMuQ, WeightedMuQ
from muq_plugins.inference.muq import save_muq
from tests.forks import checked, fork_ranks
from tests.unit.inference import plain_brain

HUGGING_FACE = "speechbrain.integrations.huggingface"
# Class, its own options, and the name of what it is made from.
ENCODERS = {
    "PretrainedMuQ": ("muq_plugins.PretrainedMuQ", "input_sample_rate: 16000"),
    "WeightedMuQ": ("muq_plugins.WeightedMuQ", "input_sample_rate: 16000"),
    "Wav2Vec2": (f"{HUGGING_FACE}.wav2vec2.Wav2Vec2", ""),
    "WeightedSSLModel": (f"{HUGGING_FACE}.weighted_ssl.WeightedSSLModel", ""),
}
# Without and with a learned sum of hidden states.
PLAIN, WEIGHTED = ("PretrainedMuQ", "Wav2Vec2"), ("WeightedMuQ", "WeightedSSLModel")

YAML = """
seed: 1
__set_seed: !apply:speechbrain.utils.seed_everything [!ref <seed>]
save_folder: !PLACEHOLDER
hub: !PLACEHOLDER
encoder: !new:CLASS
    SOURCE: !ref <hub>
    save_path: !ref <save_folder>/hub
    OPTIONS
avg_pool: !new:speechbrain.nnet.pooling.StatisticsPooling
    return_std: False
output_mlp: !new:speechbrain.nnet.linear.Linear
    input_size: 32
    n_neurons: 2
epochs: 6
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: !ref <epochs>
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
    """Tells low from high tones, with an optimizer for each part."""

    def compute_forward(self, batch, stage):
        wavs, lens = batch.to(self.device).sig
        pooled = self.hparams.avg_pool(self.modules.wav2vec2(wavs, lens), lens)
        return self.modules.output_mlp(pooled.squeeze(1)).log_softmax(-1)

    def compute_objectives(self, predictions, batch, stage):
        return torch.nn.functional.nll_loss(predictions, batch.label)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        self.stage_loss = stage_loss
        if stage == sb.Stage.VALID:
            self.checkpointer.save_and_keep_only({"loss": stage_loss})

    def init_optimizers(self):
        trained = self.modules.wav2vec2.parameters()
        if hasattr(self.modules.wav2vec2, "weights"):
            trained = [self.modules.wav2vec2.weights]  # as MP3S does
        self.encoder_optimizer = self.opt_class(trained)
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
        seconds = len(tone) / 16000
        clips[f"{index}"] = {"sig": noisy, "label": index % 2, "duration": seconds}
    return sb.dataio.dataset.DynamicItemDataset(clips, output_keys=["sig", "label"])


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """Folders of a small MuQ and of a small wav2vec 2.0, both of width 32."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hubs")
    muq = MuQEncoder(32, num_layers=2, num_heads=4, ffn_width=64, conv_channels=4)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        layerdrop=0.0,
    )
    Wav2Vec2Model(config).save_pretrained(folder / "wav2vec2")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "wav2vec2")
    return {True: save_muq(folder / "muq", muq), False: folder / "wav2vec2"}


@pytest.fixture
def load(hubs, tmp_path):
    """Loads the YAML file of a recipe with one of the encoders."""

    def load(row, *options, epochs=6):
        name, own = ENCODERS[row]
        yaml = YAML.replace("CLASS", name).replace(
            "OPTIONS", "\n    ".join([own, *options]).strip()
        )
        yaml = yaml.replace("SOURCE", "hub" if row in WEIGHTED else "source")
        hub, save = str(hubs["MuQ" in row]), str(tmp_path / "save")
        overrides = {"save_folder": save, "hub": hub, "epochs": epochs}
        return load_hyperpyyaml(yaml, overrides)

    return load


@pytest.fixture
def build(load):
    """Builds the encoder alone."""
    return lambda row, *options: load(row, *options)["encoder"]


WRAPPERS = (HuBERT, MERT, Wav2Vec2, WavLM)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(WeightedMuQ, WeightedSSLModel), *((PretrainedMuQ, each) for each in WRAPPERS)],
)
def test_constructor_and_calls_are_those_of_the_wrappers(ours, theirs):
    def parameters(function):
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in found if p.kind is not p.VAR_KEYWORD]

    names = ["forward"] + ["extract_features"] * hasattr(theirs, "extract_features")
    for name in names:
        assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name))
    ours, theirs = parameters(ours), parameters(theirs)
    if ours != theirs:  # more options at the end, and save_path may be left out
        assert ours[0] == theirs[0] and ours[1] == ("save_path", None)
        assert ours[2 : len(theirs)] == theirs[2:]


@pytest.mark.parametrize("row", ENCODERS)
def test_names_that_recipes_read(build, row, device):
    lobe = build(row).to(device=device)
    assert lobe.freeze is False
    model = lobe.model
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (32, 2)
    assert len(model.encoder.layers) == 2
    assert {id(p) for p in model.parameters()} <= {id(p) for p in lobe.parameters()}
    model.feature_extractor._freeze_parameters()
    front_end = list(model.feature_extractor.parameters())
    assert front_end and not any(p.requires_grad for p in front_end)
    assert all(p.requires_grad for p in model.encoder.layers.parameters())
    assert not lobe.eval().training and not model.encoder.layers[0].training


@pytest.mark.parametrize("row", ENCODERS)
def test_a_frozen_encoder_learns_nothing_but_weights_of_a_sum(build, row, device):
    lobe = build(row, "freeze: True").to(device).train()
    assert lobe.freeze is True
    trained = [name for name, p in lobe.named_parameters() if p.requires_grad]
    out = lobe(torch.randn(2, 16000, device=device))
    assert out.requires_grad is bool(trained) is (row in WEIGHTED)
    if trained:
        optimizer = torch.optim.Adam([lobe.weights], lr=0.1)
        assert lobe.weights.shape == (lobe.num_layers,) == (3,)
        out[..., 0].sum().backward()
        optimizer.step()
        assert lobe.weights.all()


@pytest.mark.parametrize("row", PLAIN)
def test_layers_are_cut_as_iwslt22_cuts_them(build, row, device):
    lobe = build(row, "output_all_hiddens: True").to(device).eval()
    wavs = torch.randn(2, 16000, device=device)
    whole = lobe(wavs)
    lobe.model.encoder.layers = lobe.model.encoder.layers[:1]
    cut = lobe(wavs)
    assert len(whole) == 3 and len(cut) == 2 and cut[0].shape == whole[0].shape
    torch.testing.assert_close(cut[0], whole[0])
    assert not any(n.startswith("layers.1.") for n in lobe.model.encoder.state_dict())


@pytest.mark.parametrize("row", PLAIN)
def test_discrete_ssl_takes_the_hidden_states_of_its_layers(build, row, device):
    class KMeans:
        """Two clusters by sign, in the place of downloaded ones."""

        cluster_centers_ = torch.eye(2).numpy()

        def predict(self, feats):
            return (feats[:, 0] > 0).long().numpy()

    lobe = build(row, "output_all_hiddens: True").to(device).eval()
    discrete = DiscreteSSL.__new__(DiscreteSSL)  # its constructor downloads
    torch.nn.Module.__init__(discrete)
    discrete.ssl_model = lobe
    discrete.ssl_layer_ids = (0, 2)
    discrete.kmeans_models = [KMeans(), KMeans()]
    discrete.vocabularies = [KMeans.cluster_centers_] * 2
    discrete.tokenizer = DiscreteSSLTokenizer([2, 2])
    wavs = torch.randn(2, 16000, device=device)
    lens = torch.tensor([1.0, 0.5], device=device)
    tokens, _, _ = discrete.encode(wavs, lens)
    expected = lobe(wavs, lens)[[0, 2], ..., 0].movedim(0, -1) > 0
    assert torch.equal(tokens.bool(), expected)


def fit(hparams, clips, precision="fp32", dynamic=False):
    """Trains as the main part of a recipe does; gives the Brain."""
    brain = PitchBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True, "precision": precision},
        checkpointer=hparams["checkpointer"],
    )
    loader = {"batch_size": 4}
    if dynamic:
        sampler = DynamicBatchSampler(
            clips,
            max_batch_length=3.0,
            num_buckets=2,
            length_func=lambda clip: clip["duration"],
        )
        loader = {"batch_sampler": sampler}
    brain.before = evaluate(brain, clips)
    counter = brain.hparams.epoch_counter
    brain.fit(counter, clips, clips, loader, {"batch_size": 4})
    return brain


def evaluate(brain, clips):
    """The loss with the newest checkpoint, or without one if there is none."""
    return brain.evaluate(clips, test_loader_kwargs={"batch_size": 4})


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("PretrainedMuQ", ["freeze_feature_extractor: True"]),
        ("PretrainedMuQ", ["frozen_layers: 1", "output_norm: True"]),
        ("PretrainedMuQ", ["lora: {r: 4, lora_alpha: 8, lora_dropout: 0.1}"]),
        ("PretrainedMuQ", ["freeze: True", "output_weighted_sum: True"]),
        *((row, ["output_norm: True"]) for row in PLAIN),
        *((row, ["freeze: True", "layernorm: True"]) for row in WEIGHTED),
    ],
)
def test_a_recipe_learns_saves_loads_and_goes_on(load, clips, row, options, tmp_path):
    brain = fit(load(row, *options), clips)
    after = evaluate(brain, clips)
    assert after < 0.9 * brain.before
    again = fit(load(row, *options, epochs=7), clips)
    # The checkpoint is loaded first. SpeechBrain's pooling adds a little noise.
    assert again.before == pytest.approx(after, rel=1e-4)
    assert again.hparams.epoch_counter.current == 7
    # A checkpoint is what others begin with.
    path = again.checkpointer.find_checkpoint().paramfiles["wav2vec2"]
    lobe = load(row, *options)["encoder"]
    pretrainer = Pretrainer(tmp_path / "in", {"x": lobe}, {"x": str(path)})
    pretrainer.collect_files()
    pretrainer.load_collected()
    trained = again.modules.wav2vec2.state_dict()
    assert all(torch.equal(trained[name], x) for name, x in lobe.state_dict().items())


@pytest.mark.parametrize("row", ENCODERS)
def test_dynamic_batches_in_half_precision(load, clips, row):
    brain = fit(load(row), clips, "bf16", dynamic=True)
    assert evaluate(brain, clips) < 0.9 * brain.before


def test_two_processes_learn_what_one_learns(tmp_path):
    torch.manual_seed(0)
    encoder = MuQEncoder(
        32, num_layers=1, num_heads=4, ffn_width=64, conv_channels=4, dropout=0.0
    )
    source = save_muq(tmp_path / "muq", encoder)
    arguments = source, tmp_path / "two.pt", "--distributed_backend=gloo"
    for rank in fork_ranks(plain_brain.__file__, *arguments):
        checked(rank)
    one = [plain_brain.train(str(source), *way, {}) for way in plain_brain.WAYS]
    found = torch.load(tmp_path / "two.pt")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    start = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    start["layer_weights"] = torch.zeros(2)
    for (_, options), expected, learned in zip(
        plain_brain.WAYS, one, found, strict=True
    ):
        torch.testing.assert_close(learned, expected, rtol=1e-4, atol=1e-5)
        changed = {n for n in expected if not torch.equal(expected[n], start[n])}
        moved = {name for name in changed if name.endswith(statistics)}
        assert bool(moved) == (options.get("batch_statistics") == "moving")
        assert len(changed - moved) > 40 or changed == {"layer_weights"}
