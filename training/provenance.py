"""What a run notes of itself each time it starts: this code and its commit, the fingerprint of the data, versions, the device. For people and pages.

Nothing here decides how the run goes on: that is the training state's part. Must not know the loop.
"""

import json
import os
import platform
import time
from typing import Any

import numpy as np
import torch

from dnnlib import files, version
from torch_utils.ops import plugins

FILE_NAME = "provenance.jsonl"


def gather(data_fingerprint: str, num_images: int, device: torch.device, kimg: float) -> dict[str, Any]:
    """One line of the file as a dict: nothing of it tells whose machine it is."""
    commit = version.commit()
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return dict(
        started=time.time(),
        kimg=kimg,
        version=version.number(),
        commit=commit.sha if commit else None,
        code_changed=commit.changed if commit else None,
        data_fingerprint=data_fingerprint,
        num_images=num_images,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        device=device_name,
        kernels=plugins.in_use(device.type),
        system=f"{platform.system()} {platform.machine()}",
    )


def record(run_dir: str, facts: dict[str, Any]) -> None:
    """Add a start of the run to those before."""
    lines = read(run_dir) + [facts]
    files.atomic_write_text(os.path.join(run_dir, FILE_NAME), "".join(json.dumps(line) + "\n" for line in lines))


def read(run_dir: str) -> list[dict[str, Any]]:
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


def newest(run_dir: str) -> dict[str, Any]:
    return (read(run_dir) or [{}])[-1]
