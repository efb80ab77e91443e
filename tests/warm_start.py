"""Processes for tests that begin as copies of one that has imported torch, in a tenth of the time of processes begun from nothing.

As those of the start method "spawn" they get what is pickled for them and the environment of the moment; unlike those they leave by
os._exit. For tests of what processes do together; how they start and end is tested with those that training starts (tests/training/
test_distributed.py, tests/e2e/test_launchers.py).
"""

import multiprocessing.context
import os
import pickle
from multiprocessing.reduction import ForkingPickler

PRELOADED = [
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.utils.tensorboard",
    "scipy.linalg",
    "scipy.signal",
    "PIL.Image",
]


class Process(multiprocessing.context.ForkServerProcess):
    """One process. The environment comes first, for modules read it when they are imported."""

    def __reduce__(self):
        return _revived, (dict(os.environ), bytes(ForkingPickler.dumps(self.__dict__)))


def _revived(environment, state):
    os.environ.clear()
    os.environ.update(environment)
    process = Process.__new__(Process)
    process.__dict__.update(pickle.loads(state))
    return process


class Context(multiprocessing.context.ForkServerContext):
    """What multiprocessing.get_context() gives, with these processes."""

    Process = Process


def run_all(function, arguments):
    """Run function(*one) for each tuple of `arguments` in a process of its own, all at once; all must end well."""
    processes = [CONTEXT.Process(target=function, args=one) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(processes)


CONTEXT = Context()
CONTEXT.set_forkserver_preload(PRELOADED)
