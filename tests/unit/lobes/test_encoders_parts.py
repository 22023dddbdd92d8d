"""What is particular to each encoder: what it wraps, its sizes, its errors."""

import pytest
import torch
import torch.nn.functional as F
from speechbrain.integrations.huggingface.hubert import HuBERT
from speechbrain.integrations.huggingface.wavlm import WavLM
from speechbrain.lobes.models.transformer.Branchformer import BranchformerEncoder
from torch import nn

from muq_plugins.lobes import (
    BlockMasking,
    LogMel,
    MaskedPrediction,
    MultiCodebookHead,
    PretrainedSpeechEncoder,
    RandomProjection,
    ResampledEncoder,
    SpanMasking,
    SpeechBrainBranchformer,
    SpeechBrainConformer,
    StackedFrames,
    Target,
    WaveformTransformer,
)
from muq_plugins.lobes.codes import entropy
from muq_plugins.lobes.encoders.base import EncoderOutput, centre_frames
from muq_plugins.lobes.encoders.speechbrain import SummaryMixing
from muq_plugins.lobes.lengths import resample_clips
from muq_plugins.lobes.parts import build, describe
from tests.unit.tiny_encoders import (
    TINY,
    save_speech_model,
    speech,
    tiny_encoder,
)


@pytest.fixture(scope="module")
def speech_folder(tmp_path_factory):
    return save_speech_model(tmp_path_factory.mktemp("hubert"), "hubert")


# SpeechBrain's conformer


@torch.no_grad()
def test_without_padding_it_is_the_conformer_of_speechbrain():
    encoder = tiny_encoder("SpeechBrainConformer").eval()
    wavs = torch.randn(2, 24000)
    hidden, _ = encoder.conv(encoder.features(wavs)[0])
    last, _, states = encoder.conformer(hidden, pos_embs=encoder.positions(hidden))
    out = encoder(wavs)
    assert torch.equal(out.last_hidden_state, last)
    for expected, found in zip(states[:-1], out.hidden_states[:-1], strict=True):
        assert torch.equal(found, expected)


@torch.no_grad()
def test_speechbrain_alone_lets_the_convolutions_hear_the_padding():
    """Else the masking inside the adapter would be in vain."""
    encoder = tiny_encoder("SpeechBrainConformer").eval()
    hidden = torch.randn(1, 25, 32)
    padded = F.pad(hidden, (0, 0, 0, 25))
    mask = torch.arange(50)[None] >= 25
    alone, *_ = encoder.conformer(hidden, pos_embs=encoder.positions(hidden))
    heard, *_ = encoder.conformer(
        padded, src_key_padding_mask=mask, pos_embs=encoder.positions(padded)
    )
    assert (heard[:, :25] - alone).abs().max() > 1e-3


@torch.no_grad()
def branchformer():
    """With convolutions as after training: at first they are next to nothing."""
    encoder = tiny_encoder("SpeechBrainBranchformer").eval()
    torch.manual_seed(0)
    for layer in encoder.branchformer.layers:
        layer.convolution_branch.csgu.conv.conv.weight.normal_(0, 0.3)
    return encoder


@torch.no_grad()
def test_the_branchformer_is_that_of_speechbrain_but_for_the_ends():
    encoder, wavs = branchformer(), torch.randn(2, 72000)
    hidden, _ = encoder.conv(encoder.features(wavs)[0])
    theirs = BranchformerEncoder(1, 32, 4, csgu_linear_units=96).eval()
    theirs.layers[0] = encoder.branchformer.layers[0]
    positions = encoder.positions(hidden)
    found = encoder(wavs).hidden_states[1]
    assert torch.equal(theirs.layers[0](hidden, pos_embs=positions)[0], found)
    theirs.layers[0].convolution_branch.csgu.conv.padding_mode = "reflect"
    reflected, _ = theirs.layers[0](hidden, pos_embs=positions)
    differs = (reflected - found).abs().amax((0, 2)) > 1e-6
    kernel = 15  # frames on either side
    assert differs[:kernel].all() and differs[-kernel:].all()
    assert not differs[kernel:-kernel].any()


@torch.no_grad()
def test_convolutions_of_a_branchformer_hear_no_padding():
    encoder, batch = branchformer(), torch.randn(2, 48000)
    lens = torch.tensor([0.5, 1.0])
    alone = encoder(batch[:1, :24000]).last_hidden_state
    found = encoder(batch, lens).last_hidden_state
    torch.testing.assert_close(found[:1, :25], alone, rtol=0, atol=1e-4)
    # Without the mask inside the adapter they would.
    feats, _ = encoder.features(batch, lens)
    hidden, _ = encoder.conv(feats, torch.tensor([100, 200]))
    heard, *_ = encoder.branchformer(
        hidden,
        src_key_padding_mask=torch.arange(50) >= torch.tensor([[25], [50]]),
        pos_embs=encoder.positions(hidden),
    )
    assert (heard[:1, :25] - alone).abs().max() > 1e-2


@torch.no_grad()
def test_summary_mixing_merges_a_frame_with_the_mean_over_all():
    mixing = SummaryMixing(8, 0.5).eval()
    hidden = torch.randn(2, 10, 8)
    beyond = torch.arange(10) >= torch.tensor([[10], [7]])
    mixed, nothing = mixing(hidden, hidden, hidden, key_padding_mask=beyond)
    assert nothing is None
    for clip, frames in ((0, 10), (1, 7)):
        own = hidden[clip, :frames]
        mean = F.gelu(mixing.summary[0](own)).mean(0).expand(frames, 8)
        both = torch.cat([F.gelu(mixing.local[0](own)), mean], dim=-1)
        expected = F.gelu(mixing.merge[0](both))
        torch.testing.assert_close(mixed[clip, :frames], expected)
    everything, _ = mixing(hidden[:1], None, None)
    torch.testing.assert_close(everything, mixed[:1])


def test_an_unknown_mixing_and_an_odd_width_are_refused():
    with pytest.raises(ValueError, match="mixing is 'mean': give attention or summary"):
        SpeechBrainConformer(32, 1, 4, 64, conv_channels=4, mixing="mean")
    with pytest.raises(ValueError, match="ffn_width must be even, got 97"):
        SpeechBrainBranchformer(32, 1, 4, 97, conv_channels=4)


def test_nothing_is_left_hooked_after_an_error():
    encoder = tiny_encoder("SpeechBrainConformer").eval()
    encoder.conformer.norm.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encoder(torch.randn(2, 24000), torch.tensor([1.0, 0.5]))
    layers = encoder.conformer.layers
    gates = [layer.convolution_module.bottleneck for layer in layers]
    assert not any(gate._forward_hooks for gate in gates)


def test_a_mask_of_the_spectrogram_fits_speechbrains_conformer():
    masking = SpanMasking()
    masking.check(tiny_encoder("SpeechBrainConformer"))
    with pytest.raises(ValueError, match="WaveformTransformer offers none"):
        masking.check(tiny_encoder("WaveformTransformer"))


# The transformer over waveforms


def test_other_strides_are_another_rate():
    encoder = WaveformTransformer(
        32, 1, 4, 64, 8, [8, 4, 4, 5], [8, 4, 3, 5], position_groups=4
    )
    assert encoder.frame_rate == 50.0
    assert encoder(torch.randn(1, 24000)).last_hidden_state.shape == (1, 50, 32)


def test_frames_are_centred_on_their_samples():
    sums = nn.Conv1d(1, 1, 6, stride=2, bias=False)
    nn.init.ones_(sums.weight)
    wavs = centre_frames(torch.eye(8), [6], [2])
    heard = sums(wavs[:, None])[:, 0]  # (sample that is 1, frame)
    assert heard.shape == (8, 4)
    centres = (heard * torch.arange(8)[:, None]).sum(0) / heard.sum(0)
    assert centres[1:3].tolist() == [2.5, 4.5]


# Pre-trained speech encoders


@torch.no_grad()
@pytest.mark.parametrize(
    ("wrapper", "kind", "norm"),
    [(HuBERT, "hubert", "group"), (WavLM, "wavlm", "layer")],
)
def test_it_computes_what_speechbrains_wrapper_does(wrapper, kind, norm, tmp_path):
    settings = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    # Theirs also normalises over the silence that centres the frames.
    save_speech_model(tmp_path, kind, normalise=False, **settings)
    ours = PretrainedSpeechEncoder(tmp_path).eval()
    theirs = wrapper(str(tmp_path), str(tmp_path), output_all_hiddens=True).eval()
    wavs = torch.randn(2, 24000)
    states = ours(wavs).hidden_states
    expected = theirs(F.pad(resample_clips(wavs, None, 24000, 16000)[0], (40, 40)))
    for found, other in zip(states[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(found, other, rtol=0, atol=1e-6)
    last = expected[-1]
    if norm == "layer":  # a model that normalises first lists what comes before the end
        last = theirs.model(
            F.pad(resample_clips(wavs, None, 24000, 16000)[0], (40, 40))
        )
        last = last.last_hidden_state
    torch.testing.assert_close(states[-1], last, rtol=0, atol=1e-6)


def test_it_says_whether_waveforms_are_normalised(speech_folder, tmp_path):
    save_speech_model(tmp_path, normalise=False)
    wavs = torch.randn(1, 24000)
    for folder, normalised in ((speech_folder, True), (tmp_path, False)):
        encoder = PretrainedSpeechEncoder(folder).eval()
        assert encoder.config["model"]["normalise"] is normalised
        with torch.no_grad():
            quiet, loud = (encoder(g * wavs).hidden_states[-1] for g in (0.001, 1.0))
        # Only the epsilon of the group normalisation knows quiet from loud then.
        difference = (quiet - loud).abs().max()
        assert difference < 1e-2 if normalised else difference > 0.1


def test_the_description_of_a_speech_encoder_names_no_folder(speech_folder):
    encoder = PretrainedSpeechEncoder(speech_folder)
    description = describe(encoder)
    assert str(speech_folder) not in str(description)
    again = build(description)
    again.load_state_dict(encoder.state_dict())
    assert again.config == encoder.config


def test_loading_leaves_the_random_state_alone(speech_folder):
    state = torch.get_rng_state()
    PretrainedSpeechEncoder(speech_folder)
    assert torch.equal(state, torch.get_rng_state())


def test_a_frozen_feature_extractor_is_not_trained(speech_folder):
    encoder = PretrainedSpeechEncoder(speech_folder, freeze_feature_extractor=True)
    encoder.train()
    # As encoders are given, and learn again
    ResampledEncoder(encoder, 25.0).requires_grad_(False).requires_grad_()
    assert not encoder.model.masked_spec_embed.requires_grad
    encoder(torch.randn(1, 24000)).last_hidden_state.square().sum().backward()
    model = encoder.model
    assert all(p.grad is None for p in model.feature_extractor.parameters())
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert build(describe(encoder)).config == encoder.config


def test_no_layer_is_dropped_and_nothing_is_masked_in_training():
    encoder = speech(layerdrop=0.9, mask_time_prob=0.9, hidden_dropout=0.0)
    for name in ("attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(encoder.model.config, name, 0.0)
    for part in encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if hasattr(part, "dropout") and isinstance(part.dropout, float):
            part.dropout = 0.0
    wavs = torch.randn(2, 24000)
    trained = encoder.train()(wavs).hidden_states
    still = encoder.eval()(wavs).hidden_states
    assert len(trained) == 3
    for first, second in zip(trained, still, strict=True):
        torch.testing.assert_close(first, second)


def test_other_models_are_refused(tmp_path):
    with pytest.raises(OSError, match="No speech encoder can be loaded from .*nowhere"):
        PretrainedSpeechEncoder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="either a source"):
        PretrainedSpeechEncoder()
    with pytest.raises(ValueError, match="either a source"):
        PretrainedSpeechEncoder("x", model={})
    with pytest.raises(ValueError, match="one of hubert, wav2vec2, wavlm, got 'bert'"):
        speech("bert")
    with pytest.raises(
        ValueError, match="attn_implementation, auto_map are no setting"
    ):
        speech(auto_map={"AutoModel": "a/b--code.Model"}, attn_implementation="a/b")
    with pytest.raises(ValueError, match="wav2vec2 model with an adapter"):
        speech("wav2vec2", add_adapter=True)


def test_a_folder_with_another_model_is_refused(tmp_path):
    save_speech_model(tmp_path, "data2vec-audio", conv_pos_kernel_size=3)
    with pytest.raises(ValueError, match="is a data2vec-audio model"):
        PretrainedSpeechEncoder(tmp_path)


# Resampled hidden states


class Given(nn.Module):
    """Hidden states that are given, at 50 Hz."""

    sample_rate, frame_rate, width, num_layers, min_samples = 24000, 50.0, 2, 1, 480
    features, config = None, {}

    def __init__(self, state, lens):
        super().__init__()
        self.out = EncoderOutput(state, (state, state), lens)

    def forward(self, wavs, wav_lens=None):
        return self.out


def ramp(frames):
    """Hidden states that tell the time in frames."""
    return torch.arange(float(frames))[None, :, None].expand(2, -1, 2).clone()


def test_whole_groups_are_averaged():
    state, lens = ramp(8), torch.tensor([1.0, 5 / 8])
    state[1, 5:] = 0
    out = ResampledEncoder(Given(state, lens), 25.0)(None)
    assert out.last_hidden_state[0, :, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert out.last_hidden_state[1, :, 0].tolist() == [0.5, 2.5, 0.0, 0.0]
    assert out.lens.tolist() == [1.0, 0.5]
    assert torch.equal(out.hidden_states[0], out.last_hidden_state)


@pytest.mark.parametrize("rate", [75.0, 100.0, 40.0])
def test_other_rates_are_interpolated_as_torch_does(rate):
    frames = 20
    state = torch.randn(2, frames, 2)
    encoder = ResampledEncoder(Given(state, torch.ones(2)), rate)
    out = encoder(None)
    expected = F.interpolate(
        state.transpose(1, 2), scale_factor=rate / 50.0, mode="linear"
    ).transpose(1, 2)
    torch.testing.assert_close(out.last_hidden_state, expected)
    assert encoder.frame_rate == rate
    assert encoder.config["frame_rate"] == rate


def test_the_end_of_a_clip_is_not_mixed_with_what_follows():
    state = ramp(8)
    state[1, 4:] = 1000.0
    out = ResampledEncoder(Given(state, torch.tensor([1.0, 0.5])), 100.0)(None)
    assert out.last_hidden_state[1].max() == 3.0
    assert out.lens.tolist() == [1.0, 0.5]


def test_rates_that_binary_numbers_only_resemble():
    given = Given(ramp(75), torch.ones(2))
    given.frame_rate = 24000 / 320
    assert (
        ResampledEncoder(given, 24000 / 240 / 4)(None).last_hidden_state.shape[1] == 25
    )


# Errors, and wiring


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        SpeechBrainConformer(width=30, num_heads=4)
    with pytest.raises(ValueError, match="must be odd"):
        SpeechBrainConformer(32, 1, 4, 64, 4, conv_kernel_size=30)
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        WaveformTransformer(width=30, num_heads=4)
    with pytest.raises(ValueError, match="one number per convolution"):
        WaveformTransformer(32, 1, 4, 64, kernel_sizes=[10], strides=[5, 2])
    with pytest.raises(ValueError, match="leaves samples unheard"):
        WaveformTransformer(32, 1, 4, 64, kernel_sizes=[4], strides=[5])
    with pytest.raises(ValueError, match="position_kernel_size must be odd"):
        WaveformTransformer(32, 1, 4, 64, position_kernel_size=64)
    with pytest.raises(ValueError, match="position_groups must divide"):
        WaveformTransformer(32, 1, 4, 64, position_groups=5)
    with pytest.raises(ValueError, match="frame_rate must be a rate in Hz, got 0"):
        ResampledEncoder(tiny_encoder("MuQEncoder"), 0)


def pretraining(encoder):
    """The stage around an encoder, with the target and the masking at 25 Hz."""
    return MaskedPrediction(
        BlockMasking(),
        Target(StackedFrames(LogMel()), RandomProjection(512, 2, 16)),
        encoder,
        MultiCodebookHead(32, 2, 16),
    )


def test_a_frame_rate_that_does_not_fit_is_an_error_until_it_is_resampled():
    with pytest.raises(ValueError) as error:
        pretraining(speech())
    assert "Target has 25 Hz, PretrainedSpeechEncoder has 50 Hz" in str(error.value)
    assert "resample explicitly" in str(error.value)
    stage = pretraining(ResampledEncoder(speech(), 25.0))
    out = stage(torch.randn(2, 24000), torch.tensor([1.0, 0.5]), torch.tensor([1, 2]))
    assert torch.isfinite(out.loss)


def melodies():
    """Four clips (4, 24000) of five tones each."""
    random = torch.Generator().manual_seed(0)
    pitches = 200 * 2 ** (torch.randint(48, (4, 5), generator=random) / 12)
    time = torch.arange(24000) / 24000
    return 0.3 * torch.sin(2 * torch.pi * pitches.repeat_interleave(4800, 1) * time)


@pytest.mark.parametrize("name", [name for name in TINY if name != "interpolated"])
def test_every_encoder_learns_a_target_better_than_counting_does(name):
    encoder = tiny_encoder(name)
    if encoder.frame_rate != 25.0:
        encoder = ResampledEncoder(encoder, 25.0)
    torch.manual_seed(0)
    stage = pretraining(encoder).train()
    optimizer = torch.optim.AdamW(stage.parameters(), lr=0.003)
    wavs, keys = melodies(), torch.arange(4)
    for _ in range(40):
        out = stage(wavs, None, keys)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    assert out.loss.item() < 0.8 * float(entropy(out.totals["code_counts"]).mean())
