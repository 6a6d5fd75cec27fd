"""Several processes that work on one thing, on several GPUs or machines; alone, all of this does nothing.

    accelerate launch --num_processes 8 -m diffusion_lessons train cifar_large --full

`accelerate launch` starts the processes (Hugging Face accelerate, pip install 'diffusion-lessons[scale]'), and
torch.distributed lets them talk. Each has a number, its rank. The first one, rank 0, speaks and writes files.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Work together with the other processes, if `accelerate launch` (or torchrun) has started any; else alone.

    What all but the first print goes nowhere.  Raises ImportError without the package accelerate.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or world() > 1:
        yield
        return
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ImportError("several processes need the package accelerate: pip install accelerate") from error
    Accelerator()    # meets the others, and takes a GPU of its own where there are some
    try:
        with contextlib.ExitStack() as stack:
            if rank() > 0:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            yield
    finally:
        torch.distributed.destroy_process_group()


def together() -> bool:
    """Is there a group of processes?"""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """The number of this process; 0 for the first, and for one that works alone."""
    return torch.distributed.get_rank() if together() else 0


def world() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if together() else 1


def wrapped(model: nn.Module) -> nn.Module:
    """The model as it is called in training: the gradients of all processes are averaged in its backward pass.

    (DistributedDataParallel, Li et al. 2020, as accelerate prepares it)
    """
    if world() == 1:
        return model
    from accelerate import Accelerator

    return Accelerator().prepare_model(model)


def mean(x: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if world() == 1:
        return x
    x = x.clone()
    torch.distributed.all_reduce(x)
    return x / world()


def any_of(flag: bool) -> bool:
    """Does any process say so? All get the same answer."""
    return any(gather(flag)) if world() > 1 else flag


def from_first(value: Any) -> Any:
    """The value that the first process has."""
    return gather(value)[0] if world() > 1 else value


def gather(value: Any) -> list[Any]:
    """The values of all processes, in the order of their ranks; each gets them all. Tensors must be on the CPU."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    torch.distributed.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def first_goes_first() -> Iterator[None]:
    """The others enter such a block when the first has left it, so that it alone downloads what they then find."""
    if rank() > 0:
        torch.distributed.barrier()
    try:
        yield
    finally:
        if rank() == 0 and world() > 1:
            torch.distributed.barrier()
