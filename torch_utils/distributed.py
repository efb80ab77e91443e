"""Processes: start several on this machine or join those of torchrun, agree on things, end together.

Knows nothing of GANs. Importing does nothing; a process group exists only between `launch` and its end.
"""

import atexit
import datetime
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from dnnlib import cli, console
from dnnlib.errors import UserError

# Exit code of a run that was asked to stop (SIGTERM, SIGINT) and saved its state first: EX_TEMPFAIL, "start me again".
EXIT_STOPPED = 75
# How long the other ranks may take to notice a dead one before they are terminated, and then killed.
GRACE_SEC = 10
# How ranks are made: from nothing, for neither CUDA nor autograd outlives a fork.
CONTEXT: Any = multiprocessing.get_context("spawn")


# ----------------------------------------------------------------------------------------------------------------
# Asking


def is_initialized() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def get_rank() -> int:
    return torch.distributed.get_rank() if is_initialized() else 0


def get_world_size() -> int:
    return torch.distributed.get_world_size() if is_initialized() else 1


def under_torchrun() -> bool:
    """True when an outer launcher (torchrun, a cluster) has already started one process per rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank_device(device_name: str, rank: int) -> torch.device:
    """The device of this rank: cuda gets one card per local process, everything else is shared."""
    if device_name != "cuda":
        return torch.device(device_name)
    local_rank = int(os.environ["LOCAL_RANK"]) if under_torchrun() and "LOCAL_RANK" in os.environ else rank % max(torch.cuda.device_count(), 1)
    return torch.device("cuda", local_rank)


# ----------------------------------------------------------------------------------------------------------------
# Agreeing


def broadcast_module(module: torch.nn.Module) -> None:
    """Make every parameter and buffer equal to rank 0's."""
    if get_world_size() > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            # A copy: zero-dimensional or strided tensors are not taken by every backend as they are, and of a channels-last
            # weight with a 1x1 kernel a view in another layout overlaps with the weight itself.
            flat = tensor.detach().reshape(-1).clone()
            torch.distributed.broadcast(flat, src=0)
            tensor.detach().copy_(flat.reshape(tensor.shape))


def all_reduce_mean_(tensor: torch.Tensor) -> torch.Tensor:
    """In place: the mean over ranks. Contiguous tensors only."""
    if get_world_size() > 1:
        torch.distributed.all_reduce(tensor)
        tensor /= get_world_size()
    return tensor


def any_rank(flag: bool, device: torch.device) -> bool:
    """True on every rank as soon as it is true on one."""
    if get_world_size() == 1:
        return bool(flag)
    value = torch.tensor([float(flag)], device=device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return bool(value.item())


def gather_objects(value: Any) -> list:
    """List of every rank's `value` (small picklable things), in rank order, on all ranks."""
    if get_world_size() == 1:
        return [value]
    values = [None] * get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def barrier() -> None:
    if get_world_size() > 1:
        torch.distributed.barrier()


# ----------------------------------------------------------------------------------------------------------------
# Starting and ending


def _join_group(init_method: str, rank: int, world_size: int, device_name: str, timeout_sec: float = 1800) -> None:
    if device_name == "cuda":
        torch.cuda.set_device(rank_device(device_name, rank))
    torch.distributed.init_process_group(
        backend="nccl" if device_name == "cuda" else "gloo",
        init_method=init_method,
        rank=rank,
        world_size=world_size,
        timeout=datetime.timedelta(seconds=timeout_sec),
    )
    if device_name != "cuda":
        # Gloo connects every pair at once; a rank with little to do could be gone while another still connects, which then fails.
        torch.distributed.barrier()


def _exit_with_parent() -> None:
    """A rank must not outlive the process that started it, however that one ended."""

    parent = multiprocessing.parent_process()
    assert parent is not None  # a rank is always somebody's child

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _rank_main(rank: int, worker: Callable, options: Any, num_processes: int, device_name: str, folder: str, quiet: bool) -> NoReturn:
    """Body of one spawned rank. Leaves its failure as text in `folder` for the parent to tell. Never returns."""
    console.make_printable()
    if quiet:
        console.silence()
    _exit_with_parent()
    try:
        _join_group("file://" + os.path.join(folder, "rendezvous"), rank, num_processes, device_name)
        worker(rank, options)
        torch.distributed.destroy_process_group()
    except BaseException as err:
        if isinstance(err, SystemExit) and err.code in (0, None, EXIT_STOPPED):
            _leave(EXIT_STOPPED if err.code == EXIT_STOPPED else 0)
        sentence = cli.user_sentence(err)
        kind, text = ("user", sentence) if sentence is not None else ("traceback", traceback.format_exc())
        with open(os.path.join(folder, f"{kind}-{rank}-{time.time_ns()}"), "w", encoding="utf-8", errors="backslashreplace") as f:
            f.write(text)
        sys.stdout.flush()
        os._exit(1)  # no clean-up: the group's peers may be gone, and waiting for them would hang
    _leave(0)


def _leave(exit_code: int) -> NoReturn:
    """End a rank whose work is done: Python's exit functions and buffers, but no teardown of native libraries.

    Their threads are destroyed in no defined order there, and once in hundreds of runs a rank aborted ("terminate called
    without an active exception") after everything was computed and written. Forked processes end in this way, too.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(exit_code)


def _wait_for_all(processes: list) -> list[int]:
    """Wait until all ranks ended; once one ended badly the others get GRACE_SEC, then SIGTERM, then SIGKILL."""
    failed_at, signals_sent = None, 0
    while any(p.is_alive() for p in processes):
        multiprocessing.connection.wait([p.sentinel for p in processes if p.is_alive()], timeout=1)
        if failed_at is None and any(p.exitcode not in (None, 0, EXIT_STOPPED) for p in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() > failed_at + GRACE_SEC * (signals_sent + 1):
            for p in processes:
                if p.is_alive():
                    p.terminate() if signals_sent == 0 else p.kill()
            signals_sent += 1
    return [p.exitcode for p in processes]


def _raise_failure(folder: str, exit_codes: list[int]) -> NoReturn:
    """Tell the first failure: a sentence for what a user can mend, a traceback otherwise, a signal's name last."""
    reports = sorted((f for f in os.listdir(folder) if f.startswith(("user-", "traceback-"))), key=lambda f: int(f.split("-")[2]))
    killed = [(rank, code) for rank, code in enumerate(exit_codes) if code is not None and code < 0]
    for name in reports:
        if name.startswith("user-"):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                raise UserError(f.read())
    text = ""
    if reports:
        with open(os.path.join(folder, reports[0]), encoding="utf-8") as f:
            text = f"\n--- traceback of rank {reports[0].split('-')[1]}, the first to fail ---\n{f.read()}"
    if killed:
        rank, code = killed[0]
        text += f"\nrank {rank} was ended by {signal.Signals(-code).name} (killed from outside, or out of memory)"
    raise RuntimeError(f"training process failed, exit codes by rank: {exit_codes}{text}")


def _spawn(worker: Callable, options: Any, num_processes: int, device_name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        processes = [
            CONTEXT.Process(target=_rank_main, args=(rank, worker, options, num_processes, device_name, folder, console.is_quiet()))
            for rank in range(num_processes)
        ]

        # As SIGTERM in both cases: a second SIGINT would end a rank at once, and a terminal has sent the first to all.
        def forward(_signum: int, _frame: object) -> None:
            for p in processes:
                if p.is_alive():
                    p.terminate()

        previous: dict = {}
        try:
            for p in processes:
                p.start()
            previous = {signum: signal.signal(signum, forward) for signum in (signal.SIGTERM, signal.SIGINT)}
            exit_codes = _wait_for_all(processes)
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)
            for p in processes:
                if p.is_alive():
                    p.kill()
        if any(code not in (0, EXIT_STOPPED) for code in exit_codes):
            _raise_failure(folder, exit_codes)
        if EXIT_STOPPED in exit_codes:
            sys.exit(EXIT_STOPPED)


def launch(worker: Callable[[int, Any], object], options: Any, num_processes: int, device_name: str = "cpu") -> None:
    """Run worker(rank, options) in `num_processes` processes and come back when all have ended.

    One process runs right here. Under torchrun this process is one rank of a group that exists already, on one machine
    or several. Otherwise `num_processes` are spawned; `worker` and `options` must then be picklable.
    device_name: 'cpu' | 'cuda' | 'mps' (one of them, resolved). Raises UserError or RuntimeError when a rank failed,
    SystemExit(EXIT_STOPPED) when the ranks stopped on request.
    """
    if under_torchrun():
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if world_size > 1:
            _join_group("env://", rank, world_size, device_name)
        try:
            worker(rank, options)
        finally:
            if is_initialized():
                torch.distributed.destroy_process_group()
    elif num_processes == 1:
        worker(0, options)
    else:
        _spawn(worker, options, num_processes, device_name)
