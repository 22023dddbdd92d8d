"""Folders to give away and to push to the Hugging Face hub.

Such a folder is loaded by `MuQ.from_pretrained`, and by the Auto classes of
transformers after ``import muq_plugins``. Whoever loads it runs nothing that comes with
it, unless they trust it with ``trust_remote_code``; and then it imports this package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import Tensor, nn

from muq_plugins.errors import UserError
from muq_plugins.inference.auto_config import MODEL_TYPE, SIZES
from muq_plugins.inference.folders import TRAINED_ON, UNKNOWN, WEIGHTS, save_folder
from muq_plugins.inference.space import track_space
from muq_plugins.lobes.parts import describe, encoder_fingerprint

CARD = "README.md"
EXTRACTOR = "preprocessor_config.json"
MODEL, EXTRACTOR_CLASS = "MuQPluginsModel", "MuQPluginsFeatureExtractor"
REMOTE = "modeling_muq_plugins"
REMOTE_CODE = '''\
"""What transformers loads this model with: the package that made it."""

try:
    from muq_plugins.inference.auto import MuQPluginsFeatureExtractor, MuQPluginsModel
    from muq_plugins.inference.auto_config import MuQPluginsConfig
except ImportError as error:
    raise ImportError(
        "This model is computed by muq-plugins: pip install muq-plugins"
    ) from error

__all__ = ["MuQPluginsConfig", "MuQPluginsFeatureExtractor", "MuQPluginsModel"]
'''
FACTS = ("| | |", "|---|---|")  # the table that follows what a person says
USE = """\
```python
from muq_plugins import MuQ

model = MuQ.from_pretrained("{name}")
frames = model.embed_file("song.mp3")  # (frames, {width}), {frame_rate:g} per second
track = model.embed_track("song.mp3")  # ({width},), one unit vector
```

Or with transformers, after `import muq_plugins`:

```python
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("{name}")
model = AutoModel.from_pretrained("{name}")
hidden = model(**extractor("song.mp3", return_tensors="pt")).last_hidden_state
```
"""


def save_transformers(
    folder: str | Path,
    encoder: nn.Module,
    heard: str = "",
    license: str | None = None,
    words: str = "",
    remote_code: bool = False,
    name: str | None = None,
    tensors: dict[str, Tensor] | None = None,
    write_more: Callable[[Path], str] | None = None,
    keep_card: bool = False,
) -> Path:
    """Writes an encoder with a model card, for transformers and for us.

    ``heard`` is what it was trained on, ``words`` what a person says of it, ``name``
    how the card calls it. ``tensors`` are its weights in another precision;
    ``write_more(folder)`` writes further files, and gives the end of the card. With
    ``keep_card``, a folder with another card is refused: somebody may have edited it.
    """
    config = {
        "model_type": MODEL_TYPE,
        "architectures": [MODEL],
        "kind": "encoder",
        "encoder": describe(encoder),
        **{name: getattr(encoder, own) for name, own in SIZES.items()},
    }
    extractor: dict[str, Any] = {
        "feature_extractor_type": EXTRACTOR_CLASS,
        "sampling_rate": encoder.sample_rate,
        "feature_size": 1,
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    if heard and heard != UNKNOWN:
        config[TRAINED_ON] = heard
    if remote_code:
        config["auto_map"] = {
            "AutoConfig": f"{REMOTE}.MuQPluginsConfig",
            "AutoModel": f"{REMOTE}.{MODEL}",
        }
        extractor["auto_map"] = {"AutoFeatureExtractor": f"{REMOTE}.{EXTRACTOR_CLASS}"}

    def write(unfinished: Path) -> None:
        more = write_more(unfinished) if write_more is not None else ""
        (unfinished / EXTRACTOR).write_text(json.dumps(extractor, indent=2) + "\n")
        if remote_code:
            (unfinished / f"{REMOTE}.py").write_text(REMOTE_CODE)
        own = Path(folder).name
        card, own_card = (
            f"{_card(unfinished, encoder, heard, license, words, called)}\n{more}"
            for called in (name or own, own)
        )
        (unfinished / CARD).write_text(card, encoding="utf-8")
        before = Path(folder, CARD)
        if keep_card and before.is_file():
            if before.read_text("utf-8", "replace") not in (card, own_card):
                raise UserError(
                    f"{before} is not the card that would take its place: it was "
                    f"edited, or something was made differently. Put what you wrote "
                    f"there into --card and remove it, or give another --out."
                )

    tensors = encoder.state_dict() if tensors is None else tensors
    return save_folder(folder, tensors, config, write_more=write)


def push_folder(
    folder: str | Path, repo_id: str, private: bool = False, token: str | None = None
) -> str:
    """Makes a folder a repository of models on the hub; its address."""
    api = HfApi(token=token)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"{repo_id} could not be pushed to the Hugging Face hub ({error}). Check "
            f"the name (owner/name), the network, and `hf auth login`."
        ) from error
    return str(address)


def said_in_card(folder: Path) -> tuple[str | None, str]:
    """The licence of a folder's model card, and what a person says in it."""
    path = folder / CARD
    if not path.is_file():
        return None, ""
    card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    return card.data.license, card.text.partition("\n".join(FACTS))[0].strip()


def _card(
    folder: Path,
    encoder: nn.Module,
    heard: str,
    license: str | None,
    words: str,
    name: str,
) -> str:
    """The model card: what a person says, what it is, how to use it, and hashes."""
    head = {
        "license": license,
        "library_name": "muq-plugins",
        "pipeline_tag": "feature-extraction",
        "tags": ["music", "audio"],
    }
    front = [f"{key}: {json.dumps(value)}" for key, value in head.items() if value]
    space = track_space(encoder_fingerprint(encoder), encoder.num_layers).name
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    stated = license or "none is stated: ask who made it before you use it"
    facts = {
        "encoder": f"{type(encoder).__name__}, {parameters / 1e6:.1f} million weights",
        "in, out": f"mono at {encoder.sample_rate} Hz; {encoder.num_layers + 1} hidden "
        f"states of {encoder.width} numbers, {encoder.frame_rate:g} per second",
        "trained on": heard or UNKNOWN,
        "licence": stated,
        "embedding space of the last layer": f"`{space}`",
    }
    lines = [*FACTS, *(f"| {k} | {v} |" for k, v in facts.items())]
    files = ["| file | bytes | SHA-256 |", "|---|---:|---|"]
    for path in sorted(folder.rglob(WEIGHTS)):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        place = path.relative_to(folder).as_posix()
        files.append(f"| `{place}` | {len(content):,} | `{digest}` |")
    title = words.rstrip() or f"# {name.rpartition('/')[2]}"
    use = USE.format(name=name, width=encoder.width, frame_rate=encoder.frame_rate)
    parts = ["---", *front, "---", "", title, "", *lines, "", use, "## Files", ""]
    return "\n".join([*parts, *files, ""])
