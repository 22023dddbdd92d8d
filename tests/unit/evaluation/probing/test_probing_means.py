"""Means of clips: what they are, kept once for all who ask, whole after a kill."""

import numpy as np
import pytest
import soundfile
import torch

from muq_plugins.evaluation.probing.clips import Clip, ProbeError
from muq_plugins.evaluation.probing.means import INDEX, VALUES, Cutting, clip_means


class Levels:
    """The mean square of the samples, in two layers; counts what it is asked."""

    sample_rate, frame_rate, fingerprint = 8000, 8000.0, "levels"

    def __init__(self):
        self.asked = 0

    def states(self, wavs, wav_lens):
        self.asked += len(wavs)
        power = wavs[..., None].abs()
        return [power, 2 * power], wav_lens


def clips(folder, *seconds):
    made = []
    for number, length in enumerate(seconds):
        path = folder / f"{number}.wav"
        wav = np.full(int(8000 * length), 0.1 * (number + 1))
        soundfile.write(path, wav, 8000)
        made.append(Clip(path.name, str(path), length))
    return made


def test_clips_follow_each_other_and_are_computed_once(tmp_path):
    levels, some = Levels(), clips(tmp_path, 2.6, 1.4, 0.3)
    means, whose = clip_means(levels, some, Cutting(1.0), tmp_path / "kept")
    assert whose.tolist() == [0, 0, 0, 1, 2]  # the rest of 0.4 s is dropped
    expected = [[0.1, 0.2]] * 3 + [[0.2, 0.4], [0.3, 0.6]]
    expected = np.array(expected)
    assert means[slice(None)][..., 0].numpy() == pytest.approx(expected, rel=1e-3)
    assert means.only([1])[torch.tensor([3])].item() == pytest.approx(0.4, rel=1e-3)
    mean, std = means.moments()
    assert mean[0, 0] == pytest.approx(expected[:, 0].mean(), rel=1e-3)
    assert std[0, 0] == pytest.approx(expected[:, 0].std(), rel=1e-3)
    assert levels.asked == 5
    # Another task asks for others in another order.
    other = [some[2], some[0]]
    again, whose = clip_means(levels, other, Cutting(1.0), tmp_path / "kept")
    assert levels.asked == 5 and whose.tolist() == [0, 1, 1, 1]
    assert again[slice(None)][:, 0, 0].numpy() == pytest.approx([0.3] + [0.1] * 3, 1e-3)
    assert again.key != means.key
    clip_means(levels, some, Cutting(1.0, most=1), tmp_path / "kept")
    assert levels.asked == 8


def test_silence_after_a_clip_is_heard_where_it_is_padded(tmp_path):
    some = clips(tmp_path, 0.5)
    padded, _ = clip_means(Levels(), some, Cutting(1.0, padded=True), tmp_path / "k")
    assert padded[slice(None)][0, 0, 0] == pytest.approx(0.05, rel=1e-2)


def test_what_a_kill_left_half_is_computed_again(tmp_path):
    levels, some = Levels(), clips(tmp_path, 1.0, 1.0, 1.0)
    clip_means(levels, some[:2], Cutting(1.0), tmp_path / "kept")
    (place,) = (tmp_path / "kept").iterdir()
    with open(place / VALUES, "ab") as file:
        file.write(b"\0")  # a row that was cut off
    with open(place / INDEX, "a") as file:
        file.write('{"recording": ["')  # a line that was cut off
    means, whose = clip_means(levels, some, Cutting(1.0), tmp_path / "kept")
    assert levels.asked == 3 and whose.tolist() == [0, 1, 2]
    values = means[slice(None)][:, 0, 0].numpy()
    assert values == pytest.approx([0.1, 0.2, 0.3], rel=1e-3)
    (place / VALUES).write_bytes((place / VALUES).read_bytes()[:-2])
    means, _ = clip_means(levels, some, Cutting(1.0), tmp_path / "kept")
    assert levels.asked == 4 and means[slice(None)][2, 0, 0] == pytest.approx(0.3, 1e-3)


def test_what_cannot_be_read_has_no_rows_and_what_is_too_large_is_refused(tmp_path):
    some = clips(tmp_path, 1.0, 1.0)
    (tmp_path / "0.wav").write_bytes(b"broken")
    _, whose = clip_means(Levels(), some, Cutting(1.0), tmp_path / "kept")
    assert whose.tolist() == [1]
    with pytest.raises(ProbeError, match="None of the 1 recordings could be read"):
        clip_means(Levels(), some[:1], Cutting(1.0), tmp_path / "none")

    class Loud(Levels):
        fingerprint = "loud"

        def states(self, wavs, wav_lens):
            return [1e6 * wavs[..., None]], wav_lens

    with pytest.raises(ProbeError, match="beyond float16"):
        clip_means(Loud(), some[1:], Cutting(1.0), tmp_path / "kept")
