"""Training of which each process holds a share: FSDP2, torch's ``fully_shard``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from muq_plugins.brains.processes import rank, world_size
from muq_plugins.errors import UserError


class FSDP(nn.Module):
    """A module that stays whole, and its twin, of which each process holds a share.

    The twin is trained, with gradients and optimizer of the share alone. The module is
    what any process can validate or export without the others, after `gather`. Frozen
    parts and running statistics are the same objects in both.

    Arguments
    ---------
    module : nn.Module
        On its device; every process must do the same.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)
        frozen = {p for p in module.parameters() if not p.requires_grad}
        same = [part for part in module.modules() if not _is_trained(part)]
        same += [*frozen, *module.buffers()]
        self.module = module
        self.twin = copy.deepcopy(module, {id(part): part for part in same})
        for parameter in self.twin.parameters():
            if parameter.requires_grad:  # no other layout can be shared out
                parameter.data = parameter.data.contiguous()
        device = next(module.parameters()).device.type
        how = {
            "mesh": init_device_mesh(device, (world_size(),)),
            "ignored_params": frozen,
        }
        # Layer by layer, so that one at a time is whole; the inner ones first.
        for layers in reversed(list(self.twin.encoder.modules())):
            if isinstance(layers, nn.ModuleList):
                for layer in filter(_is_trained, layers):
                    fully_shard(layer, **how)
        fully_shard(self.twin, **how)

    def forward(self, *inputs: Any) -> Any:
        """Calls the twin."""
        return self.twin(*inputs)

    @torch.no_grad()
    def gather(self) -> None:
        """Brings the module up to date; every process must do so."""
        for mine, share in self._pairs():
            mine.copy_(share.full_tensor())

    @torch.no_grad()
    def scatter(self) -> None:
        """Gives the twin what was loaded into the module."""
        for mine, share in self._pairs():
            share.copy_(share_like(mine, share))

    def _pairs(self):
        """Trained parameters: whole, and this process's share."""
        pairs = zip(self.module.parameters(), self.twin.parameters(), strict=True)
        return [(mine, share) for mine, share in pairs if mine is not share]


@register_checkpoint_hooks
class WholeOptimizer:
    """Writes and reads the state of an optimizer of shares as that of all.

    The file is that of DDP, so either goes on from the other's.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        Of the parameters of an `FSDP`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self._whole: dict = {}  # on the main process, until it is written

    def state_dict(self) -> dict:
        """The whole state, on the main process; every process must ask.

        `AtomicCheckpointer` does, before the main process writes.
        """

        def collect(value: Any) -> Any:
            value = whole(value) if torch.is_tensor(value) else value
            if rank():  # which keeps nothing, and need not have room for it
                return None
            return value.cpu() if torch.is_tensor(value) else value

        state = tree_map(collect, self.optimizer.state_dict())
        self._whole = {} if rank() else state
        return self._whole

    @mark_as_saver
    def _save(self, path: str | Path) -> None:
        torch.save(self._whole, path)
        self._whole = {}

    @mark_as_loader
    def _load(self, path: str | Path, end_of_epoch: bool) -> None:
        # Mapped, as each process reads all of it and keeps a share.
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        for number, values in state["state"].items():
            like = parameters[number]
            for name, value in values.items():
                if value.shape == like.shape:
                    values[name] = share_like(value.to(like.device), like)
        self.optimizer.load_state_dict(state)


def check_fsdp(module: nn.Module, hparams: dict[str, Any], run_opts: Any) -> None:
    """Refuses what shares cannot do, before anything is trained."""
    if not hparams.get("fsdp"):
        return
    given = {name: getattr(run_opts, name) for name in run_opts.overridden_args}
    settings = {**hparams, **given}
    if getattr(module, "follows_updates", False):
        raise UserError(
            "fsdp is True, but an objective follows the encoder's weights after each "
            "update, and a process has a share of them only: leave fsdp out."
        )
    if settings.get("precision") == "fp16" or settings.get("auto_mix_prec"):
        raise UserError(
            "fsdp is True and precision is fp16, for which each process would find a "
            "scale of its own: give --precision bf16 or fp32."
        )
    if settings.get("compile"):
        raise UserError(
            "fsdp is True and compile is set, but shares are not compiled: leave one "
            "of them out."
        )


def whole(tensor: Tensor) -> Tensor:
    """All of what this process may hold a share of."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_like(tensor: Tensor, share: DTensor) -> DTensor:
    """This process's share of a tensor that every process has whole."""
    where = share.device_mesh, share.placements
    return distribute_tensor(tensor, *where, src_data_rank=None)


def _is_trained(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())
