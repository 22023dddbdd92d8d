"""Low-rank adapters in the linear layers of an encoder (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from muq_plugins.errors import UserError, first_line, needs

# Queries and values of the attention, as in the paper that proposed LoRA.
DEFAULT_TARGETS = ("linear_q", "linear_v")
LINEAR = "linear_q, linear_k, linear_v, linear_out, intermediate_dense, output_dense"


def add_lora(encoder: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Puts trainable adapters into linear layers and freezes everything else.

    A new adapter changes nothing: the encoder computes what it did before until
    the adapter is trained.
    """
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f"lora must hold arguments of peft.LoraConfig by name, such as "
            f"{{r: 8}}, but is {arguments!r}."
        )
    needs("LoRA", "lora", "peft")
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    chosen: dict[str, Any] = {"target_modules": list(DEFAULT_TARGETS), **arguments}
    try:
        inject_adapter_in_model(LoraConfig(**chosen), encoder)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"lora: {dict(arguments)} does not fit: {first_line(error)} Its keys are "
            f"those of peft.LoraConfig, such as r and lora_alpha; target_modules are "
            f"among {LINEAR}, layers_to_transform from 0 to {encoder.num_layers - 1}."
        ) from error
    adapted = {
        name: layer
        for name, layer in encoder.named_modules()
        if isinstance(layer, LoraLayer)
    }
    # Adapters of convolutions expect their frames on the last axis, and pointwise ones
    # have their channels there.
    refused = [
        name
        for name, layer in adapted.items()
        if not isinstance(layer.get_base_layer(), nn.Linear)
    ]
    if refused:
        raise ValueError(
            f"LoRA adapts linear layers only, but target_modules "
            f"{chosen['target_modules']} also names {', '.join(refused)}. Choose among "
            f"{LINEAR}."
        )


def lora_modules(encoder: nn.Module) -> list[nn.Module]:
    """The modules that `add_lora` has added, without the layers they adapt."""
    return [
        module
        for name, module in encoder.named_modules()
        if name.rpartition(".")[2].startswith("lora_")
    ]


def merge_lora(encoder: nn.Module) -> None:
    """Adds trained adapters to the weights they adapt and takes them out.

    What remains computes the same, and can be saved like any encoder.
    """
    for name, layer in list(encoder.named_modules()):
        if hasattr(layer, "get_base_layer"):
            layer.merge()
            encoder.set_submodule(name, layer.get_base_layer())
