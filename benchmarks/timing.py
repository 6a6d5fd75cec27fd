"""What the benchmarks measure with: seconds, floating-point operations, memory, and what the machine does at best."""

import statistics
import sys
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(work, repeats=7, at_most=20.0):
    """The median time of one call, after a first one that does not count; fewer repeats once they take `at_most` s."""
    work()
    times = []
    while len(times) < repeats and (not times or sum(times) < at_most):
        began = time.perf_counter()
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def matrix_product(size=2048):
    """GFLOP/s of a large float32 matrix product."""
    a = torch.randn(size, size, device=DEVICE)
    return 2 * size**3 / seconds(lambda: a @ a) / 1e9


def operations(work):
    """Floating-point operations of a call (a multiplication and an addition are two)."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@torch.no_grad()
def largest_convolution(network, work):
    """GFLOP/s of the convolution that needs the most operations when `work` calls the network, forward and alone."""
    found = []

    def note(layer, inputs, output):
        count = 2 * output.numel() * layer.weight[0].numel()
        found.append((count, len(found), layer, inputs[0].shape))

    hooks = [layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.enable_grad():
        work()
    for hook in hooks:
        hook.remove()
    count, _, layer, shape = max(found)
    x = torch.randn(shape, device=DEVICE)
    return count / seconds(lambda: layer(x)) / 1e9


def peak_memory():
    """The most memory that this process has used so far: of the GPU if there is one.  -> MiB, None on Windows"""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class Stopwatch:
    """Sums up the time spent inside a network's forward."""

    def __init__(self, network):
        self.total, forward = 0.0, network.forward

        def timed(*args, **kwargs):
            began = time.perf_counter()
            try:
                return forward(*args, **kwargs)
            finally:
                if DEVICE.type == "cuda":
                    torch.cuda.synchronize()
                self.total += time.perf_counter() - began

        network.forward = timed
