"""Half precision in training: which type the upper blocks of G and D compute in on this machine, and where it stays out.

StyleGAN2-ADA's switches (2006.06676, appendix) say which blocks: num_fp16_res of the highest resolutions, with conv_clamp. In them
float16 is used on CUDA; bfloat16, on request, on CUDA and on CPUs that multiply it. Weights, sums of images, logits, losses and
optimizers are float32 in any case, and with bfloat16 so are the regularisers, which differentiate a gradient. The type is a setting of
the living G and D: their average, copies and snapshots do not carry it.
Must not know flags or the loop. Works on any network whose modules have `use_fp16` and `half_type`, see training/networks.py.
"""

import contextlib

from torch_utils import devices

BF16 = "bf16"  # as --half names it
NEEDED = "an x86 CPU with AVX512-BF16 or AMX, an Arm CPU with BF16, or a CUDA device from Ampere on"


def blocks_of(network):
    """The modules of a network that its num_fp16_res highest resolutions consist of."""
    return [module for module in network.modules() if getattr(module, "use_fp16", False) and hasattr(module, "half_type")]


def begin(half, networks, device):
    """Have networks compute in the type that a run asks for. Returns a sentence for the log, or None where nothing was asked for.

    half: 'bf16' or None. networks: list of modules. A machine without bfloat16 computes in float32, and the sentence says so.
    """
    if half != BF16:
        return None
    instructions = devices.bf16_instructions(device)
    blocks = [block for network in networks for block in blocks_of(network)]
    for block in blocks:
        block.half_type = "bfloat16" if instructions else "float32"
    if not blocks:
        return "Half precision: none, these networks have no blocks for it; everything runs in float32."
    if not instructions:
        return f"Half precision: {left_out(device)}."
    sizes = ", ".join(str(size) for size in sorted({block.resolution for block in blocks}))
    return f"Half precision: bfloat16 ({instructions}) in the blocks of {sizes} px; regularisers, images, losses, averages in float32."


def left_out(device):
    """Why bfloat16 is not used on a device, and what to do."""
    kind = getattr(device, "type", device)
    return f"bfloat16 is left out, this {kind} has no instructions for it and everything runs in float32; it needs {NEEDED}, or use --half=off"


@contextlib.contextmanager
def full_precision(*networks):
    """Inside, what computes in bfloat16 computes in float32: for terms that differentiate a gradient or subtract images that hardly differ.

    A derivative of a derivative multiplies the rounding errors of both passes, and between two near images there is little else left. float16 is left as it is: the family's networks were
    trained with its regularisers in float16.
    """
    blocks = [block for network in networks for block in blocks_of(network) if block.half_type == "bfloat16"]
    for block in blocks:
        block.half_type = "float32"
    try:
        yield
    finally:
        for block in blocks:
            block.half_type = "bfloat16"
