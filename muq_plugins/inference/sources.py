"""Where a model comes from: a folder on this machine, or the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from muq_plugins.inference.folders import CONFIG, WEIGHTS
from muq_plugins.inference.official import PICKLE

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_model(
    source: str | Path, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Finds the folder of a model, and downloads it if it is on the hub.

    A folder of that name wins over a model on the hub. Only ``config.json`` and one
    file of weights are downloaded, safetensors where there are any.
    """
    path = Path(source)
    for folder in (path, path / "inference"):
        weights = (folder / WEIGHTS).is_file() or (folder / PICKLE).is_file()
        if weights and (folder / CONFIG).is_file():
            return folder
    if not path.exists() and HUB_ID.fullmatch(str(source)):
        return _download(str(source), revision, cache_dir)
    raise FileNotFoundError(
        f"No trained MuQ model in {source}: neither it nor {path / 'inference'} holds "
        f"{CONFIG} and {WEIGHTS} (or {PICKLE}). Give the folder of a finished run, of "
        "a downloaded model, or a hub id like OpenMuQ/MuQ-large-msd-iter."
    )


def _download(hub_id: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    """The local copy of a model on the hub."""
    where = {"repo_id": hub_id, "revision": revision, "cache_dir": cache_dir}
    try:
        config = hf_hub_download(filename=CONFIG, **where)
        try:
            hf_hub_download(filename=WEIGHTS, **where)
        except EntryNotFoundError:
            hf_hub_download(filename=PICKLE, **where)
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(
            f"{hub_id} is no folder here and could not be downloaded from the Hugging "
            f"Face hub ({error}). Check the name, or download {CONFIG} and {WEIGHTS} "
            "on a machine with a network and give their folder."
        ) from error
    return Path(config).parent
