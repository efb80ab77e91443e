"""torch_utils.misc: constants, shapes, the sampler, parameter copying, consistency between processes, the module table."""

import inspect
import itertools
import re
import warnings

import numpy as np
import pytest
import torch

from tests import warm_start
from torch_utils import misc


@pytest.mark.parametrize(
    "name",
    [
        "constant",
        "assert_shape",
        "profiled_function",
        "params_and_buffers",
        "named_params_and_buffers",
        "copy_params_and_buffers",
        "ddp_sync",
        "check_ddp_consistency",
        "print_module_summary",
    ],
)
def test_signature(golden, name):
    assert str(inspect.signature(getattr(misc, name))) == golden("api.json")["torch_utils.misc"][name]


def test_sampler_signature(golden):
    wanted = golden("api.json")["torch_utils.misc"]["InfiniteSampler"]["methods"]["__init__"]
    assert str(inspect.signature(misc.InfiniteSampler.__init__)) == wanted
    assert issubclass(misc.InfiniteSampler, torch.utils.data.Sampler)
    assert issubclass(misc.suppress_tracer_warnings, warnings.catch_warnings)


# ---------------------------------------------------------------------------------------------------------------


def test_constant_values_shapes_types():
    assert misc.constant(3).shape == () and misc.constant(3).dtype == torch.get_default_dtype()
    assert torch.equal(misc.constant([1, 2], shape=[3, 2]), torch.tensor([[1.0, 2.0]] * 3))
    assert misc.constant(np.arange(3), dtype=torch.int64).tolist() == [0, 1, 2]
    nhwc = misc.constant(1, shape=[2, 3, 4, 5], memory_format=torch.channels_last)
    assert nhwc.is_contiguous(memory_format=torch.channels_last)
    assert torch.isnan(misc.constant([float("nan"), 1])).tolist() == [True, False]
    with pytest.raises(RuntimeError):
        misc.constant([1, 2], shape=[3])


def test_constant_is_shared_and_told_apart():
    assert misc.constant([1, 2]) is misc.constant([1, 2])
    assert misc.constant([1, 2]) is not misc.constant([1, 2], dtype=torch.float64)
    assert misc.constant([1, 2]) is not misc.constant([[1, 2]])
    assert misc.constant(1).item() == 1 and misc.constant(1.5).item() == 1.5
    assert misc.constant(0.0).item() == 0 and str(misc.constant(-0.0).item()) == "-0.0"


def test_constant_survives_being_written_to():
    misc.constant([5, 6]).mul_(100)
    assert misc.constant([5, 6]).tolist() == [5, 6]
    array = np.float32([7, 8])
    tensor = misc.constant(array)
    array[:] = 0
    assert tensor.tolist() == [7, 8]


def test_constant_made_in_inference_mode_takes_part_in_backward():
    with torch.inference_mode():
        misc.constant([1.25, 2.5])
    x = torch.ones(2, requires_grad=True)
    (x * misc.constant([1.25, 2.5])).sum().backward()
    assert x.grad.tolist() == [1.25, 2.5]


def test_constant_cache_is_bounded():
    for i in range(misc._CONSTANT_MAX_ENTRIES + 50):
        misc.constant([i, -i])
    assert len(misc._constants) <= misc._CONSTANT_MAX_ENTRIES
    big = misc.constant(0, shape=[misc._CONSTANT_MAX_BYTES])
    assert all(tensor is not big for tensor, _version in misc._constants.values())


def test_symbolic_assert_passes_and_fails():
    misc.symbolic_assert(torch.tensor(True), "never said")
    with pytest.raises(AssertionError, match="said"):
        misc.symbolic_assert(torch.tensor(False), "said")


def test_nan_to_num():
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 2])
    assert misc.nan_to_num(x, nan=0, posinf=1e5, neginf=-1e5).tolist() == [0, 1e5, -1e5, 2]


# ---------------------------------------------------------------------------------------------------------------


def test_assert_shape():
    misc.assert_shape(torch.zeros(2, 3), [2, None])
    misc.assert_shape(torch.zeros(2, 3), [None, torch.tensor(3)])
    for wrong in ([2], [2, 3, 1], [2, 4], [None, 2], [torch.tensor(3), 3]):
        with pytest.raises(AssertionError, match="expected a tensor"):
            misc.assert_shape(torch.zeros(2, 3), wrong)


def test_suppress_tracer_warnings():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with misc.suppress_tracer_warnings():
            warnings.warn("hidden", torch.jit.TracerWarning)
            warnings.warn("shown", UserWarning)
        warnings.warn("shown too", torch.jit.TracerWarning)
    assert [str(w.message) for w in seen] == ["shown", "shown too"]


def test_profiled_function_is_transparent_and_named():
    @misc.profiled_function
    def a_step_worth_naming(x, *, factor=2):
        """What it does."""
        return x * factor

    assert a_step_worth_naming.__name__ == "a_step_worth_naming" and a_step_worth_naming.__doc__ == "What it does."
    assert a_step_worth_naming(3, factor=5) == 15
    with torch.profiler.profile() as profile:
        a_step_worth_naming(torch.ones(2))
    assert "a_step_worth_naming" in [event.key for event in profile.key_averages()]


# ---------------------------------------------------------------------------------------------------------------


def take(count, **kwargs):
    return list(itertools.islice(iter(misc.InfiniteSampler(range(10), **kwargs)), count))


def test_sampler_first_pass_is_a_permutation_and_seeded():
    assert sorted(take(10)) == list(range(10))
    assert take(40) == take(40) and take(40) != take(40, seed=1)
    assert take(25, shuffle=False) == [i % 10 for i in range(25)]
    assert take(30, window_size=0) == take(10, window_size=0) * 3


def test_sampler_deals_the_same_stream_to_all_ranks():
    stream = take(60, seed=3)
    for rank in range(3):
        assert take(20, rank=rank, num_replicas=3, seed=3) == stream[rank::3]


def test_sampler_covers_evenly_and_reshuffles():
    stream = np.array(take(10 * 400)).reshape(400, 10)
    counts = np.bincount(stream.ravel(), minlength=10)
    assert counts.min() > 300 and counts.max() < 500
    assert len({tuple(row) for row in stream.tolist()}) > 350
    # With a window of half the set nothing recurs sooner than half a pass later.
    last, gaps = {}, []
    for position, index in enumerate(stream.ravel().tolist()):
        gaps.append(position - last.get(index, -10))
        last[index] = position
    assert min(gaps) >= 6 and len(set(gaps)) > 4


def test_sampler_in_a_data_loader():
    data = torch.utils.data.TensorDataset(torch.arange(6))
    loader = torch.utils.data.DataLoader(data, sampler=misc.InfiniteSampler(data, seed=1), batch_size=4)
    batches = [batch.tolist() for (batch,) in itertools.islice(loader, 3)]
    assert [len(b) for b in batches] == [4, 4, 4] and sorted(sum(batches, [])[:6]) == list(range(6))


@pytest.mark.parametrize("wrong", [dict(rank=1), dict(rank=-1), dict(window_size=1.5)])
def test_sampler_refuses(wrong):
    with pytest.raises(ValueError):
        misc.InfiniteSampler(range(10), **wrong)
    with pytest.raises(ValueError, match="empty"):
        misc.InfiniteSampler([])


# ---------------------------------------------------------------------------------------------------------------


def make_net(width=3):
    net = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.BatchNorm1d(width))
    net[0].bias.requires_grad_(False)
    return net


def test_params_and_buffers():
    net = make_net()
    names = [name for name, _tensor in misc.named_params_and_buffers(net)]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert [t is u for t, (_n, u) in zip(misc.params_and_buffers(net), misc.named_params_and_buffers(net))] == [True] * 7


def test_copy_params_and_buffers():
    src, dst = make_net(), make_net()
    src[1].running_mean.fill_(7)
    src[0].weight.requires_grad_(False)
    misc.copy_params_and_buffers(src, dst, require_all=True)
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(misc.params_and_buffers(src), misc.params_and_buffers(dst)))
    assert dst[0].weight.requires_grad and not dst[0].bias.requires_grad


def test_copy_params_and_buffers_partly():
    src, dst = torch.nn.Sequential(torch.nn.Linear(2, 3)), make_net()
    misc.copy_params_and_buffers(src, dst)
    assert torch.equal(src[0].weight, dst[0].weight)
    with pytest.raises(KeyError, match="1.weight"):
        misc.copy_params_and_buffers(src, dst, require_all=True)


def test_copy_params_and_buffers_never_broadcasts_nor_stops_half_way():
    src, dst = make_net(1), make_net(3)
    before = [t.clone() for t in misc.params_and_buffers(dst)]
    with pytest.raises(ValueError, match="0.weight.*shape"):
        misc.copy_params_and_buffers(src, dst)
    assert all(torch.equal(a, b) for a, b in zip(before, misc.params_and_buffers(dst)))


# ---------------------------------------------------------------------------------------------------------------


def _consistency_worker(rank, init_file, queue):
    torch.distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    net = make_net()
    torch.nn.init.constant_(net[0].weight, 1)
    torch.nn.init.constant_(net[0].bias, float("nan"))
    results = []
    misc.check_ddp_consistency(net)
    with torch.no_grad():
        net[1].running_mean[1] = rank
    try:
        misc.check_ddp_consistency(net)
        results.append("equal")
    except AssertionError as error:
        results.append(str(error))
    misc.check_ddp_consistency(net, ignore_regex=r"Sequential\.1\.running_.*")

    ddp = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1, bias=False))
    for sync in (False, True):
        ddp.zero_grad()
        with misc.ddp_sync(ddp, sync):
            ddp(torch.full([1, 1], float(rank))).sum().backward()
        results.append(ddp.module.weight.grad.item())
    queue.put((rank, results))
    torch.distributed.destroy_process_group()


def test_two_processes(tmp_path):
    context = warm_start.CONTEXT
    queue = context.Queue()
    workers = [context.Process(target=_consistency_worker, args=(rank, tmp_path / "init", queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = dict(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
    for rank in range(2):
        message, unsynced, synced = results[rank]
        assert "1 tensors differ" in message and "Sequential.1.running_mean" in message
        assert unsynced == rank and synced == 0.5


def test_one_process_needs_no_group():
    misc.check_ddp_consistency(make_net())
    with misc.ddp_sync(make_net(), sync=False):
        pass


# ---------------------------------------------------------------------------------------------------------------


class TwoHeaded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(4, 5)), torch.nn.ReLU())
        self.register_buffer("scale", torch.ones(3))

    def forward(self, x):
        return self.body(x), x[:, :1].double()


def test_module_summary(capsys):
    net, x = TwoHeaded(), torch.zeros(2, 4)
    outputs = misc.print_module_summary(net, [x])
    assert outputs[0].shape == (2, 5) and outputs[1].dtype == torch.float64
    lines = capsys.readouterr().out.strip("\n").split("\n")
    rows = [re.split(r"  +", line.strip()) for line in lines if not line.startswith("---")]
    assert rows == [
        ["TwoHeaded", "Parameters", "Buffers", "Output shape", "Datatype"],
        ["body.0.0", "25", "-", "[2, 5]", "float32"],
        ["body.1", "-", "-", "[2, 5]", "float32"],
        ["<top-level>:0", "-", "3", "[2, 5]", "float32"],
        ["<top-level>:1", "-", "-", "[2, 1]", "float64"],
        ["Total", "25", "3", "-", "-"],
    ]
    misc.print_module_summary(net, [x], skip_redundant=False)
    assert "body.0 " in capsys.readouterr().out
    misc.print_module_summary(net, [x], max_nesting=1)
    text = capsys.readouterr().out
    assert "body.0" not in text and re.search(r"^body +25 ", text, re.M)
    assert not net._forward_hooks and not net.body._forward_pre_hooks


def test_module_summary_refuses_and_cleans_up():
    with pytest.raises(TypeError):
        misc.print_module_summary(lambda x: x, [1])
    net = TwoHeaded()
    with pytest.raises(RuntimeError):
        misc.print_module_summary(net, [torch.zeros(2, 9)])
    assert not net._forward_hooks and not net._forward_pre_hooks
