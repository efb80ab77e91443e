"""What a configuration will cost, and what is doubtful about it, told before anything runs.

Parameters and activations are counted on PyTorch's meta device, so nothing is allocated; those of small networks on the CPU,
since the meta device first imports half of PyTorch's compiler, which takes longer than the passes. Estimates are for
planning: right within about a third. Must not know click or run folders.
"""

import dataclasses
import os

import psutil
import torch

import dnnlib
from dnnlib.errors import UserError
from torch_utils import devices
from training import flag_table, half_precision, presets
from training.gan import choosing

FLOAT_BYTES, HALF_BYTES = 4, 2
# The regularisers differentiate a gradient: PyTorch keeps the forward pass, the backward pass and the tape of both.
DOUBLE_BACKWARD_FACTOR = 3
# Images compress; photographs in PNG take about this share of their raw size.
PNG_SHARE = 0.7
# Networks up to these sizes are counted by passes on the CPU, which take milliseconds.
SMALL_RESOLUTION, SMALL_CHANNELS = 64, 128
# From this resolution on, a run that unrolls D is refused where the estimate exceeds the memory; below, it is warned.
UNROLLED_IN_DOUBT = 256


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Counts of parameters; sizes in bytes."""

    parameters_G: int
    parameters_D: int
    memory: int  # per process, at the peak of a step
    snapshot: int  # one network pickle
    state: int  # one training state
    num_snapshots: int
    grid: int  # one picture of samples
    num_grids: int

    @property
    def disk(self) -> int:
        # Two states are kept, and a new one is complete before an old one goes.
        return self.snapshot * self.num_snapshots + self.state * 3 + self.grid * self.num_grids


def estimate(options, image_shape, label_dim) -> Estimate:
    """Count what the options of a run come to."""
    channels, resolution, _ = image_shape
    common = dict(c_dim=label_dim, img_resolution=resolution, img_channels=channels)
    device = counting_device(options, resolution)
    with torch.random.fork_rng(devices=[]), torch.device(device), _StayOnMeta():
        G = dnnlib.util.construct_class_by_name(**{**common, **options.G_kwargs})
        D = dnnlib.util.construct_class_by_name(**{**common, **options.D_kwargs})
        activations = _activation_bytes(G, D, options, resolution, device)
    weights_G, weights_D = _tensor_bytes(G), _tensor_bytes(D)
    trained = sum(_parameter_count(module) for module in (G, D)) * FLOAT_BYTES

    def kept(name, batch):
        return activations[name][0] + activations[name][1] * batch

    phases = [kept("G", options.batch_gpu) + kept("D", options.batch_gpu), kept("D", options.batch_gpu) * DOUBLE_BACKWARD_FACTOR]
    if options.loss_kwargs.get("pl_weight", 2):
        phases.append(kept("G", options.batch_gpu / options.loss_kwargs.get("pl_batch_shrink", 2)) * DOUBLE_BACKWARD_FACTOR)
    if "gan" in options.loss_kwargs:  # reals and fakes go backwards together, and with them penalties that are not lazy
        factor = 2 + (DOUBLE_BACKWARD_FACTOR if options.get("D_reg_interval", 16) is None and choosing.penalties_of(options) else 0)
        phases.append(kept("D", options.batch_gpu) * factor)
    # Of every unrolled step: reals and fakes, the pass and its gradient with a graph; the weights and moments that it makes.
    steps, share = choosing.unrolled_of(options)
    phases[0] += steps * (2 * kept("D", options.batch_gpu * share) * DOUBLE_BACKWARD_FACTOR + 4 * weights_D)
    num_past, has_past_weights = choosing.kept_of(options)
    of_methods = num_past * channels * resolution**2 * HALF_BYTES + has_past_weights * trained
    # G, D and the average of G; gradients; two moments of Adam.
    fixed = 2 * weights_G + weights_D + 3 * trained + of_methods
    ticks = max(int(options.total_kimg / options.get("kimg_per_tick", presets.KIMG_PER_TICK)), 1)
    num_snapshots = _count_saves(ticks, options.network_snapshot_ticks)
    return Estimate(
        parameters_G=_parameter_count(G),
        parameters_D=_parameter_count(D),
        memory=int(fixed + max(phases)),
        snapshot=2 * weights_G + weights_D,
        state=2 * weights_G + weights_D + 2 * trained + of_methods,
        num_snapshots=_kept_snapshots(num_snapshots, options.get("keep")),
        grid=_grid_bytes(options, image_shape),
        num_grids=_count_saves(ticks, options.image_snapshot_ticks) + 2,
    )


def counting_device(options, resolution):
    """'cpu' for networks so small that a pass costs nothing, else 'meta'."""
    channels = [kwargs.get("channel_max", 512) for kwargs in (options.G_kwargs.get("synthesis_kwargs", {}), options.D_kwargs)]
    return "cpu" if resolution <= SMALL_RESOLUTION and max(channels) <= SMALL_CHANNELS else "meta"


class _StayOnMeta(torch.overrides.TorchFunctionMode):
    """Tensors without data cannot be moved to a real device, and constructors that try need not succeed."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to and args[0].is_meta:
            args = [arg for arg in args if not isinstance(arg, (torch.device, str))]
            kwargs.pop("device", None)
            if len(args) == 1 and not kwargs:
                return args[0]
        return func(*args, **kwargs)


def planned_device(options) -> str:
    """'cuda', 'mps' or 'cpu'. A dry run may plan for a device that this machine lacks."""
    name = options.get("device", "auto")
    return devices.resolve("auto").type if name == "auto" else name


def _halves(options, device):
    """Whether a run on such a device uses half precision; a GPU that is not here is taken to be able to."""
    if options.get("half") != half_precision.BF16 or (device == "cuda" and not torch.cuda.is_available()):
        return devices.supports_fp16(device)
    return devices.bf16_instructions(device) is not None


def _parameter_count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _tensor_bytes(module):
    return sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])


def _activation_bytes(G, D, options, resolution, device):
    """(bytes for any batch, bytes per image) that autograd keeps in one pass, of G and of D."""

    def num_fp16(kwargs):
        return kwargs.get("num_fp16_res", 0) if _halves(options, planned_device(options)) else 0

    sizes = {"G": [], "D": []}
    pack = choosing.pack_of(options)
    small, large = (pack * packs for packs in _batches_on_meta(choosing.group_of(options)))
    for count in (small, large):
        z = torch.zeros([count, G.z_dim], device=device)
        c = torch.zeros([count, G.c_dim], device=device)
        images, size = _saved_bytes(lambda z=z, c=c: G(z, c), num_fp16(options.G_kwargs.get("synthesis_kwargs", {})), resolution)
        sizes["G"].append(size)
        seen = images.detach().reshape(count // pack, pack * images.shape[1], *images.shape[2:])
        told = torch.zeros([count // pack, D.c_dim], device=device)
        sizes["D"].append(_saved_bytes(lambda seen=seen, told=told: D(seen.requires_grad_(), told), num_fp16(options.D_kwargs), resolution)[1])
    slopes = {name: (pair[1] - pair[0]) / (large - small) for name, pair in sizes.items()}
    return {name: (pair[0] - slopes[name] * small, slopes[name]) for name, pair in sizes.items()}


def _batches_on_meta(group_size):
    """Sizes of the two counting passes, which fall into whole groups of the minibatch standard deviation; what is kept grows linearly with them."""
    fits = all(size % min(group_size, size) == 0 for size in (4, 8))
    return (4, 8) if fits else (group_size, 2 * group_size)


def _saved_bytes(forward, num_fp16_res, resolution):
    """(result, bytes of the activations that its graph holds). The `num_fp16_res` highest resolutions count as half precision."""
    lowest_fp16 = resolution // 2 ** (num_fp16_res - 1) if num_fp16_res > 0 else resolution * 2
    sizes = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            half = tensor.ndim == 4 and tensor.shape[-1] >= lowest_fp16
            sizes[tensor.untyped_storage()._cdata] = (tensor, tensor.numel() * (HALF_BYTES if half else FLOAT_BYTES))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    return result, sum(size for _, size in sizes.values())


def _count_saves(ticks, interval):
    """Saves at tick 0, every `interval` ticks, and at the end."""
    return 1 + ticks // interval + (1 if ticks % interval else 0)


def _kept_snapshots(count, keep):
    if keep is None or keep == "all":
        return count
    parts = str(keep).split(",")
    newest = next((int(part) for part in parts if part.strip().isdigit()), 1)
    return min(count, newest + ("best" in keep))


def _grid_bytes(options, image_shape):
    channels, height, width = image_shape
    screen_width = options.get("snap_res", 7680)
    columns = min(max(screen_width // width, 7), 32)
    rows = min(max(screen_width * 9 // 16 // height, 4), 32)
    return int(columns * rows * channels * height * width * PNG_SHARE)


# ------------------------------------------------------------------------------------------
# Doubts.

FEW_IMAGES = 5000
SHORT_KIMG = 1000


def warnings_for(options, costs, image_shape, num_images, free_disk=None) -> list:
    """Sentences on what will probably disappoint. free_disk: bytes free where the run will lie."""
    device = planned_device(options)
    return [
        *_warn_data(options, num_images),
        *_warn_schedule(options, device),
        *_warn_batch(options),
        *_warn_configuration(options, image_shape, device),
        *_warn_resources(options, costs, device, free_disk),
    ]


def _warn_data(options, num_images):
    augmented = "augment_kwargs" in options or any(entry["name"] == "diffaugment" for entry in options.loss_kwargs.get("methods", ()))
    if num_images < FEW_IMAGES and not augmented:
        remedy = "--aug=ada" if choosing.logits_have_boundary(options) else "--aug=fixed --p=0.3"
        yield f"only {num_images} images and --aug=noaug: D will learn them by heart; use {remedy}"
    elif num_images < 100:
        yield f"only {num_images} images: expect copies of them; more images help more than any setting"
    if num_images < options.batch_size:
        yield f"the data set ({num_images} images) is smaller than one batch ({options.batch_size}): each step sees images several times; lower --batch"


def _warn_schedule(options, device):
    kimg = options.total_kimg - options.get("resume_kimg", 0)
    if kimg <= 0:
        yield f"--kimg={options.total_kimg} is not above --resume-kimg={options.resume_kimg}: nothing will be trained"
    elif kimg < SHORT_KIMG and "resume_pkl" not in options and options.G_kwargs.z_dim == 512:
        yield f"--kimg={options.total_kimg} is short: from scratch these networks need thousands of kimg; good for a trial only (--cfg=tiny is made for that)"
    kimg_per_tick = options.get("kimg_per_tick", presets.KIMG_PER_TICK)
    if options.total_kimg < options.network_snapshot_ticks * kimg_per_tick:
        yield (
            f"--snap={options.network_snapshot_ticks} ticks of {kimg_per_tick:g} kimg are longer than the whole run ({options.total_kimg:g} kimg): there "
            "will be a snapshot at its start and its end alone; lower --snap or --tick"
        )
    external = [metric for metric in options.metrics if not metric.startswith("madr_")]
    if external and not options.get("detectors"):
        yield (
            f"{', '.join(external)} need detector networks that are downloaded on first use; give them as files with --detector name=path, "
            "or use --metrics=none"
        )
    if external and device == "cpu":
        yield f"{', '.join(external)} on a CPU takes hours per snapshot; use --metrics=none and calc_metrics.py on a few snapshots"


def _warn_batch(options):
    group, pack = choosing.group_of(options), choosing.pack_of(options)
    seen, things = options.batch_gpu // pack, "image" if pack == 1 else f"pack of {pack} images"
    if group > 1 and seen == 1:
        yield f"one {things} per microbatch: the minibatch standard deviation is always zero, D cannot see a lack of variety; raise --batch or --batch-gpu"
    elif seen < group:
        things = "" if pack == 1 else f" packs of {pack} images"
        yield f"microbatches of {seen}{things} are smaller than the group of {group} for the minibatch standard deviation: groups of {seen} are used"


def _warn_configuration(options, image_shape, device):
    resolution = image_shape[1]
    resume_pkl = options.get("resume_pkl")
    if resume_pkl is not None and not dnnlib.util.is_url(resume_pkl):
        if not os.path.isfile(resume_pkl):
            yield f"--resume={resume_pkl}: no such file yet"
        if "resume_kimg" not in options:
            yield "--resume counts kimg from 0 again; --resume-kimg sets another beginning, --resume=latest continues a run exactly"
    if device != "cuda":
        if options.num_gpus > 1:
            yield f"--gpus={options.num_gpus} without CUDA: {options.num_gpus} processes share the {device}; that tests the set-up, it does not speed it up"
        if options.G_kwargs.get("synthesis_kwargs", {}).get("num_fp16_res", 0) > 0 and not _halves(options, device):
            asked_bf16 = options.get("half") == half_precision.BF16
            yield half_precision.left_out(device) if asked_bf16 else f"float16 is left out on {device}; everything runs in float32"
        if options.G_kwargs.get("synthesis_kwargs", {}).get("channel_max", 0) >= 512:
            yield f"networks of full width on {device} at {resolution} pixels: expect minutes per kimg; --cfg=tiny is sized for CPUs (up to 64 pixels)"
    if options.G_kwargs.z_dim < 512 and resolution > 64 and "backbone" not in options:
        yield f"--cfg=tiny is made for 16 to 64 pixels, the data set has {resolution}; use --cfg=auto"


def _warn_resources(options, costs, device, free_disk):
    cores = psutil.cpu_count() or 1
    if options.data_loader_kwargs.num_workers * options.num_gpus > max(cores, 3):
        yield (
            f"--workers={options.data_loader_kwargs.num_workers} for each of {options.num_gpus} process(es) on {cores} CPU cores: "
            "they will wait for one another; lower --workers"
        )
    if device == "cuda" and not torch.cuda.is_available():
        return
    if device == "cuda" and options.num_gpus > torch.cuda.device_count():
        yield f"--gpus={options.num_gpus}, but this machine shows {torch.cuda.device_count()}; fine if the run will be elsewhere"
    needed, available, where = _memory(options, costs, device)
    if needed > available:
        yield f"about {gigabytes(needed)} of memory needed, {gigabytes(available)} in {where}; {flag_table.remedies('memory')}"
    if free_disk is not None and costs.disk > free_disk:
        yield f"about {gigabytes(costs.disk)} of disk needed, {gigabytes(free_disk)} free; {flag_table.remedies('disk')}"


def _memory(options, costs, device):
    """(bytes needed, bytes there are, where)."""
    if device == "cuda":
        return costs.memory, torch.cuda.get_device_properties(device).total_memory, "the GPU"
    return costs.memory * options.num_gpus, psutil.virtual_memory().available, "this machine, free now"


def check_unrolled(options, costs, resolution):
    """Refuse to unroll D at sizes where that takes more memory than there is. Raises UserError."""
    (steps, share), device = choosing.unrolled_of(options), planned_device(options)
    if not steps or resolution < UNROLLED_IN_DOUBT or device == "cuda" and not torch.cuda.is_available():
        return
    needed, available, where = _memory(options, costs, device)
    if needed > available:
        method = f"--method=unrolled:k={steps}" + ("" if share == 1 else f",share={share:g}")
        raise UserError(
            f"{method} keeps {steps} steps of D at {resolution} pixels for the step of G, about {gigabytes(needed)} of memory with "
            f"{options.batch_gpu} images at a time, and there are {gigabytes(available)} in {where}: use a smaller k, share={share / 4:g}, so that they see a "
            "quarter of these images, a smaller --batch-gpu or smaller images, or leave --method=unrolled out"
        )


def gigabytes(size) -> str:
    """Bytes as text: '850 MB', '1.2 GB'."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def report(resolved, costs, warnings) -> str:
    """The text that a dry run ends with."""
    options = resolved.options
    lines = ["", "Why these values:", *(f"  - {reason}" for reason in resolved.reasons), "", "What it will cost, about:"]
    lines.append(f"  - parameters: G {costs.parameters_G / 1e6:.2f} million, D {costs.parameters_D / 1e6:.2f} million")
    lines.append(f"  - memory: {gigabytes(costs.memory)} per process, with {options.batch_gpu} images at a time")
    lines.append(
        f"  - disk: {gigabytes(costs.disk)} = {costs.num_snapshots} network snapshots of {gigabytes(costs.snapshot)}, training states of "
        f"{gigabytes(costs.state)}, {costs.num_grids} pictures of at most {gigabytes(costs.grid)}"
    )
    if "base_class_name" in options.loss_kwargs:
        lines.append(f"  - {options.loss_kwargs.class_name} comes on top of that; it states its own time and memory after the first ticks")
    lines += ["", *(["Warnings:", *(f"  - {warning}" for warning in warnings)] if warnings else ["No warnings."])]
    return "\n".join(lines)
