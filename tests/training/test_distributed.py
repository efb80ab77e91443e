"""Processes that start, agree, fail and end together."""

import atexit
import os
import signal
import sys
import time

import pytest
import torch

from dnnlib.errors import UserError
from torch_utils import distributed


def _agree(rank, options):
    value = distributed.all_reduce_mean_(torch.tensor([float(rank)]))
    module = torch.nn.Linear(2, 2)
    torch.manual_seed(rank)
    torch.nn.init.normal_(module.weight)
    distributed.broadcast_module(module)
    # A weight of one pixel has channels-last strides that overlap with those of a contiguous copy.
    convolution = torch.nn.Conv2d(3, 4, 1).to(memory_format=torch.channels_last)
    distributed.broadcast_module(convolution)
    torch.save(
        dict(
            mean=value,
            anyone=distributed.any_rank(rank == 1, "cpu"),
            nobody=distributed.any_rank(False, "cpu"),
            gathered=distributed.gather_objects({"rank": rank}),
            weight=module.weight.detach(),
            kernels=convolution.weight.detach(),
        ),
        os.path.join(options["dir"], f"{rank}.pt"),
    )


def test_three_processes_agree(tmp_path):
    distributed.launch(_agree, dict(dir=str(tmp_path)), 3)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    for result in results:
        assert float(result["mean"]) == 1 and result["anyone"] is True and result["nobody"] is False
        assert result["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert torch.equal(result["weight"], results[0]["weight"]) and torch.equal(result["kernels"], results[0]["kernels"])


class _AbortsWhenTornDown:
    """Stands in for a native library that aborts at the interpreter's teardown."""

    def __del__(self, abort=os.abort):  # bound here: modules are emptied by then
        abort()


def _ends_with_work_to_tidy(rank, options):
    global _kept
    _kept = _AbortsWhenTornDown()
    file = open(os.path.join(options["dir"], f"{rank}.txt"), "w")
    atexit.register(lambda: (file.write("tidied"), file.close()))
    if options["stop"]:
        sys.exit(distributed.EXIT_STOPPED)


@pytest.mark.parametrize("stop", [False, True])
def test_a_rank_that_is_done_tidies_up_and_survives_the_teardown_of_libraries(tmp_path, stop):
    if stop:
        with pytest.raises(SystemExit) as stopped:
            distributed.launch(_ends_with_work_to_tidy, dict(dir=str(tmp_path), stop=True), 2)
        assert stopped.value.code == distributed.EXIT_STOPPED
    else:
        distributed.launch(_ends_with_work_to_tidy, dict(dir=str(tmp_path), stop=False), 2)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["tidied"] * 2


def _fail(rank, options):
    if rank == 1:
        if options["how"] == "user":
            raise UserError("--thing must be else")
        if options["how"] == "bug":
            raise ZeroDivisionError("the bug itself")
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.any_rank(False, "cpu")  # waits for a rank that is no more
    time.sleep(300)


@pytest.mark.parametrize(
    "how, kind, text",
    [("user", UserError, "--thing must be else"), ("bug", RuntimeError, "ZeroDivisionError: the bug itself"), ("kill", RuntimeError, "SIGKILL")],
)
def test_a_dead_rank_ends_the_job_with_its_reason(how, kind, text, monkeypatch, warm_processes):
    monkeypatch.setattr(distributed, "GRACE_SEC", 2)
    start = time.monotonic()
    with pytest.raises(kind, match=text):
        distributed.launch(_fail, dict(how=how), 2)
    assert time.monotonic() - start < 60


def _stop(rank, options):
    sys.exit(distributed.EXIT_STOPPED)


def test_stopping_on_request_is_told_by_the_exit_code(warm_processes):
    with pytest.raises(SystemExit) as stopped:
        distributed.launch(_stop, {}, 2)
    assert stopped.value.code == distributed.EXIT_STOPPED


def test_one_process_runs_right_here():
    seen = []
    distributed.launch(lambda rank, options: seen.append((rank, options, distributed.get_world_size())), "options", 1)
    assert seen == [(0, "options", 1)]
