"""The Brain of the stage mulan: captions, batches, and a loss that stays at chance."""

import json
import logging
import math

import pytest
import speechbrain as sb
import torch
from torch import nn

from muq_plugins.brains import AtomicCheckpointer, MuLanBrain
from muq_plugins.brains.logbook import RunningStatistics
from muq_plugins.brains.stages import identities_of
from muq_plugins.data.captions import CaptionWriter
from muq_plugins.data.preparation import Manifests
from muq_plugins.lobes import StageOutput
from tests.unit.brains.conftest import HPARAMS

PAIRS = 4


class ToyPairs(nn.Module):
    """Remembers what it is given; its loss is a parameter."""

    def __init__(self, loss):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(float(loss)))
        self.seen = []

    def forward(self, wavs, wav_lens, texts, identities):
        self.seen.append((self.training, wavs.shape, wav_lens, texts, identities))
        pairs = torch.tensor(float(len(texts)))
        sums = {"loss": self.level.detach() * pairs, "chance": math.log(4) * pairs}
        weights = dict.fromkeys(sums, pairs)
        return StageOutput(self.level + 0 * wavs.sum(), sums, weights)


@pytest.fixture
def labelled(manifest):
    """The clips of the other Brains' tests, with labels."""
    names = ["flute", "oboe", "viola"]
    return {
        clip_id: {**entry, "instruments": [names[i % 3]], "tempo_bpm": 60.0 + 10 * i}
        for i, (clip_id, entry) in enumerate(manifest.items())
    }


@pytest.fixture
def train(labelled, tmp_path):
    """Trains a toy and returns its Brain."""

    def run(loss=0.5, folder="run", **changes):
        output = tmp_path / folder
        hparams = {
            **HPARAMS,
            "output_folder": str(output),
            "clips_per_update": PAIRS,
            "max_windows": 8,
            "chance_patience": 3,
            **changes,
        }
        brain = MuLanBrain(
            captions=CaptionWriter(labelled, seed=7),
            modules={"mulan": ToyPairs(loss)},
            opt_class=lambda parameters: torch.optim.SGD(parameters, 0.0),
            hparams=hparams,
            run_opts={"device": "cpu"},
            checkpointer=AtomicCheckpointer(output / "save"),
        )
        loaders = brain.make_loaders(Manifests(output, labelled, labelled, labelled))
        brain.fit(*loaders[:2])
        return brain

    return run


def test_an_update_is_one_batch_whatever_the_hparams_say(train):
    brain = train(batch_size=1)
    assert brain.grad_accumulation_factor == 1
    trained = [shape[0] for training, shape, *_ in brain.module.seen if training]
    assert trained == [PAIRS] * 6
    valid = [shape[0] for training, shape, *_ in brain.module.seen if not training]
    assert valid == [PAIRS, PAIRS] * 2


def test_training_hears_other_captions_each_time_and_validation_the_full_one(
    train, labelled
):
    brain = train(optimizer_step_limit=12)
    texts = [text for training, *_, texts, _ in brain.module.seen if training
             for text in texts]  # fmt: skip
    assert len(set(texts)) > 30
    valid = [texts for training, *_, texts, _ in brain.module.seen if not training]
    assert valid[:2] == valid[2:4] == valid[4:6]
    writer = CaptionWriter(labelled)
    full = {writer.full_caption(clip, key) for clip in labelled for key in range(9)}
    assert set(sum(valid, [])) <= full


def test_the_captions_are_those_of_the_clips(train, labelled):
    brain = train()
    batch = next(iter(brain.make_loaders(Manifests("", *[labelled] * 3))[0]))
    brain.compute_forward(batch, sb.Stage.TRAIN)
    *_, texts, identities = brain.module.seen[-1]
    clips = zip(batch.ids, batch.clip_keys.tolist(), strict=True)
    assert texts == [brain.captions.caption(*clip) for clip in clips]
    assert torch.equal(identities, identities_of(texts, batch.ids))


def test_a_resumed_run_hears_the_same(train):
    whole = train(folder="whole", optimizer_step_limit=8).module.seen
    first = train(folder="parts", optimizer_step_limit=5).module.seen
    second = train(folder="parts", optimizer_step_limit=8).module.seen

    def heard(seen):
        return [texts for training, *_, texts, _ in seen if training]

    assert heard(whole) == heard(first) + heard(second)
    assert len(heard(second)) == 3


def test_identities_tell_texts_and_clips_apart():
    found = identities_of(["slow", "fast", "slow", "slow"], ["a", "a", "b", "c"])
    assert found.dtype == torch.int64 and found.shape == (4, 2)
    same = (found[:, None] == found).any(-1)
    assert same.long().tolist() == [
        [1, 1, 1, 1],
        [1, 1, 0, 0],
        [1, 0, 1, 1],
        [1, 0, 1, 1],
    ]
    # A clip may be called as a text is.
    both = identities_of(["a", "b"], ["b", "a"])
    assert not (both[0] == both[1]).any()


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_loss_that_stays_at_chance_is_called_out_once(train, caplog):
    with caplog.at_level(logging.WARNING):
        train(loss=math.log(4) - 0.01)
    (message,) = [text for text in warnings_of(caplog) if "guessing" in text]
    assert message.startswith("Step 3: the contrastive loss is 1.38, that of guessing")
    assert "Nothing is learned" in message


@pytest.mark.parametrize(
    "changes", [{"loss": 1.2}, {"loss": 9.0, "chance_patience": 7}]
)
def test_a_loss_that_falls_or_is_young_is_not(train, caplog, changes):
    with caplog.at_level(logging.WARNING):
        train(**changes)
    assert not [text for text in warnings_of(caplog) if "guessing" in text]


def test_rows_have_the_numbers_of_the_stage(train, tmp_path):
    train(loss=1.0)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [row["kind"] for row in rows].count("valid") == 2
    assert all(row["stage"] == "mulan" and row["loss"] == 1.0 for row in rows)
    assert rows[-1]["chance"] == pytest.approx(math.log(4))


def test_a_single_pair_is_an_error(train):
    with pytest.raises(ValueError, match="clips_per_update is 1, but a text can only"):
        train(clips_per_update=1)


def test_statistics_need_no_codes():
    one = torch.ones(())
    statistics = RunningStatistics()
    statistics.reduce()  # a process that saw nothing
    assert statistics.means() == {}
    statistics.add(StageOutput(one, {"loss": 6 * one}, {"loss": 2 * one}))
    statistics.reduce()
    assert statistics.means()["loss"] == 3.0 and not statistics.totals
