"""What the public models share: frozen wherever they go, and no code from folders."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import yaml
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.fetching import LocalStrategy, fetch

from muq_plugins.errors import UserError, first_line
from muq_plugins.inference.folders import (
    CONFIG,
    UNKNOWN,
    packaged,
    read_config,
    trained_on,
)
from muq_plugins.lobes.parts import PARTS

# What the YAML of a folder may call: what `save_muq` writes, and any other part.
PART = "muq_plugins.lobes."
CALLS = {
    "muq_plugins.lobes.encoders.build_encoder",
    "muq_plugins.inference.folders.pretrainer_hook",
    "speechbrain.dataio.preprocess.AudioNormalizer",
    "speechbrain.utils.parameter_transfer.Pretrainer",
}
# Tags that make nothing: plain values, and HyperPyYAML's own.
PLAIN = "tag:yaml.org,2002:"
PLAIN_TAGS = {"str", "int", "float", "bool", "null", "seq", "map", "merge"}
OWN_TAGS = {"!ref", "!copy", "!tuple"}


class FrozenModel(Pretrained):
    """A trained model for users: in evaluation mode, without gradients."""

    # What it has heard in training, in words, as far as its folder says.
    trained_on: str = UNKNOWN
    # Of the weights as they are when it is first needed, or before they are converted.
    fingerprint: str

    def __init__(self, modules=None, hparams=None, run_opts=None, **kwargs: Any):
        if isinstance(run_opts, dict) and run_opts.get("device") is not None:
            run_opts = {**run_opts, "device": str(run_opts["device"])}
        if hparams is not None and "sample_rate" in hparams:
            # SpeechBrain's own default brings audio to 16 kHz, whatever a model hears.
            normalizer = AudioNormalizer(hparams["sample_rate"])
            hparams = {"audio_normalizer": normalizer, **hparams}
        super().__init__(modules, hparams, run_opts, **kwargs)
        self._asked_for = None  # from now on, the device is where the weights are
        self.train(False)

    @property
    def device(self) -> torch.device | str | None:
        """Where the weights are, and so where the audio goes."""
        if self.__dict__.get("_asked_for") is not None:
            return self._asked_for
        first = next(self.parameters(), None)
        return None if first is None else first.device

    @device.setter
    def device(self, device: str | None) -> None:
        self._asked_for = device

    def _apply(self, fn, recurse=True):
        """Names its space before weights are converted, whatever was asked first."""
        weight = next((p for p in self.parameters() if p.is_floating_point()), None)
        if weight is not None and fn(weight.new_empty(0)).dtype != weight.dtype:
            self.fingerprint  # noqa: B018  (cached)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """What it has heard comes first when a model is printed."""
        return f"trained_on={self.trained_on!r}"

    def train(self, mode: bool = True) -> FrozenModel:
        """Stays in evaluation mode whatever is asked: nothing here is trained."""
        return super().train(False)

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        hparams_file: str = "hyperparams.yaml",
        trust_source: bool = False,
        **kwargs: Any,
    ) -> FrozenModel:
        """Loads a folder by the YAML in it, as SpeechBrain's interfaces do.

        YAML of SpeechBrain can call any function of Python. Here it may call what our
        folders need and nothing else, unless the source is trusted.

        Arguments
        ---------
        source : str or Path
            A run folder or its inference folder, or the id of a model on the Hugging
            Face hub.
        hparams_file : str
            Name of its YAML file.
        trust_source : bool
            Run whatever the YAML calls: it can do all that you can.
        **kwargs : dict
            Further arguments of SpeechBrain's ``from_hparams``, such as ``savedir``.

        Returns
        -------
        FrozenModel
            The model.

        Raises
        ------
        ValueError
            If the YAML calls anything else.
        """
        inference = packaged(source) / "inference"
        if (inference / hparams_file).is_file():  # a run folder, whose own YAML trains
            source = inference
        if not trust_source:
            names = ("savedir", "local_strategy", "fetch_config")
            where = {name: kwargs[name] for name in names if name in kwargs}
            where.setdefault("local_strategy", LocalStrategy.SYMLINK)
            check_calls(fetch(hparams_file, source, **where))
        model = super().from_hparams(source, hparams_file, **kwargs)
        if (Path(source) / CONFIG).is_file():
            model.trained_on = trained_on(read_config(source))
        return model


def at_inference(compute: Callable) -> Callable:
    """Without gradients and in evaluation mode, even if a part is trained elsewhere."""

    @wraps(compute)
    def computed(self, *args, **kwargs):
        training = [part for part in self.modules() if part.training]
        for part in training:
            part.training = False
        try:
            with torch.no_grad():
                return compute(self, *args, **kwargs)
        finally:
            for part in training:
                part.training = True

    return computed


def pick_device(device: str | torch.device | None) -> str | torch.device:
    """A device that was asked for, if it is there; else a GPU if there is one."""
    device = infer_device() if device is None else device
    try:
        torch.empty(0, device=device)  # says why it cannot
    except Exception as error:  # of many kinds
        raise UserError(
            f"device {device}: there is no such device here ({first_line(error)}). "
            f"Give cpu, cuda, cuda:1 or mps; `muq-plugins doctor` lists what there is."
        ) from error
    return device


def check_calls(path: str | Path) -> None:
    """Refuses a YAML file that makes or calls what is not ours."""
    try:
        for event in yaml.parse(Path(path).read_text(encoding="utf-8")):
            tag = getattr(event, "tag", None)
            if tag is not None and not _is_harmless(tag):
                raise UserError(
                    f"{path}, line {event.start_mark.line + 1}: {tag} could run any "
                    f"code. If you trust where it comes from, give trust_source=True; "
                    f"from_pretrained runs nothing."
                )
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error


def _is_harmless(tag: str) -> bool:
    """Whether a tag of YAML makes a value, or one of the parts that are allowed."""
    if tag.startswith(PLAIN):
        return tag.removeprefix(PLAIN) in PLAIN_TAGS
    kind, _, name = tag.partition(":")
    if kind not in ("!new", "!apply", "!name"):
        return tag in OWN_TAGS
    return name in CALLS or (name.startswith(PART) and name[len(PART) :] in PARTS)
