"""What models and folders are and compute, as JSON can hold it."""

from pathlib import Path

import torch

from muq_plugins import MuQ, MuQMuLan
from muq_plugins.data.labels import StoredLabels
from muq_plugins.data.preparation import Manifests
from muq_plugins.inference.folders import PACKAGED
from muq_plugins.inference.index.search import MusicIndex
from muq_plugins.inference.tokenizer import any_tokenizer, load_tokenizer
from muq_plugins.lobes import Target
from muq_plugins.lobes.parts import encoder_fingerprint, fingerprint
from tests.goldens.parts import FIXED, TOKENIZERS, rounded, settle, wav, write_wav

TEXTS = ["slow solo cello", "a fast piano", "缓慢的大提琴独奏"]

#: The pitches of the indexed files, as the model of the tests knows them.
PITCHES = {"a": 110, "b": 220, "deep/c": 440}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """A whole clip and a shorter one."""
    wavs = torch.stack([wav(0.4, seed) for seed in (0, 1)])
    wavs[1, 7000:] = 0
    return wavs, torch.tensor([1.0, 7000 / wavs.shape[1]])


@torch.no_grad()
def of_encoder(folder: Path) -> dict:
    """An encoder's identity and what it computes of two clips."""
    model = MuQ.from_pretrained(folder)
    encoder = model.mods.encoder
    out = model(*batch())
    return {
        "class": type(encoder).__name__,
        "config": encoder.config,
        "fingerprint": encoder_fingerprint(encoder),
        "lens": rounded(out.lens),
        "shapes": [list(state.shape) for state in out.hidden_states],
        "states": [rounded(state[:, :4]) for state in out.hidden_states],
    }


@torch.no_grad()
def of_packaged(name: str) -> dict:
    """What a model of the package, and its tokenizer, make of two clips."""
    states = MuQ.from_pretrained(PACKAGED / name)(*batch()).hidden_states
    return {
        "states": [rounded(state[:, :4:3, ::16]) for state in states],
        "codes": codes(any_tokenizer(PACKAGED / name)),
    }


def of_target(target: Target) -> dict:
    """A target's identities: in records of codes, and in labels."""
    description = {
        "features": type(target.features).__name__,
        "features_config": target.features.config,
        "quantizer": type(target.quantizer).__name__,
        "quantizer_config": target.quantizer.config,
    }
    return {
        **description,
        "sizes": [target.num_codebooks, target.codebook_size],
        "rates": [target.sample_rate, target.frame_rate],
        "fingerprint": fingerprint(target, target.features.config),
        "in labels": fingerprint(target, description),
    }


@torch.no_grad()
def codes(target) -> list:
    """The codes of two clips."""
    return target(*batch()).tolist()


def of_tokenizer(name: str, folder: Path) -> dict:
    """A tokenizer that was saved, loaded by the front door."""
    if name.startswith("latent"):  # of a teacher, which its folder does not hold
        target = settle(TOKENIZERS[name]())
        for tensor in target.quantizer.parameters():
            tensor.data.zero_()
        load_tokenizer(target, folder)
    else:
        target = any_tokenizer(folder)
    return {**of_target(target), "codes": codes(target)}


def of_fixed(name: str) -> dict:
    """A part that has no folder, with its weights given."""
    part = settle(FIXED[name]())
    if isinstance(part, Target):
        return {**of_target(part), "codes": codes(part)}
    config = getattr(part, "config", {})
    found = {"config": config, "fingerprint": fingerprint(part, config)}
    return {**found, "codes": codes(part)} if name == "two_views" else found


@torch.no_grad()
def of_mulan(folder: Path) -> dict:
    """The two towers."""
    model = MuQMuLan.from_pretrained(folder)
    return {
        "fingerprint": model.fingerprint,
        "clip_seconds": model.clip_seconds,
        "audio": rounded(model.embed_audio(batch()[0])),
        "text": rounded(model.embed_text(TEXTS)),
    }


def of_labels(folder: Path, music: Path) -> dict:
    """Labels as training reads them; none may be computed again."""
    before = {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()
    }
    manifest = {}
    for number, seconds in enumerate((1.0, 0.7)):
        path = write_wav(music / f"{number}.wav", seconds, number)
        manifest[f"track{number}"] = {"wav": str(path), "duration": seconds}
    target = settle(TOKENIZERS["mel_rvq"]())
    stored = StoredLabels(folder, 0.4, 0.2, shard_minutes=1).target_for(
        target, Manifests(music, manifest, manifest, manifest)
    )
    found = {name: stored.codes_of(name, 0, 1000).tolist() for name in manifest}
    if before:
        changed = [
            name
            for name, content in before.items()
            if not name.endswith(".json") and (folder / name).read_bytes() != content
        ]
        assert not changed, f"{changed} were written again"
    return found


def of_index(folder: Path) -> dict:
    """The answers of an index, nearest first."""
    from tests.unit.inference.tones import ToneModel

    index = MusicIndex(folder)
    found = {}
    for text in ("220", "440 and 110"):
        query = ToneModel().embed_text([text])[0].numpy()
        matches = index.search(query, top=3)
        names = [Path(match.entry.path).name for match in matches]
        found[text] = [names, [float(f"{match.score:.5g}") for match in matches]]
    return found
