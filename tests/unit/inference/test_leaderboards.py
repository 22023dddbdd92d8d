"""Models for public leaderboards: lengths, whole recordings, and tiny tasks."""

import importlib.util

import pytest
import torch

from muq_plugins.errors import NotInstalled, UserError
from muq_plugins.inference.leaderboards import (
    ForXares,
    MtebModel,
    RecordingEncoder,
    load_recording_model,
    mteb_model,
)
from muq_plugins.inference.mulan import MuQMuLan
from muq_plugins.inference.muq import save_muq
from tests.unit.inference.tiny_mulan import tiny_encoder, tiny_mulan


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_muq(folder / "muq", tiny_encoder())
    return {"muq": folder / "muq", "mulan": tiny_mulan(folder / "mulan")}


class Rows(list):
    """What a data loader of mteb gives out, in batches of two."""

    def __iter__(self):
        for start in range(0, len(self), 2):
            yield self.collate_fn(list(list.__iter__(self))[start : start + 2])


def encode(model, *rows):
    where = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    return model.encode(Rows(rows), **where)


def audio(seconds, rate=24000, channels=None):
    shape = int(seconds * rate), *([channels] if channels else [])
    return {"audio": {"array": 0.1 * torch.randn(shape).numpy(), "sampling_rate": rate}}


def test_a_recording_is_heard_whole_and_alone(folders):
    model = load_recording_model(folders["muq"])
    assert isinstance(model, RecordingEncoder)
    long, short = audio(31.0), audio(1.5)
    both = encode(MtebModel(model, None), long, short)
    wav = torch.as_tensor(long["audio"]["array"])
    pieces = [model.encoder(p[None])[0][0] for p in wav.split(24000 * 30)]
    torch.testing.assert_close(both[0], torch.cat(pieces).mean(0))
    alone = encode(MtebModel(model, None), short)
    torch.testing.assert_close(both[1], alone[0])
    # Other rates and channels.
    assert encode(MtebModel(model, None), audio(0.01, 16000, 2)).shape == (1, 32)
    first = RecordingEncoder(model.encoder, 0)
    assert first.fingerprint != model.fingerprint
    with pytest.raises(UserError, match="no layer 3: there are 3 states"):
        RecordingEncoder(model.encoder, 3)
    with pytest.raises(UserError, match="knows no texts"):
        encode(MtebModel(model, None), {"text": "drums"})


def test_music_and_text_stay_what_the_model_says(folders):
    mulan = load_recording_model(folders["mulan"])
    assert isinstance(mulan, MuQMuLan)
    model, row = MtebModel(mulan, None), audio(2.5)
    wav = torch.as_tensor(row["audio"]["array"])[None]
    music = encode(model, row)
    torch.testing.assert_close(music, mulan.embed_audio(wav))
    texts = encode(model, {"text": "a quiet piano"}, {"text": "drums"})
    near = mulan.similarity(music, texts)
    torch.testing.assert_close(model.similarity(music, texts), near)
    pairs = model.similarity_pairwise(music.repeat(2, 1), texts)
    torch.testing.assert_close(pairs, near[0])
    with pytest.raises(UserError, match="is a MuQ-MuLan, which has one latent"):
        load_recording_model(folders["mulan"], layer=1)


def test_what_fills_a_batch_is_not_heard_by_x_ares(folders):
    class TinyEncoder(ForXares):
        def __init__(self):
            super().__init__(folders["muq"])

    encoder = TinyEncoder()
    assert (encoder.sampling_rate, encoder.output_dim) == (24000, 32)
    assert encoder.hop_size_in_ms == 40.0
    wav = 0.1 * torch.randn(1, 24000)
    alone = encoder(wav)
    filled = encoder(torch.nn.functional.pad(wav, (0, 24000)))
    assert alone.shape == (1, 25, 32) and filled.shape == (1, 50, 32)
    torch.testing.assert_close(filled[:, :25], alone)
    torch.testing.assert_close(filled.mean(1), alone.mean(1))
    assert encoder(torch.zeros(2, 50000)).shape == (2, 52, 32)
    if importlib.util.find_spec("xares"):
        from xares.audio_encoder_checker import check_audio_encoder

        assert check_audio_encoder(encoder)


def test_a_tiny_task_of_mteb(folders, tmp_path):
    if importlib.util.find_spec("mteb") is None:
        with pytest.raises(NotInstalled, match=r"muq-plugins\[mteb\]"):
            mteb_model(folders["muq"])
        pytest.skip("mteb is not installed")
    import mteb
    from datasets import Dataset, DatasetDict
    from mteb.mocks.mock_tasks.classification import MockAudioClassification
    from mteb.mocks.mock_tasks.retrieval import MockAny2AnyRetrievalT2ATask

    rows = [audio(1.0, 16000)["audio"], audio(2.0, 8000)["audio"]]

    # In memory: files would want a decoder.
    class Retrieval(MockAny2AnyRetrievalT2ATask):
        def load_data(self, **kwargs):
            texts = {"id": ["q0", "q1"], "text": ["drums", "a piano"]}
            music = {"id": ["d1", "d2"], "audio": rows}
            self.queries, self.corpus = (
                DatasetDict({"test": Dataset.from_dict(some)})
                for some in (texts, music)
            )
            self.relevant_docs = {"test": {"q0": {"d1": 1}, "q1": {"d2": 1}}}
            self.data_loaded = True

    class Classification(MockAudioClassification):
        def load_data(self, **kwargs):
            some = Dataset.from_dict({"audio": rows * 5, "label": [1, 2] * 5})
            self.dataset = DatasetDict({"train": some, "test": some})
            self.data_loaded = True

    model = mteb_model(folders["muq"], "us/tiny")
    cache = mteb.ResultCache(tmp_path)
    found = mteb.evaluate(model, Classification(), cache=cache)
    assert found.task_results[0].get_score() == 1.0  # the same recordings
    assert found.model_name == "us/tiny"
    found = mteb.evaluate(mteb_model(folders["mulan"]), Retrieval(), cache=cache)
    assert 0 <= found.task_results[0].get_score() <= 1
