"""Makes the goldens again: ``python -m tests.goldens.make [folders] [experiments]``.

Goldens hold what the code did on the day they were made, and tests compare. Making
them again is a decision: say in the commit which ones moved, and why.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from muq_plugins.inference.folders import PACKAGED
from muq_plugins.inference.index.update import update_index
from muq_plugins.inference.mulan_parts import save_mulan
from muq_plugins.inference.muq import save_muq
from muq_plugins.inference.text_models import make_text_model
from muq_plugins.inference.tokenizer import save_tokenizer
from muq_plugins.lobes import AudioTower, DecoupledContrastive, TextTower
from tests.goldens import experiments, folders, results, resuming
from tests.goldens.parts import DATA, ENCODERS, FIXED, TOKENIZERS, settle, write
from tests.unit.inference.tones import ToneModel, write_tone


def make_folders() -> None:
    """Folders as the code of today writes them, and what they hold and compute."""
    found = {}
    for name, make in ENCODERS.items():
        save_muq(DATA / "encoders" / name, settle(make()))
        (DATA / "encoders" / name / "encoder.ckpt").unlink()  # the same file again
        found[f"encoder {name}"] = folders.of_encoder(DATA / "encoders" / name)
    for name, make in TOKENIZERS.items():
        save_tokenizer(DATA / "tokenizers" / name, settle(make()), "seed: 1\n")
        found[f"tokenizer {name}"] = folders.of_tokenizer(
            name, DATA / "tokenizers" / name
        )
    for name in FIXED:
        found[f"fixed {name}"] = folders.of_fixed(name)
    with tempfile.TemporaryDirectory() as scratch:
        texts = make_text_model(
            Path(scratch) / "texts", folders.TEXTS * 20, 285, 8, 1, 2, 8, max_tokens=40
        )
        text = TextTower.from_folder(
            texts, pretrained=False, latent_width=8, num_layers=1, head_width=4
        )
        audio = AudioTower(ENCODERS["muq"](), latent_width=8)
        loss = DecoupledContrastive(temperature=14.0)
        save_mulan(DATA / "mulan", settle(audio), settle(text), 0.2, loss)
        found["mulan"] = folders.of_mulan(DATA / "mulan")

        shutil.rmtree(DATA / "labels", ignore_errors=True)
        (DATA / "labels").mkdir(parents=True)
        found["labels"] = folders.of_labels(DATA / "labels", Path(scratch) / "music")

        tones = Path(scratch) / "tones"
        for name, pitch in folders.PITCHES.items():
            write_tone(tones / f"{name}.wav", pitch)
        shutil.rmtree(DATA / "index", ignore_errors=True)
        update_index(DATA / "index", tones, ToneModel(), "tones")
        found["index"] = folders.of_index(DATA / "index")
    write("folders.json", found)


def make_packaged() -> None:
    """What the models that come with the package compute."""
    names = sorted(path.name for path in PACKAGED.iterdir())
    write("packaged.json", {name: folders.of_packaged(name) for name in names})


def main(parts: list[str]) -> None:
    """Makes what is asked for, or everything."""
    makers = {
        "folders": make_folders,
        "packaged": make_packaged,
        "experiments": experiments.make,
        "results": results.make,
        "resuming": resuming.make,
    }
    for name in parts or makers:
        makers[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
