"""Where randomness comes from: generators of one's own, and a fence around the host's.

A number drawn by the plugin depends on (run seed, step, microbatch, purpose) alone: not on the number of processes, not
on what the host drew before, not on whether the run was resumed.
"""

import contextlib
import hashlib

import torch


def derived_seed(*parts):
    """63-bit seed from integers and words; neighbouring tuples give unrelated seeds."""
    text = "|".join(str(part) for part in ("madr", *parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def generator_for(*parts):
    """CPU generator of its own for the draw that `parts` names."""
    return torch.Generator().manual_seed(derived_seed(*parts))


def global_rng_replaced(device, *parts):
    """Inside: torch's global generators are seeded by `parts` (networks draw noise from them). After: exactly as found."""
    return global_rng_seeded(device, derived_seed(*parts))


@contextlib.contextmanager
def global_rng_seeded(device, seed):
    """The same with a given seed."""
    device = torch.device(device)
    indices = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=indices):
        torch.default_generator.manual_seed(seed)
        if indices:
            torch.cuda.default_generators[indices[0]].manual_seed(seed)
        if mps_state is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)
