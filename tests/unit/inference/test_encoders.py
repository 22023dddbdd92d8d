"""An encoder by its name: what kind it is follows from its folder."""

import json

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    ClapFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from muq_plugins.errors import UserError
from muq_plugins.evaluation.probing.features import (
    ChromaFrames,
    FeatureSettings,
    HiddenStates,
    untrained_like,
)
from muq_plugins.inference.encoders import load_encoder
from muq_plugins.inference.folders import NoModel
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.muq import save_muq
from muq_plugins.lobes import MuQEncoder
from tests.unit.inference.tiny_mulan import tiny_mulan
from tests.unit.tiny_encoders import SPEECH, save_speech_model

TINY = {key: SPEECH[key] for key in list(SPEECH)[:4]}
CLAP = {
    "audio_config": {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 1, 1],
    },
    "text_config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "vocab_size": 10,
    },
    "projection_dim": 16,
}


def save(folder, kind, extractor, settings):
    """A model with random weights, as transformers saves one."""
    model = AutoModel.from_config(AutoConfig.for_model(kind, **settings))
    model.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model


def change(folder, **settings):
    """Other settings in a config, as another model has them."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_ours_speech_models_and_others(tmp_path):
    ours = MuQEncoder(16, num_layers=1, num_heads=2, ffn_width=16, conv_channels=2)
    save_muq(tmp_path / "ours", ours)
    assert load_encoder(tmp_path / "ours").config == ours.config

    hubert = save_speech_model(tmp_path / "hubert")
    speech = load_encoder(str(hubert))
    assert (speech.sample_rate, speech.training) == (16000, False)
    assert not speech(torch.randn(1, 16000)).last_hidden_state.requires_grad
    (copy,) = HiddenStates(speech, ["cpu"]).others
    assert copy.fingerprint == HiddenStates(speech).fingerprint

    change(hubert, model_type="dasheng", auto_map={"AutoModel": "code.Model"})
    (hubert / "code.py").write_text("raise SystemExit('code of the folder was run')")
    with pytest.raises(UserError, match="hubert is a 'dasheng' model, .* is not run"):
        load_encoder(hubert)
    with pytest.raises(UserError, match="No trained MuQ model in"):
        load_encoder(tmp_path)


def test_a_model_of_transformers_hears_each_clip_at_its_length(tmp_path):
    settings = TINY, SeamlessM4TFeatureExtractor()
    model = save(tmp_path / "bert", "wav2vec2-bert", settings[1], settings[0])
    encoder = load_encoder(tmp_path / "bert")
    said = encoder.sample_rate, encoder.frame_rate, encoder.num_layers, encoder.width
    assert said == (16000, 50.0, 2, 32)
    wavs = 0.1 * torch.randn(2, 40000)
    wavs[1, 20000:] = 0
    both = encoder(wavs, torch.tensor([1.0, 0.5]))
    alone = encoder(wavs[1:, :20000])
    frames = alone.last_hidden_state.shape[1]
    torch.testing.assert_close(both.hidden_states[1][1:, :frames], alone[1][1])
    assert both.last_hidden_state[1, frames:].eq(0).all()
    inputs = settings[1](wavs[1, :20000].numpy(), sampling_rate=16000)
    inputs = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        theirs = model(**inputs).last_hidden_state
    torch.testing.assert_close(alone.last_hidden_state, theirs)
    assert encoder(wavs[:1, :100]).last_hidden_state.shape == (1, 1, 32)

    # Its settings are enough for what has learned nothing, every time another one.
    (tmp_path / "bert" / "model.safetensors").unlink()
    with pytest.raises(NoModel, match="No model can be loaded from .*bert"):
        load_encoder(tmp_path / "bert")
    fresh = load_encoder(tmp_path / "bert", trained=False)
    made = untrained_like(fresh, [1, 2], [], FeatureSettings(None))
    again = untrained_like(fresh, [1], [], FeatureSettings(None))
    prints = [HiddenStates(one).fingerprint for one in (*made, *again)]
    assert prints[0] == prints[2] != prints[1]
    (copy,) = HiddenStates(fresh, ["cpu"]).others
    assert copy.fingerprint == HiddenStates(fresh).fingerprint


def test_models_that_are_not_read_frame_by_frame_are_refused(tmp_path):
    whisper = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    whisper |= {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    save(tmp_path / "asr", "whisper", WhisperFeatureExtractor(), whisper)
    with pytest.raises(UserError, match="'whisper' model does not turn audio alone"):
        load_encoder(tmp_path / "asr")
    (tmp_path / "asr" / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="preprocessor_config.json cannot be read"):
        load_encoder(tmp_path / "asr")


def test_weights_that_a_folder_lacks_are_not_drawn(tmp_path):
    extractor = Wav2Vec2FeatureExtractor()
    save(tmp_path / "x", "unispeech", extractor, SPEECH)
    change(tmp_path / "x", num_hidden_layers=3)
    with pytest.raises(UserError, match="lacks 16 of the weights .* encoder.layers.2"):
        load_encoder(tmp_path / "x")


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
def test_the_audio_tower_of_clap(tmp_path, truncation):
    fused = truncation == "fusion"
    audio = {**CLAP["audio_config"], "enable_fusion": fused}
    extractor = ClapFeatureExtractor(truncation=truncation)
    settings = {**CLAP, "audio_config": audio}
    model = save(tmp_path / "clap", "clap", extractor, settings)
    encoder = load_encoder(tmp_path / "clap")
    assert (encoder.sample_rate, encoder.frame_rate, encoder.width) == (48000, 3.2, 64)
    wavs = 0.1 * torch.randn(1, 720_000)  # 15 s
    (states,) = encoder(wavs).hidden_states
    assert states.shape == (1, 48, 64)
    inputs = extractor([wavs[0, :480_000].numpy()], sampling_rate=48000)
    mel = torch.tensor(inputs["input_features"][0][None])
    longer = torch.zeros(1, 1, dtype=torch.bool)
    with torch.no_grad():
        pooled = model.audio_model(mel, is_longer=longer).pooler_output
    torch.testing.assert_close(states[:, :32].mean(1), pooled)
    torch.testing.assert_close(encoder(wavs)[0], states)  # nothing is drawn
    (copy,) = HiddenStates(encoder, ["cpu"]).others
    assert copy.fingerprint == HiddenStates(encoder).fingerprint


def test_mert_is_a_hubert_and_no_code_of_its_folder_is_run(tmp_path):
    """As its own code: see `load_mert`. What is no HuBERT is refused."""
    folder = tmp_path / "mert"
    hubert = save_speech_model(folder).parent / "mert"
    expected = load_encoder(hubert)
    Wav2Vec2FeatureExtractor(sampling_rate=24000).save_pretrained(folder)
    own = {"AutoModel": "modeling_MERT.MERTModel"}
    flags = {"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": 32.0}
    change(folder, model_type="mert_model", auto_map=own, sample_rate=24000, **flags)
    (folder / "model.safetensors").unlink()
    state = expected.model.state_dict()
    old = {"original0": "weight_g", "original1": "weight_v"}
    for new, name in old.items():  # as it was saved
        key = f"encoder.pos_conv_embed.conv.parametrizations.weight.{new}"
        state[f"encoder.pos_conv_embed.conv.{name}"] = state.pop(key)
    torch.save(state, folder / "pytorch_model.bin")
    mert = load_encoder(folder)
    assert (mert.sample_rate, mert.frame_rate, mert.num_layers) == (24000, 75.0, 2)
    wavs = 0.1 * torch.randn(1, 24000)
    for ours, theirs in zip(mert(wavs)[1], expected(wavs)[1], strict=True):
        torch.testing.assert_close(ours, theirs)
    change(folder, feature_extractor_cqt=True)
    with pytest.raises(UserError, match="a MERT with feature_extractor_cqt"):
        load_encoder(folder)


def test_the_vectors_of_a_model_of_music_and_text(tmp_path):
    mulan = MuQMuLan.from_pretrained(folder := tiny_mulan(tmp_path))
    encoder = load_encoder(folder)
    assert (encoder.frame_rate, encoder.width, encoder.num_layers) == (1.0, 16, 0)
    wavs = 0.1 * torch.randn(2, 60000)  # 2.5 s, and 0.3 s
    out = encoder(wavs, torch.tensor([1.0, 0.12]))
    assert out.last_hidden_state.shape == (2, 3, 16)
    torch.testing.assert_close(out[0][:1].mean(1), mulan.embed_audio(wavs[:1]))
    torch.testing.assert_close(out[0][1:, 0], mulan.embed_audio(wavs[1:, :7200]))
    (copy,) = HiddenStates(encoder, ["cpu"]).others
    assert copy.fingerprint == HiddenStates(encoder).fingerprint
    assert torch.equal(copy.encoder(wavs)[0], encoder(wavs)[0])
    with pytest.raises(UserError, match="takes an encoder, not a MuQ-MuLan"):
        untrained_like(encoder, [1], [], FeatureSettings(None))


def test_chroma_hears_the_pitch_class_whatever_the_octave():
    time = torch.arange(48000) / 24000
    wavs = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (220, 880, 261.63)])
    wavs[2, 24000:] = 0
    chroma = ChromaFrames()
    (states,), lens = chroma.states(wavs, torch.tensor([1.0, 1.0, 0.5]))
    assert states.shape == (3, 50, 12) and chroma.frame_rate == 25
    assert states[:, 10].argmax(-1).tolist() == [9, 9, 0]
    assert states[:, 10].amax(-1).eq(1).all() and states[2, 40].eq(0).all()
    torch.testing.assert_close(lens, torch.tensor([1.0, 1.0, 0.5]))
