"""What a run leaves behind to look at and to use: sample grids, network pickles, and which of them to keep.

Must not know the loop, losses or optimizers.
"""

import copy
import io
import json
import os
import pickle
import re

import numpy as np
import PIL.Image
import torch

from dnnlib import files
from dnnlib.errors import UserError
from torch_utils import metric_lines, misc
from torch_utils.snapshot_names import list_network_snapshots

CELLS_FILE = "fakes_cells.json"
SAMPLES = "fakes{position}.png"
SAMPLES_REGEX = re.compile(r"^fakes(\d+)(?:-(\d{3}))?\.png$")


# ----------------------------------------------------------------------------------------------------------------
# Sample grids


def setup_snapshot_image_grid(training_set, random_seed=0, max_size=None):
    """Choose the real images and labels of the sample grid.

    Returns (grid_size (columns, rows), images uint8 [N, C, H, W], labels [N, c_dim]). With labels, one row per class.
    The grid fills a 7680 x 4320 screen, at least 7 x 4 and at most 32 x 32 images; max_size (--snap-res) shrinks that
    screen to max_size pixels of width.
    """
    _, H, W = training_set.image_shape
    screen_w, screen_h = (7680, 4320) if max_size is None else (max_size, max_size * 9 // 16)
    columns, rows = int(np.clip(screen_w // W, 7, 32)), int(np.clip(screen_h // H, 4, 32))
    random = np.random.RandomState(random_seed)
    if not training_set.has_labels:
        order = random.permutation(len(training_set))
        indices = [int(order[i % len(order)]) for i in range(columns * rows)]
    else:
        members = {}  # raw label -> indices
        for index in range(len(training_set)):
            members.setdefault(tuple(np.atleast_1d(training_set.get_details(index).raw_label).tolist()), []).append(index)
        classes = sorted(members)
        if len(classes) > rows:  # a different spread over many classes for every seed, always the same for one seed
            classes = [classes[i] for i in sorted(random.permutation(len(classes))[:rows])]
        shuffled = {label: random.permutation(members[label]) for label in classes}
        indices = []
        for row in range(rows):  # with few classes, each comes in several rows, with further images
            images, first = shuffled[classes[row % len(classes)]], row // len(classes) * columns
            indices += [int(images[i % len(images)]) for i in range(first, first + columns)]
    images, labels = zip(*[training_set[index] for index in indices])
    return (columns, rows), np.stack(images), np.stack(labels)


def save_image_grid(img, fname, drange, grid_size):
    """Write images [N, C, H, W] with values in drange = [darkest, brightest] as one PNG of grid_size (columns, rows)."""
    darkest, brightest = drange
    columns, _rows = grid_size
    levels = np.interp(img, (darkest, brightest), (0, 255)).round().astype(np.uint8)
    if levels.shape[1] not in (1, 3):
        raise UserError(f"{fname}: a picture needs 1 or 3 channels (got {levels.shape[1]})")
    tiles = list(np.moveaxis(levels, 1, 3))
    sheet = np.vstack([np.hstack(tiles[first : first + columns]) for first in range(0, len(tiles), columns)])
    buffer = io.BytesIO()
    PIL.Image.fromarray(sheet.squeeze(2) if sheet.shape[2] == 1 else sheet).save(buffer, format="PNG")
    files.atomic_write_bytes(fname, buffer.getvalue())


@torch.no_grad()
def render_grid(G_ema, grid_z, grid_c):
    """Images of the fixed latents, as a float32 array [N, C, H, W]. grid_z, grid_c: lists of batches."""
    return torch.cat([G_ema(z=z, c=c, noise_mode="const").cpu() for z, c in zip(grid_z, grid_c)]).to(torch.float32).numpy()


def describe_cells(grid_size, labels):
    """JSON text: the seed and the label of each cell of the sample grid, a line per cell. labels [N, c_dim], for c_dim = 0 none."""
    columns, _rows = grid_size
    labels = np.asarray(labels)
    are_classes = labels.shape[1] > 0 and bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())
    cells = []
    for seed, label in enumerate(labels):
        cell = dict(row=seed // columns, column=seed % columns, seed=seed)
        if are_classes:
            cell["class"] = int(label.argmax())
        elif len(label):
            cell["label"] = label.tolist()
        cells.append(json.dumps(cell))
    how = "generate.py --network=SNAPSHOT --seeds=SEED, with --class=CLASS or --label=LABEL where a cell has one, draws the picture of a cell"
    head = json.dumps(dict(pictures="fakes*.png", how=how, columns=columns, rows=grid_size[1], truncation_psi=1, noise_mode="const"))
    return head[:-1] + ', "cells": [\n' + ",\n".join(cells) + "\n]}\n"


# ----------------------------------------------------------------------------------------------------------------
# Network pickles


def build_snapshot_data(G, D, G_ema, augment_pipe, training_set_kwargs):
    """The dict that a network snapshot holds: evaluation copies on the CPU, upstream's keys, nothing else."""
    data = dict(training_set_kwargs=dict(training_set_kwargs))
    for name, module in [("G", G), ("D", D), ("G_ema", G_ema), ("augment_pipe", augment_pipe)]:
        if module is not None:
            # Gradients are left behind, or every snapshot would carry them.
            memo = {id(p.grad): None for p in module.parameters() if p.grad is not None}
            module = copy.deepcopy(module, memo).eval().requires_grad_(False).cpu()
        data[name] = module
    return {key: data[key] for key in ["G", "D", "G_ema", "augment_pipe", "training_set_kwargs"]}


def save_network_snapshot(path, snapshot_data):
    with files.atomic_open(path) as f:
        pickle.dump(snapshot_data, f)


def parse_keep(text):
    """'3,best' -> (3, True); '5' -> (5, False); 'all' or None -> (None, False); 'best' -> (1, True)."""
    if text is None or text == "all":
        return None, False
    parts = [part.strip() for part in str(text).split(",")]
    numbers = [part for part in parts if part.isdigit() and int(part) > 0]
    if len(numbers) > 1 or any(part not in numbers and part != "best" for part in parts):
        raise UserError(f"--keep must be a positive number of snapshots, optionally with 'best', or 'all' (got {text!r}); example: --keep=3,best")
    return (int(numbers[0]) if numbers else 1), "best" in parts


def prune_network_snapshots(run_dir, keep, spared=()):
    """Delete all network snapshots but the newest `keep` (None: all are kept) and the files named in `spared`."""
    if keep is None:
        return
    for _kimg, name in list_network_snapshots(run_dir)[:-keep]:
        if name not in spared:
            os.remove(os.path.join(run_dir, name))


def metric_results(run_dir, metric):
    """{snapshot file name: value of the first result} from metric-<name>.jsonl; {} if there is none. A cut-off line is passed over,

    and so is a line of another number: a quick look with few images must not stand in for the training's own.
    """
    path = os.path.join(run_dir, f"metric-{metric}.jsonl")
    lines = []
    if os.path.isfile(path):
        with open(path) as f:
            for line in f:
                try:
                    lines.append(json.loads(line))
                except ValueError:  # the process was killed while it wrote this
                    continue
    own = metric_lines.alike([line for line in lines if line.get("snapshot_pkl")])
    return {os.path.basename(line["snapshot_pkl"]): next(iter(line["results"].values())) for line in own}


def best_snapshot(run_dir, metric, higher_is_better):
    """File name of the snapshot, among those still there, with the best value of a metric; None without values."""
    present = {name: value for name, value in metric_results(run_dir, metric).items() if os.path.isfile(os.path.join(run_dir, name))}
    if not present:
        return None
    return (max if higher_is_better else min)(present, key=present.get)


# ----------------------------------------------------------------------------------------------------------------
# Starting from another run's networks


def compare_modules(source, target):
    """Rows (name, verdict, source shape, target shape) for every tensor; verdict: same | missing | extra | differs."""
    in_source = dict(misc.named_params_and_buffers(source))
    rows = []
    for name, tensor in misc.named_params_and_buffers(target):
        other = in_source.pop(name, None)
        if other is None:
            rows.append((name, "missing", None, tuple(tensor.shape)))
        else:
            verdict = "same" if other.shape == tensor.shape else "differs"
            rows.append((name, verdict, tuple(other.shape), tuple(tensor.shape)))
    rows += [(name, "extra", tuple(tensor.shape), None) for name, tensor in in_source.items()]
    return rows


def _flags_of(network):
    """What decides the shapes of G, {what to type: value}, as far as its constructor arguments and attributes tell."""
    kwargs = dict(getattr(network, "init_kwargs", {}))
    synthesis, mapping = dict(kwargs.get("synthesis_kwargs", kwargs)), dict(kwargs.get("mapping_kwargs", {}))
    widths = {"--cbase": synthesis.get("channel_base"), "--cmax": synthesis.get("channel_max"), "--map-depth": mapping.get("num_layers")}
    attributes = dict(resolution="img_resolution", channels="img_channels", classes="c_dim", latents="z_dim")
    return {**widths, **{name: getattr(network, attribute, None) for name, attribute in attributes.items()}}


def _how_to_agree(source, target):
    """Sentences on how to get networks like the pickle's, for what differs alone."""
    theirs, ours = _flags_of(source), _flags_of(target)
    differing = [name for name, value in theirs.items() if value is not None and value != ours[name]]
    sentences = [f"use {name}={theirs[name]} (here {ours[name]})" for name in differing if name.startswith("--")]
    if "latents" in differing:
        sentences.append(f"use another --cfg: the pickle's latents have {theirs['latents']} values, here {ours['latents']}")
    if "resolution" in differing:
        size = theirs["resolution"]
        sentences.append(
            f"use data of {size}x{size} pixels (here {ours['resolution']}x{ours['resolution']}): dataset_tool.py --width={size} --height={size}"
        )
    if "channels" in differing:
        kinds = {1: "grey images (1 channel)", 3: "RGB images (3 channels)"}
        theirs_kind, ours_kind = (kinds.get(flags["channels"], f"images of {flags['channels']} channels") for flags in (theirs, ours))
        sentences.append(f"use data of {theirs_kind}, while --data holds {ours_kind}")
    if "classes" in differing and not theirs["classes"]:
        sentences.append("leave out --cond: the pickle was trained without labels")
    elif "classes" in differing and not ours["classes"]:
        sentences.append(f"add --cond=1, with data whose labels have {theirs['classes']} values: the pickle was trained with labels")
    elif "classes" in differing:
        sentences.append(f"use data whose labels have {theirs['classes']} values, or as many classes (here {ours['classes']})")
    return sentences


def load_matching(sources, targets, resume_pkl, partial):
    """Copy weights from a pickle's networks into ours: all of them, or, with `partial`, those that match.

    sources, targets: dicts of modules with keys G, D, G_ema. Raises UserError with a table when tensors are missing,
    left over or of another shape and `partial` is off; nothing is copied then. Returns a line that says what was done.
    """
    lines, counts = [], {"same": 0, "missing": 0, "differs": 0, "extra": 0}
    for key, target in targets.items():
        for name, verdict, source_shape, target_shape in compare_modules(sources[key], target):
            counts[verdict] += 1
            if verdict != "same":
                lines.append(f"  {key + '.' + name:56s} {verdict:8s} pickle {source_shape or '-'!s:18} here {target_shape or '-'!s}")
    if lines and not partial:
        remedies = _how_to_agree(sources["G"], targets["G"])
        table = "\n".join(lines[:20] + ([f"  ... and {len(lines) - 20} more"] if len(lines) > 20 else []))
        raise UserError(
            f"--resume={resume_pkl} does not fit these networks: {counts['same']} tensors match, {counts['differs']} differ in shape, "
            f"{counts['missing']} are missing in the pickle, {counts['extra']} are left over:\n{table}\n"
            + ("To make them agree: " + "; ".join(remedies) + ". Or " if remedies else "Use ")
            + "--resume-partial to copy only what matches."
        )
    for key, target in targets.items():
        with torch.no_grad():
            in_source = dict(misc.named_params_and_buffers(sources[key]))
            for name, tensor in misc.named_params_and_buffers(target):
                if name in in_source and in_source[name].shape == tensor.shape:
                    tensor.copy_(in_source[name].detach())
    return f"Copied {counts['same']} tensors" + (f"; left at their initial values: {counts['missing'] + counts['differs']}" if lines else "") + "."
