"""Real commands on a small folder of music that the tests make."""

import numpy as np
import pytest
import soundfile

from tests.integration.commands import HERE, recipe_here


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    """Fourteen files of chords, in different rates, channels and formats."""
    folder = tmp_path_factory.mktemp("music")
    formats = [
        ("wav", "PCM_16", 24000, 1),
        ("flac", "PCM_24", 44100, 2),
        ("ogg", "VORBIS", 48000, 2),
        ("wav", "FLOAT", 22050, 1),
        ("wav", "PCM_U8", 16000, 1),
        ("mp3", "MPEG_LAYER_III", 44100, 2),
        ("wav", "PCM_24", 32000, 8),
    ]
    for index in range(14):
        extension, subtype, rate, channels = formats[index % len(formats)]
        random = np.random.default_rng(index)
        time = np.arange(int(5.0 * rate)) / rate
        wav = 0.01 * random.normal(size=len(time))
        for start in np.arange(0, 5, 0.5):
            pitch = 110 * 2 ** (random.integers(0, 36) / 12)
            inside = (time >= start) & (time < start + 0.5)
            wav += 0.3 * inside * np.sin(2 * np.pi * pitch * time)
        path = folder / f"album {index % 3}" / f"{index}.{extension}"
        path.parent.mkdir(exist_ok=True)
        wav = np.repeat(wav[:, None], channels, axis=1)
        soundfile.write(path, wav, rate, subtype=subtype)
    return folder


@pytest.fixture(scope="session")
def data_options(music, tmp_path_factory):
    """Options that point a recipe to the music, with its manifests in one place."""
    corpus = tmp_path_factory.mktemp("results") / "corpus"
    return ["--data_folder", music, "--data.corpus_folder", corpus]


@pytest.fixture(scope="session")
def tokenizer_run(data_options, tmp_path_factory):
    """The folder of a tokenizer run."""
    folder = tmp_path_factory.mktemp("tokenizer") / "run"
    options = ["--output_folder", folder, *data_options]
    recipe_here("train_tokenizer.py", HERE / "tiny_tokenizer.yaml", *options)
    return folder


@pytest.fixture(scope="session")
def options(data_options, tokenizer_run):
    """Options of a pre-training run on the music, with the tokenizer given."""
    return [HERE / "tiny.yaml", *data_options, "--tokenizer_folder", tokenizer_run]


@pytest.fixture(scope="session")
def pretrain_run(options, tmp_path_factory):
    """The folder of a pre-training run."""
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    recipe_here("train.py", *options, "--output_folder", folder)
    return folder
