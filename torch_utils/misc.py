"""Small helpers around torch modules and tensors: cached constants, shape checks, samplers, parameter copying, module tables.

Source text inside network snapshots calls these functions by name, so names, argument order and results are fixed.
Must not know: what a generator or a training loop is.
"""

import collections
import contextlib
import functools
import itertools
import re
import threading
import warnings

import numpy as np
import torch

# ---------------------------------------------------------------------------------------------------------------
# Constants.

_CONSTANT_MAX_ENTRIES = 256
_CONSTANT_MAX_BYTES = 1 << 20  # of one entry; larger tensors are made anew on every call
_constants = collections.OrderedDict()  # key -> (tensor, its version when it was made); least recently used first
_constants_lock = threading.Lock()


def _resolve_device(device):
    """'cuda' names another GPU after torch.cuda.set_device(), so the cache needs the index."""
    device = torch.device("cpu") if device is None else torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def constant(value, shape=None, dtype=None, device=None, memory_format=None):
    """A tensor holding `value` (number, list, array), broadcast to `shape`; equal requests share one tensor.

    Made for filters and matrices inside a training step, where building a tensor would mean a copy to the device.
    The result is shared, so it should not be written to. If somebody does, the next request gets a clean one.
    """
    array = np.asarray(value)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    device = _resolve_device(device)
    memory_format = torch.contiguous_format if memory_format is None else memory_format
    shape = None if shape is None else tuple(shape)
    key = (array.shape, array.dtype.str, array.tobytes(), shape, dtype, device, memory_format)

    with _constants_lock:
        tensor, version = _constants.get(key, (None, None))
        if tensor is not None and tensor._version == version:
            _constants.move_to_end(key)
            return tensor

    # An inference-mode tensor could never take part in a backward pass, whoever asks for it later.
    with torch.inference_mode(False), torch.no_grad():
        tensor = torch.as_tensor(array.copy(), dtype=dtype, device=device)
        if shape is not None:
            tensor = tensor.broadcast_to(shape)
        tensor = tensor.clone(memory_format=memory_format)
    if tensor.numel() * tensor.element_size() <= _CONSTANT_MAX_BYTES:
        with _constants_lock:
            _constants[key] = (tensor, tensor._version)
            _constants.move_to_end(key)
            while len(_constants) > _CONSTANT_MAX_ENTRIES:
                _constants.popitem(last=False)
    return tensor


nan_to_num = torch.nan_to_num
symbolic_assert = torch._assert  # a check that stays in a trace

# ---------------------------------------------------------------------------------------------------------------
# Tracing, shapes, profiling.


class suppress_tracer_warnings(warnings.catch_warnings):
    """Inside the block torch.jit's remarks about values frozen into a trace are not shown."""

    def __enter__(self):
        log = super().__enter__()
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        return log


def assert_shape(tensor, ref_shape):
    """Checks tensor.shape against ref_shape, where None accepts any size."""
    if tensor.ndim != len(ref_shape):
        raise AssertionError(f"expected a tensor with {len(ref_shape)} dimensions, {_shape_text(ref_shape)}, got {tuple(tensor.shape)}")
    for dim, (size, wanted) in enumerate(zip(tensor.shape, ref_shape)):
        if wanted is None:
            continue
        if torch.is_tensor(size) or torch.is_tensor(wanted):  # sizes are tensors while a trace is recorded
            with suppress_tracer_warnings():
                size, wanted = int(size), int(wanted)
        if size != wanted:
            raise AssertionError(f"expected a tensor of shape {_shape_text(ref_shape)}, got {tuple(tensor.shape)}: dimension {dim} differs")


def _shape_text(ref_shape):
    return "(" + ", ".join("*" if size is None else str(int(size)) for size in ref_shape) + ")"


def profiled_function(fn):
    """Decorator: the function shows up under its name in torch's profiler; costs nothing while none is running."""

    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        if not torch.autograd._profiler_enabled():
            return fn(*args, **kwargs)
        with torch.autograd.profiler.record_function(fn.__name__):
            return fn(*args, **kwargs)

    return wrapper


# ---------------------------------------------------------------------------------------------------------------
# Sampling.


class InfiniteSampler(torch.utils.data.Sampler):
    """An endless stream of dataset indices, dealt out in turn to `num_replicas` consumers.

    The dataset is shuffled once. Afterwards each index, once issued, trades places with one of the `window` positions
    issued before it (window = window_size * len(dataset)), so an index recurs at varying but bounded distances.
    """

    def __init__(self, dataset, rank=0, num_replicas=1, shuffle=True, seed=0, window_size=0.5):
        if len(dataset) < 1:
            raise ValueError("the dataset is empty")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank must be in [0, {num_replicas}) (got {rank})")
        if not 0 <= window_size <= 1:
            raise ValueError(f"window_size must be in [0, 1] (got {window_size})")
        super().__init__()
        self.dataset = dataset
        self.rank = rank
        self.num_replicas = num_replicas
        self.shuffle = shuffle
        self.seed = seed
        self.window_size = window_size

    def _stream(self):
        """What all consumers together see; a function of the seed alone."""
        length = len(self.dataset)
        if not self.shuffle:
            while True:
                yield from range(length)
        generator = np.random.RandomState(self.seed)
        order = generator.permutation(length).tolist()
        window = round(length * self.window_size)
        for issued in itertools.count(1):
            position = (issued - 1) % length
            yield order[position]
            if window >= 2:
                # Not beyond what has been issued at all: the first pass shows everything once.
                other = (position - int(generator.randint(min(window, issued)))) % length
                order[position], order[other] = order[other], order[position]

    def __iter__(self):
        for position, index in enumerate(self._stream()):
            if position % self.num_replicas == self.rank:
                yield index


# ---------------------------------------------------------------------------------------------------------------
# Parameters and buffers.


def params_and_buffers(module):
    """All parameters, then all buffers."""
    return [tensor for _name, tensor in named_params_and_buffers(module)]


def named_params_and_buffers(module):
    """(dotted name, tensor) of all parameters, then all buffers."""
    return [*module.named_parameters(), *module.named_buffers()]


@torch.no_grad()
def copy_params_and_buffers(src_module, dst_module, require_all=False):
    """Copies by name whatever both modules have; with require_all, dst_module may hold nothing that src_module lacks.

    A shape that differs is an error either way: copying would broadcast, or leave a half-initialised network behind.
    Nothing is written unless everything can be.
    """
    source = dict(named_params_and_buffers(src_module))
    pairs = []
    for name, target in named_params_and_buffers(dst_module):
        if name in source:
            if source[name].shape != target.shape:
                raise ValueError(f"cannot copy '{name}': shape {tuple(source[name].shape)} does not fit {tuple(target.shape)}")
            pairs.append((source[name], target))
        elif require_all:
            raise KeyError(f"'{name}' is missing in the {type(src_module).__name__} to copy from")
    for tensor, target in pairs:
        target.copy_(tensor)


@contextlib.contextmanager
def evaluation_mode(*modules):
    """Inside: eval() for all parts of the modules, so that a look moves no running average. Each part's mode comes back."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextlib.contextmanager
def ddp_sync(module, sync):
    """Inside the block a DistributedDataParallel module averages gradients over processes only if `sync`."""
    if sync or not isinstance(module, torch.nn.parallel.DistributedDataParallel):
        yield
    else:
        with module.no_sync():
            yield


@torch.no_grad()
def check_ddp_consistency(module, ignore_regex=None):
    """Raises in every process if any of them holds other values than process 0 (NaNs count as equal).

    ignore_regex matches whole names of the form '<class name>.<dotted name>'.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    names, differs = [], []
    for name, tensor in named_params_and_buffers(module):
        full_name = f"{type(module).__name__}.{name}"
        if ignore_regex is not None and re.fullmatch(ignore_regex, full_name):
            continue
        own = tensor.detach().reshape(-1)  # not every backend takes zero-dimensional or strided tensors
        reference = own.clone(memory_format=torch.contiguous_format)
        torch.distributed.broadcast(reference, src=0)
        equal = (own == reference) | ((own != own) & (reference != reference))
        names.append(full_name)
        differs.append((~equal).any())
    if not names:
        return
    # One process alone would raise while the others wait for it for ever.
    verdict = torch.stack(differs).to(torch.int32)
    torch.distributed.all_reduce(verdict, op=torch.distributed.ReduceOp.MAX)
    bad = [name for name, flag in zip(names, verdict.tolist()) if flag]
    if bad:
        raise AssertionError(f"{len(bad)} tensors differ between processes: {', '.join(bad[:5])}{', ...' if len(bad) > 5 else ''}")


# ---------------------------------------------------------------------------------------------------------------
# The table printed at start-up.


def _record_calls(module, inputs, max_nesting):
    """Runs module(*inputs); returns its result and, in the order they finished, (submodule, output tensors) of the calls
    that lie at most max_nesting deep."""
    calls = []
    depth = 0

    def enter(_submodule, _inputs):
        nonlocal depth
        depth += 1

    def leave(submodule, _inputs, result):
        nonlocal depth
        depth -= 1
        if depth <= max_nesting:
            results = result if isinstance(result, (tuple, list)) else [result]
            calls.append((submodule, [(tuple(t.shape), t.dtype) for t in results if isinstance(t, torch.Tensor)]))

    with contextlib.ExitStack() as hooks:
        for submodule in module.modules():
            hooks.callback(submodule.register_forward_pre_hook(enter).remove)
            hooks.callback(submodule.register_forward_hook(leave).remove)
        result = module(*inputs)
    return result, calls


def _summary_rows(module, calls, skip_redundant):
    """Table rows without the total: a tensor is counted where it is first owned, a module shown at its every call."""
    names = {submodule: name for name, submodule in module.named_modules()}
    counted = set()

    def count(tensors):
        new = {id(t): t.numel() for t in tensors if id(t) not in counted}
        counted.update(new)
        return sum(new.values()), bool(new)

    # A container counts what its children have not; those finish before it does.
    rows = []
    for submodule, outputs in calls:
        num_params, has_params = count(submodule.parameters())
        num_buffers, has_buffers = count(submodule.buffers())
        if skip_redundant and submodule is not module and not (has_params or has_buffers) and any(submodule.children()):
            continue
        name = "<top-level>" if submodule is module else names[submodule]
        shapes = [(str(list(shape)), str(dtype).split(".")[-1]) for shape, dtype in outputs] or [("-", "-")]
        rows.append([name + (":0" if len(shapes) > 1 else ""), str(num_params or "-"), str(num_buffers or "-"), *shapes[0]])
        rows += [[f"{name}:{i}", "-", "-", *shape] for i, shape in enumerate(shapes) if i > 0]
    return rows


def print_module_summary(module, inputs, max_nesting=3, skip_redundant=True):
    """Prints a table of the calls that module(*inputs) makes; returns what that call returns."""
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"only a plain torch module can be summarised (got {type(module).__name__})")
    outputs, calls = _record_calls(module, inputs, max_nesting)
    head = [[type(module).__name__, "Parameters", "Buffers", "Output shape", "Datatype"]]
    body = _summary_rows(module, calls, skip_redundant)
    num_params = sum(t.numel() for t in module.parameters())
    num_buffers = sum(t.numel() for t in module.buffers())
    total = [["Total", str(num_params), str(num_buffers), "-", "-"]]

    widths = [max(len(row[i]) for row in head + body + total) for i in range(5)]
    rule = [["-" * width for width in widths]]
    print()
    for row in head + rule + body + rule + total:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)))
    print()
    return outputs
