"""What a run notes of itself each time it starts: the fingerprint of its data, versions, the device. For people and pages.

Nothing here decides how the run goes on: that is the training state's part. Must not know the loop.
"""

import json
import os
import platform
import time

import numpy as np
import torch

from dnnlib import files

FILE_NAME = "provenance.jsonl"


def gather(data_fingerprint, num_images, device, kimg):
    """One line of the file as a dict: nothing of it tells whose machine it is."""
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return dict(
        started=time.time(),
        kimg=kimg,
        data_fingerprint=data_fingerprint,
        num_images=num_images,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        device=device_name,
        system=f"{platform.system()} {platform.machine()}",
    )


def record(run_dir, facts):
    """Add a start of the run to those before."""
    lines = read(run_dir) + [facts]
    files.atomic_write_text(os.path.join(run_dir, FILE_NAME), "".join(json.dumps(line) + "\n" for line in lines))


def read(run_dir):
    """The starts that can be read, in order, as dicts; [] without the file."""
    lines = []
    try:
        with open(os.path.join(run_dir, FILE_NAME), encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    continue
    except OSError:
        return []
    return [line for line in lines if isinstance(line, dict)]


def newest(run_dir):
    return (read(run_dir) or [{}])[-1]
