"""Where the parts of a MuQ-MuLan come from: folders, or the Hugging Face hub.

An official checkpoint holds all weights, but neither the settings of the MuQ in it nor
the config and the tokenizer of its text model: those are named, and found here.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from muq_plugins.inference.folders import CONFIG
from muq_plugins.inference.sources import HUB_ID, find_model

# The text model in a folder of ours, and both parts beside an official checkpoint. The
# official class tells kinds of models by these words in their names.
TEXT_MODEL = "text_model"
MUQ_PART = "muq"
TEXT_PART = "xlm-roberta"
# All that a tokenizer can consist of; weights are not among it, and no code.
TEXT_FILES = (
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)


def find_mulan(
    source: str | Path, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Finds the folder of a model, and downloads it if it is on the hub."""
    is_hub_id = not Path(source).exists() and HUB_ID.fullmatch(str(source))
    try:
        folder = find_model(source, revision, cache_dir)
    except FileNotFoundError as error:
        if not is_hub_id:
            raise
        raise FileNotFoundError(
            f"{error} Without a network, a MuQ-MuLan of the official package also "
            f"needs {MUQ_PART}/{CONFIG} of its MuQ in that folder, and {TEXT_PART} "
            f"with {CONFIG} and the files of the tokenizer of its text model."
        ) from error
    if is_hub_id:
        parts = [
            f"{part}/{name}" for part in (TEXT_MODEL, TEXT_PART) for name in TEXT_FILES
        ]
        _download(str(source), [*parts, f"{MUQ_PART}/{CONFIG}"], revision, cache_dir)
    return folder


def find_part(
    name: str,
    folder: Path,
    part: str,
    given: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Finds the settings of a model that an official checkpoint names."""
    if given is None and (folder / part / CONFIG).is_file():
        return folder / part
    wanted = str(name if given is None else given)
    argument = "audio_model" if part == MUQ_PART else "text_model"
    files = (CONFIG,) if part == MUQ_PART else TEXT_FILES
    needed = CONFIG if part == MUQ_PART else f"{CONFIG} and the files of the tokenizer"
    remedy = (
        f"Its weights are in the checkpoint; only {needed} are needed. Download them "
        f"on a machine with a network into {folder / part}, or give their folder with "
        f"{argument}=..."
    )
    if Path(wanted).is_dir():
        if (Path(wanted) / CONFIG).is_file():
            return Path(wanted)
        raise FileNotFoundError(f"{wanted} holds no {CONFIG}. {remedy}")
    try:
        found = _download(wanted, list(files), None, cache_dir)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {remedy}") from error
    if not (found / CONFIG).is_file():
        raise FileNotFoundError(f"{wanted} holds no {CONFIG} on the hub. {remedy}")
    return found


def _download(
    hub_id: str, files: list[str], revision: str | None, cache_dir: str | Path | None
) -> Path:
    """The local copy of those of some files that a model on the hub has."""
    try:
        return Path(
            snapshot_download(
                hub_id, revision=revision, cache_dir=cache_dir, allow_patterns=files
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(
            f"{hub_id} is no folder here and could not be downloaded from the Hugging "
            f"Face hub ({error})."
        ) from error
