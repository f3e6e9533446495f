"""How many forms of kernels did this process make ready?"""

from __future__ import annotations

from triton.runtime.jit import JITFunction

from runners.engine.kernels import attention, feed_forward, mixing, steps, tokens


def num_compiled() -> int:
    """Compiled, or read from the cache on disk; a form is a dtype, a power of two above the width,
    what of its gradients a kernel gets, and whether a size divides by 16."""
    kernels = [
        value
        for module in (attention, feed_forward, mixing, steps, tokens)
        for value in vars(module).values()
        if isinstance(value, JITFunction)
    ]
    return sum(len(caches[0]) for each in kernels for caches in each.device_caches.values())
