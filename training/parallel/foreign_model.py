"""A model of one's own on a mesh of ranks, each of which holds some of the channels (docs/front_end.md).

The rule is that of `channel_parallel`: between ranks a rank's gradient is its part of a sum. So each rank's loss has to
be its part of the loss (of its own channels, over the number of all), and where several ranks use one weight, its
gradient is the sum of what they find: `sum_shared_gradients` takes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from weatherfm.errors import InputError
from weatherfm.model.front_end import ChannelBackEnd, ChannelEnd, ChannelFrontEnd
from weatherfm.model.hierarchical import HierarchicalAggregation
from weatherfm.training.parallel.channel_parallel import gather_positions, join_channels, keep_positions
from weatherfm.training.parallel.channel_rows import belongs_to_channels, local

ModelT = TypeVar("ModelT", bound=nn.Module)


def split_channels(model: ModelT, mesh: DeviceMesh, positions: Literal["all", "own"] = "all") -> ModelT:
    """Spread the channels of a model of one's own over ranks, in place: the same function, of channels apart.

        mesh = init_device_mesh("cuda", (8,))  # of torch.distributed
        model = weatherfm.split_channels(model, mesh)

    Afterwards `front_end.own` says which channels a rank is to give it, and `back_end.own` which it gets. All other
    weights become those of the mesh's first rank. Optimizers, FSDP and tensor parallelism of what stands between come
    after it.

    Args:
        model: whole, and the same on all ranks; with a `ChannelFrontEnd` in it and, if it gives fields, a
            `ChannelBackEnd`.
        mesh: of one axis: ranks that work on one sample together.
        positions: all: between its ends every rank has all positions and computes the same, which any model can; own:
            only its own (`front_end.positions`), one part of as many as there are ranks, for a model that is itself
            split by sequence.

    Returns:
        The model.

    Raises:
        InputError: a mesh of several axes, a model without a front end, or one that is split already or holds DTensors;
            ranks that are more than channels, or do not divide the groups or the number of positions.
    """
    if mesh.ndim != 1 or positions not in ("all", "own"):
        raise InputError(
            f"channels are split over a mesh of one axis, with positions all or own; got {mesh} and {positions!r}; "
            'take the axis by its name, e.g. mesh["tp"]'
        )
    ends = _ends(model)
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise InputError("this model is on a mesh already; split its channels first, then shard or split the rest")
    for end in ends:
        end.require_shares(mesh.size())
    for end in ends:
        end.keep(mesh.get_local_rank(), mesh.size())
        _join(end, mesh, positions)
    _equalise(model, mesh)
    return model


def sum_shared_gradients(model: nn.Module, mesh: DeviceMesh) -> Tensor:
    """Add up over ranks the gradients of all weights that they share: once a step, before the optimizer's.

        norm = weatherfm.sum_shared_gradients(model, mesh)
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, norm)  # alike on all ranks

    Gradients of a channel's weights are whole, and stay as they are. So do those of DTensors on this mesh (FSDP,
    tensor parallelism), which torch adds up itself; FSDP takes the mean unless told otherwise, see docs/front_end.md.

    Args:
        model: as `split_channels` made it, after `backward`; the same weights have gradients on all ranks.
        mesh: the one that it is split over.

    Returns:
        The norm of all gradients of the whole model as one vector, a scalar on their device, the same on all ranks.

    Raises:
        InputError: no front end, no gradients, or weights of channels that are sharded over this mesh as though ranks
            held the same.
    """
    own = _of_channels(model)
    parameters = [p for p in model.parameters() if p.grad is not None]
    if not parameters:
        raise InputError("no weight has a gradient; call backward on this rank's part of the loss first")
    on_mesh = {id(p) for p in parameters if isinstance(p, DTensor) and _reaches(p.device_mesh, mesh)}
    if own & on_mesh:
        raise InputError(
            "weights of channels are sharded over the mesh that splits channels, but each rank has others; give "
            "fully_shard the modules between the ends alone, or these as ignored_params"
        )
    _sum([local(_gradient(p)) for p in parameters if id(p) not in own | on_mesh], mesh)
    kinds: dict[tuple[bool, DeviceMesh | None], list[Tensor]] = defaultdict(list)
    for p in parameters:
        kinds[id(p) in own, p.device_mesh if isinstance(p, DTensor) else None].append(_gradient(p))
    squares = [
        _square(gradients) / (1 if of_channels else mesh.size()) for (of_channels, _), gradients in kinds.items()
    ]
    total = torch.stack(squares).sum()
    dist.all_reduce(total, group=mesh.get_group())
    return total.sqrt()


def _ends(model: nn.Module) -> list[ChannelEnd]:
    ends = [module for module in model.modules() if isinstance(module, ChannelEnd)]
    if not any(isinstance(end, ChannelFrontEnd) for end in ends):
        raise InputError(f"{type(model).__name__} holds no ChannelFrontEnd; build one into it, or pass the whole model")
    return ends


def _of_channels(model: nn.Module) -> set[int]:
    """Identities of the parameters that belong to channels: no other rank knows them."""
    return {id(p) for end in _ends(model) for name, p in end.named_parameters() if belongs_to_channels(name)}


def _join(end: ChannelEnd, tp: DeviceMesh, positions: str) -> None:
    """Set the seams of an end that holds one share of the channels."""
    if positions == "own":
        each = end.positions.stop // tp.size()
        end.positions = slice(tp.get_local_rank() * each, (tp.get_local_rank() + 1) * each)
    if isinstance(end, ChannelFrontEnd):
        join_channels(end.aggregation, tp)
        if positions == "all" and isinstance(end.aggregation, HierarchicalAggregation):
            end.aggregation.split = partial(keep_positions, tp=tp)
        elif positions == "all":
            end.register_forward_hook(lambda module, inputs, tokens: gather_positions(tokens, tp))
    elif isinstance(end, ChannelBackEnd) and positions == "own":
        end.to_patches.register_forward_pre_hook(lambda module, inputs: (gather_positions(inputs[0], tp),))


@torch.no_grad()
def _equalise(model: nn.Module, mesh: DeviceMesh) -> None:
    """Give all ranks the shared weights and buffers of the first, as data parallelism does."""
    own = _of_channels(model)
    for values in chain(model.parameters(), model.buffers()):
        if id(values) not in own and not values.is_meta:
            sent = values.detach().contiguous()
            dist.broadcast(sent, group=mesh.get_group(), group_src=0)
            values.copy_(sent)


def _sum(tensors: Iterable[Tensor], mesh: DeviceMesh) -> None:
    """Add up over ranks, in place and all at once."""
    pairs = [(tensor, tensor.contiguous()) for tensor in tensors]
    waiting = [dist.all_reduce(sent, group=mesh.get_group(), async_op=True) for _, sent in pairs]
    for (tensor, sent), work in zip(pairs, waiting, strict=True):
        work.wait()
        if sent is not tensor:
            tensor.copy_(sent)


def _square(gradients: list[Tensor]) -> Tensor:
    """Squared norm of whole gradients of one mesh, float32 or better; on every rank of it."""
    norm = get_total_norm(gradients)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return whole.to(torch.promote_types(whole.dtype, torch.float32)).square()


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None  # as was looked for
    return parameter.grad


def _reaches(other: DeviceMesh, mesh: DeviceMesh) -> bool:
    """Whether a mesh has all ranks of this one, where these are several."""
    return mesh.size() > 1 and set(mesh.mesh.flatten().tolist()) <= set(other.mesh.flatten().tolist())
