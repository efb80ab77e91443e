"""Building what a run consists of: data, networks, augmentation, sample grid. Each function builds one thing.

Must not know the order of training, files of the run, or who calls.
"""

import contextlib
import gc
import re
import signal

import numpy as np
import torch

import dnnlib
import legacy
from dnnlib.errors import UserError
from torch_utils import custom_ops, distributed, misc
from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix, plugins
from training import loss, phases, sampler, snapshots
from training.data import foreign
from training.gan import backbones, judge, pretrained

# Sets up to this size (uncompressed) are held in memory when training on a CPU: decoding PNGs over and over would take
# a good part of a core that the networks need.
IN_MEMORY_MB = 1024
# Python's own thresholds are 700, 10, 10: new objects between two searches for unreachable cycles, and how often older ones are searched.
GARBAGE_THRESHOLDS = 10000, 10, 10
# Buffers that training itself moves; ranks see different samples, so they are averaged.
RUNNING_BUFFERS = re.compile(r"(^|\.)(w_avg|running_mean|running_var)$")


@contextlib.contextmanager
def backend_settings(cudnn_benchmark, allow_tf32):
    """Process-wide switches, put back at the end."""
    switches = [
        (torch.backends.cudnn, "benchmark", cudnn_benchmark),
        (torch.backends.cuda.matmul, "allow_tf32", allow_tf32),
        (torch.backends.cudnn, "allow_tf32", allow_tf32),
        (conv2d_gradfix, "enabled", True),
        (grid_sample_gradfix, "enabled", True),
    ]
    previous = [getattr(owner, name) for owner, name, _ in switches]
    for owner, name, value in switches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(switches, previous):
            setattr(owner, name, value)


@contextlib.contextmanager
def rare_garbage_collection():
    """Inside, Python searches seldom for unreachable cycles, and not among what is there already: libraries, networks, data.

    A step makes thousands of objects and hardly a cycle; to search took 4% of the CPU time of a small network's steps. A program that
    has set its own objects aside (gc.freeze) keeps them so: the search before training takes a third of a second where there are many.
    """
    previous, set_aside = gc.get_threshold(), gc.get_freeze_count() > 0
    if not set_aside:
        gc.collect()
        gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*previous)
        if not set_aside:
            gc.unfreeze()


def check_unchanged(saved, present, path):
    """Refuse to go on with other images. saved, present: content fingerprints."""
    if saved != present:
        raise UserError(
            f"--data={path}: the training set has changed since this run stopped (content {saved[:12]} then, {present[:12]} now); "
            "restore it, or start a new run with --resume=<network-snapshot.pkl>"
        )


def build_training_set(training_set_kwargs, device, G_kwargs=None):
    """The data set, and whether its images come from memory. G_kwargs: options of the generator, which decide what sizes there may be."""
    training_set = foreign.as_dataset(dnnlib.util.construct_class_by_name(**training_set_kwargs))
    in_memory = device.type == "cpu" and training_set.use_cache(IN_MEMORY_MB)
    resolution = training_set.resolution
    backbone = backbones.of_generator(G_kwargs or {})
    if backbone in backbones.SIZES:
        backbones.check_size(resolution, f"{training_set.name} has images of", backbone)
    elif resolution < 4 or resolution & (resolution - 1):
        size = max(1 << (resolution.bit_length() - 1), 4)
        raise UserError(
            f"{training_set.name}: the networks need a power of two of at least 4 px (got {resolution}x{resolution}); "
            f"convert the set with dataset_tool.py --width={size} --height={size} --transform=center-crop"
        )
    return training_set, in_memory


def _leave_interrupts_to_the_loop(_worker):
    # A terminal sends Ctrl-C to all; without its readers the loop could not finish the step after which it saves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def build_data_iterator(training_set, in_memory, data_loader_kwargs, device, batch_size, batch_gpu, rank, num_gpus, random_seed, start_nimg):
    """Endless iterator of this rank's microbatches: (uint8 [batch_gpu, C, H, W], float [batch_gpu, c_dim])."""
    order = sampler.EpochOrder(len(training_set), phases.derived_seed(random_seed, 0))
    batches = sampler.MicrobatchSampler(order, batch_size, batch_gpu, rank, num_gpus, start_nimg)
    kwargs = dict(data_loader_kwargs)
    kwargs["pin_memory"] = bool(kwargs.get("pin_memory")) and device.type == "cuda"
    if in_memory:
        kwargs["num_workers"] = 0
    if not kwargs.get("num_workers"):
        kwargs.pop("prefetch_factor", None)
    kwargs["worker_init_fn"] = _leave_interrupts_to_the_loop
    return iter(torch.utils.data.DataLoader(dataset=training_set, batch_sampler=batches, **kwargs))


def all_labels(training_set):
    """Labels of all images, float32 [num_images, c_dim], to draw the generator's labels from."""
    if not training_set.has_labels:
        return torch.zeros([1, training_set.label_dim])
    return torch.from_numpy(np.stack([training_set.get_label(i) for i in range(len(training_set))]).astype(np.float32))


def prepare_kernels(kernels, device, is_first):
    """Compile the kernels of this device, or take those that are there; 'off' does without. One process of several tells of it."""
    plugins.choose(kernels != "off")
    with custom_ops.told(is_first):
        plugins.prepare(device.type)


def build_networks(G_kwargs, D_kwargs, training_set, device, random_seed):
    """G and D with the same initial weights on every rank."""
    common = dict(c_dim=training_set.label_dim, img_resolution=training_set.resolution, img_channels=training_set.num_channels)
    torch.manual_seed(phases.derived_seed(random_seed, 1))
    networks = []
    for kwargs in (G_kwargs, D_kwargs):
        network = dnnlib.util.construct_class_by_name(**{**common, **kwargs})  # a D that judges packs takes more channels
        networks.append(network.train().requires_grad_(False).to(device))
    return networks


def on_this_device(opt_kwargs, device):
    """Optimizer keywords as this device runs them best: where the C++ kernels are, Adam takes one pass over all of a network.

    A run that goes on keeps what its optimizers' state says: that is restored with it.
    """
    if device.type != "cpu" or not plugins.in_use("cpu") or {"fused", "foreach"} & opt_kwargs.keys():
        return opt_kwargs
    is_adam = dnnlib.util.get_obj_by_name(opt_kwargs["class_name"]) is torch.optim.Adam
    return {**opt_kwargs, "fused": True} if is_adam else opt_kwargs


def load_pretrained(resume_pkl, targets, partial, trust):
    """Fill {G, D, G_ema} from a network pickle; returns a line telling what was copied."""
    data = legacy.open_network(resume_pkl, trust=trust)
    missing = [key for key in targets if data.get(key) is None]
    if missing:
        raise UserError(f"--resume={resume_pkl}: holds no {', '.join(missing)}; training goes on only from a whole snapshot")
    return pretrained.load_matching(data, targets, resume_pkl, partial)


def print_summaries(G, D, batch_gpu, device):
    """The module tables, from one small pass of each network."""
    z = torch.zeros([batch_gpu, G.z_dim], device=device)
    c = torch.zeros([batch_gpu, G.c_dim], device=device)
    with torch.no_grad(), misc.evaluation_mode(G, D):
        img = misc.print_module_summary(G, [z, c])
        pack = D.img_channels // G.img_channels  # images that D judges as one
        seen = judge.packed(img, pack)
        misc.print_module_summary(D, [seen, seen.new_zeros([len(seen), D.c_dim])])


def build_augment_pipe(augment_kwargs, augment_p, ada_target, device):
    """The pipe with its p set, or None when nothing would ever be augmented."""
    if augment_kwargs is None or not (augment_p > 0 or ada_target is not None):
        return None
    pipe = dnnlib.util.construct_class_by_name(**augment_kwargs).train().requires_grad_(False).to(device)
    pipe.p.copy_(torch.as_tensor(augment_p))
    return pipe


def build_loss(loss_kwargs, G, D, augment_pipe, device):
    """The loss, whatever class it is of, with every method of loss.Loss."""
    made = dnnlib.util.construct_class_by_name(
        device=device, G_mapping=G.mapping, G_synthesis=G.synthesis, D=D, augment_pipe=augment_pipe, **loss_kwargs
    )
    return loss.as_loss(made)


def build_grid(training_set, G, random_seed, batch_gpu, device, snap_res, from_seeds=True):
    """Fixed reals, latents and labels of the sample grid: (grid_size, images, labels, [z batches], [c batches]).

    from_seeds: cell i has the latent of seed i, as generate.py draws it. Without: those of runs that earlier versions began.
    """
    grid_size, images, labels = snapshots.setup_snapshot_image_grid(training_set, random_seed=random_seed, max_size=snap_res)
    if from_seeds:
        z = torch.from_numpy(np.concatenate([np.random.RandomState(seed).randn(1, G.z_dim) for seed in range(len(images))]).astype(np.float32))
    else:
        z = torch.randn([len(images), G.z_dim], generator=torch.Generator().manual_seed(phases.derived_seed(random_seed, 2)))
    c = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    return grid_size, images, labels, [part.to(device) for part in z.split(batch_gpu)], [part.to(device) for part in c.split(batch_gpu)]


@torch.no_grad()
def is_finite(module):
    """Whether no parameter or buffer holds a nan or an infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in [*module.parameters(), *module.buffers()])


def running_buffers(modules):
    """The buffers that training moves, as a list that stays valid."""
    return [(name, buffer) for module in modules for name, buffer in module.named_buffers() if RUNNING_BUFFERS.search(name)]


@torch.no_grad()
def join_running_buffers(buffers, before):
    """Make the buffers that training moves equal on all ranks.

    w_avg follows one microbatch after the other, so the ranks' displacements add up, as if one process had seen all
    microbatches (apart from terms of (1 - decay)^2); running statistics of batch normalisation are averaged.
    before: their values at the beginning of the step.
    """
    if distributed.get_world_size() == 1:
        return
    for (name, buffer), former in zip(buffers, before, strict=True):
        if not buffer.is_floating_point():
            continue
        displacement = distributed.all_reduce_mean_(buffer - former)
        buffer.copy_(former + displacement * (distributed.get_world_size() if name.endswith("w_avg") else 1))
