"""Exchanges results between processes: microbatch results in global order, rank 0's tensors to all.

Global order: microbatch k = round * num_gpus + rank. Everything stateful is updated from tensors in that order, so that
one process with two rounds and two processes with one reach the same state. Must not know what the tensors mean.
"""

from collections.abc import Callable

import torch
import torch.distributed

from madr_spaces.errors import MADRError

Tensors = dict[str, torch.Tensor]


def world() -> tuple[int, int]:
    """Return (rank, number of processes)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def gather_microbatches(rounds: list[torch.Tensor]) -> torch.Tensor:
    """Gather tensors of equal shape, one per local round -> those of all processes, [num_microbatches, ...] in global order."""
    local = torch.stack(rounds) if len(rounds) > 1 else rounds[0].contiguous()[None]
    _, num_processes = world()
    if num_processes == 1:
        return local
    gathered = [torch.empty_like(local) for _ in range(num_processes)]
    torch.distributed.all_gather(gathered, local.contiguous())
    return torch.stack(gathered, dim=1).flatten(0, 1)


def sum_over_processes(make: Callable[[], Tensors], device: torch.device) -> Tensors:
    """Sum what make() -> {name: tensor} gives, of the same names and shapes everywhere, over all processes; on the CPU.

    A failure of one process fails all: the others would wait for it for ever otherwise.
    """
    _, num_processes = world()
    if num_processes == 1:
        return make()
    tensors: Tensors = {}
    failure: Exception | None = None
    try:
        tensors = make()
    except Exception as error:  # raised again below, once the others know
        failure = error
    num_failed = torch.tensor(int(failure is not None), device=device)
    torch.distributed.all_reduce(num_failed)
    if failure is not None:
        raise failure
    if int(num_failed):
        raise MADRError("another process failed while it read its share of the training images; its message says why")
    for name in sorted(tensors):
        value = tensors[name].to(device).contiguous()
        torch.distributed.all_reduce(value)
        tensors[name] = value.cpu()
    return tensors


def from_first_process(make: Callable[[], Tensors], device: torch.device) -> Tensors:
    """Call make() -> {name: tensor} on rank 0 alone and give its result to all, on the CPU. Its failure fails all ranks."""
    rank, num_processes = world()
    if num_processes == 1:
        return make()
    tensors: Tensors = {}
    failure: Exception | None = None
    if rank == 0:
        try:
            tensors = make()
        except Exception as error:  # told to the other ranks, which would wait for ever otherwise; raised again below
            failure = error
    header: list = [None if failure is not None else {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}, str(failure)]
    torch.distributed.broadcast_object_list(header, src=0, device=device if device.type == "cuda" else None)
    if failure is not None:
        raise failure
    if header[0] is None:
        raise MADRError(f"the first process failed: {header[1]}")
    result = {}
    for name, (shape, dtype) in header[0].items():
        # What is sent is memory in its order: eigenvectors, say, lie transposed, and would arrive so.
        value = tensors[name].to(device).contiguous() if rank == 0 else torch.empty(shape, dtype=dtype, device=device)
        torch.distributed.broadcast(value, src=0)
        result[name] = value.cpu()
    return result
