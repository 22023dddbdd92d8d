"""What recipes use of SpeechBrain's wrappers of transformers, beyond the call.

Arguments that the wrappers pass on, names inside ``wrapper.model``, and checkpoints
that were saved with other options.
"""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from muq_plugins.errors import UserError, nearest

Config = namedtuple("Config", ("hidden_size", "num_hidden_layers"))
HALVES = (torch.bfloat16, torch.float16)
# Other arguments of the wrappers. None and False ask for nothing.
INSTEAD = {
    "cache_dir": "downloads go to save_path",
    "for_pretraining": "muq_plugins.MaskedPrediction pre-trains",
    "low_cpu_mem_usage": "leave it out",
    "output_attentions": "the scores of the attention are never stored",
    "output_hidden_states": "output_all_hiddens: True gives all hidden states",
    "quantization_config": "dtype: bfloat16 halves the memory of the weights",
    "seq2seqlm": "an encoder has no language model",
    "trust_remote_code": "nothing that comes with a model is executed: leave it out",
    "with_casual_lm": "an encoder has no language model",
    "with_lm_head": "an encoder has no language model",
}


class View:
    """A module by other names; it is no module, so it is in no state dict."""

    def __init__(self, module: nn.Module, **names: Any):
        vars(self).update(names, view_of=module)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "view_of":
            raise AttributeError(name)
        return getattr(self.view_of, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(getattr(type(self), name, None), property):
            raise AttributeError(
                f"{name} cannot be set here, because it would be lost: set it on the "
                f"lobe or on its encoder."
            )
        super().__setattr__(name, value)


class LayersView(View):
    """The conformer by the names of a transformer encoder."""

    @property
    def layers(self) -> nn.ModuleList:
        """The layers; set to fewer of them, the rest of the lobe follows."""
        return self.view_of.layers

    @layers.setter
    def layers(self, layers: Iterable[nn.Module]) -> None:
        cut_layers(self.lobe, list(layers))


class ModelView(View):
    """An encoder by the names of ``Wav2Vec2Model`` and its kin."""

    def __init__(self, lobe: Any):
        encoder = lobe.encoder
        super().__init__(
            encoder,
            config=Config(lobe.width, len(encoder.conformer.layers)),
            encoder=LayersView(encoder.conformer, lobe=lobe),
            feature_extractor=View(
                encoder.conv, _freeze_parameters=lobe.freeze_front_end
            ),
        )


def cut_layers(lobe: Any, layers: Sequence[nn.Module]) -> None:
    """Leaves the first layers only; hidden states and their weights follow.

    The final normalisation then follows the last layer that is left.
    """
    encoder = lobe.encoder
    have = list(encoder.conformer.layers)
    if not layers or list(layers) != have[: len(layers)]:
        raise UserError(
            f"Layers can only be cut off at the end, because hidden states, their "
            f"weights and frozen_layers are counted from the front end: set "
            f"model.encoder.layers to layers[:n] with n from 1 to {len(have)}."
        )
    encoder.conformer.layers = nn.ModuleList(layers)
    encoder.num_layers = len(layers)
    encoder.config = {**encoder.config, "num_layers": len(layers)}
    if (weights := lobe.layer_weights) is not None:
        # The same parameter: an optimizer may hold it already.
        weights.grad = None
        weights.data = weights.data[: len(layers) + 1].clone()


def read_wrapper_arguments(
    lobe: Any, given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of ``Module.to`` and of the loading, from what the wrappers pass on."""
    given = {name: value for name, value in given.items() if value is not None}
    place = {}
    for name in ("device_map", "device"):
        if name in given:
            place["device"] = _read_device(name, given.pop(name))
    for name in ("torch_dtype", "dtype"):
        if name in given:
            place["dtype"] = _read_dtype(name, given.pop(name))
    attention = given.pop("attn_implementation", "sdpa")
    if attention != "sdpa":
        raise UserError(
            f"attn_implementation: {attention} is not available: the attention is "
            f"torch's scaled_dot_product_attention, which takes a flash kernel where "
            f"there is one. Leave it out or set it to sdpa."
        )
    loading = {"revision": given.pop("revision")} if "revision" in given else {}
    for name, value in given.items():
        kind = type(lobe).__name__
        if name not in INSTEAD:
            known = {*inspect.signature(type(lobe)).parameters, "device_map", "dtype"}
            likely = nearest(name, known, cutoff=0.6)
            hint = f"did you mean {likely}?" if likely else "leave it out."
            raise UserError(f"{kind} has no argument {name} ({value!r}): {hint}")
        if value is not False:
            raise UserError(f"{kind} cannot honour {name}: {value}. {INSTEAD[name]}.")
    return place, loading


def _read_device(name: str, value: Any) -> torch.device:
    """One device, as transformers takes it."""
    whole = value.get("") if isinstance(value, dict) and len(value) == 1 else value
    try:
        return torch.device(whole)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"{name} must name one device, where the whole encoder goes, such as "
            f"cuda:0, got {value!r}."
        ) from error


def _read_dtype(name: str, value: Any) -> torch.dtype:
    """A floating point type, by itself or by its name."""
    dtype = getattr(torch, value, None) if isinstance(value, str) else value
    if value == "auto":  # as it was saved
        return torch.float32
    if dtype not in (torch.float32, *HALVES):
        raise UserError(f"{name} must be float32, bfloat16 or float16, got {value!r}.")
    return dtype


def explain_misfit(lobe: Any, saved_state: Mapping[str, Any]) -> str:
    """Why a checkpoint was saved with other options; or nothing."""
    own_state = lobe.state_dict()
    theirs, ours = set(saved_state), set(own_state)
    reasons: list[str] = []
    if not theirs & ours:  # of something else: torch names what
        return ""
    weights = "layer_weights"
    if weights in theirs - ours:
        reasons.append(
            f"it holds {weights}, the learned weights of a sum of hidden states, which "
            f"this lobe does not use: set output_weighted_sum: True, or delete that "
            f"key to do without them"
        )
    if weights in ours - theirs:
        reasons.append(
            f"it was saved without output_weighted_sum and has no {weights}: set "
            f"output_weighted_sum: False, or load it with strict=False (SpeechBrain's "
            f"Pretrainer does) to begin with equal weights"
        )
    adapters = {name for name in theirs if ".lora_" in name}
    own_adapters = {name for name in ours if ".lora_" in name}
    if adapters and not own_adapters:
        layers = {name.split(".lora_")[0].rpartition(".")[2] for name in adapters}
        reasons.append(
            f"it holds LoRA adapters of {', '.join(sorted(layers))}, which this lobe "
            f"has not: give it the lora of the run that saved them; or load it so, "
            f"merge_lora(lobe.encoder), save_muq(folder, lobe.encoder), and take that "
            f"folder as source"
        )
    elif own_adapters and not adapters:
        reasons.append(
            "it was saved without LoRA, and this lobe has adapters: leave lora out; to "
            "adapt what was trained, load it so, save_muq(folder, lobe.encoder), and "
            "take that folder as source together with lora"
        )
    elif adapters != own_adapters:
        reasons.append(
            "its LoRA adapters are those of other layers: give lora the target_modules "
            "and layers_to_transform of the run that saved them"
        )
    else:
        ranks = {
            tuple(len(state[name]) for state in (saved_state, own_state))
            for name in adapters
            if ".lora_A" in name
        }
        if other := next((pair for pair in ranks if pair[0] != pair[1]), None):
            reasons.append(
                f"its LoRA adapters are of rank {other[0]}, those of this lobe of rank "
                f"{other[1]}: give lora r: {other[0]}"
            )
    saved, own = _count_layers(theirs), _count_layers(ours)
    if saved and saved < own:
        reasons.append(
            f"it has {saved} layers, this lobe {own}: set lobe.model.encoder.layers = "
            f"lobe.model.encoder.layers[:{saved}] before loading"
        )
    elif saved > own:
        reasons.append(
            f"it has {saved} layers, this lobe {own}: cut the layers of the lobe after "
            f"loading, not before"
        )
    if not reasons:
        return ""
    return f"The checkpoint does not fit this lobe: {'; '.join(reasons)}."


def _count_layers(names: Iterable[str]) -> int:
    """Conformer layers of a state dict."""
    start = "encoder.conformer.layers."
    return len({n[len(start) :].split(".")[0] for n in names if n.startswith(start)})
