"""How a step is divided by any number of GPUs: the defaults divide, and every remedy that is told divides, too."""

import re

import pytest

from dnnlib.errors import UserError
from training import batches, config, presets

COUNTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 20, 24, 33, 48, 64, 100]


@pytest.mark.parametrize("resolution", [8, 28, 32, 256, 1024, 4096])
def test_the_automatic_batch_divides_on_any_number_of_gpus(resolution):
    for gpus in COUNTS:
        row = presets.base_config("auto", resolution, gpus)
        assert batches.Division(row.batch_size, row.batch_size // gpus, gpus, row.mbstd_group, 1).fits()
        assert row.batch_size <= max(64, gpus) and row.mbstd_group == min(row.batch_size // gpus, 4)


def test_powers_of_two_have_the_batch_that_they_had():
    for resolution in (8, 16, 32, 64, 128, 256, 512, 1024, 2048):
        for gpus in (1, 2, 4, 8, 16, 32, 64):
            assert presets.base_config("auto", resolution, gpus).batch_size == max(min(gpus * min(4096 // resolution, 32), 64), gpus)


def remedies(said):
    """[flags] of every way out that a refusal names."""
    ways, last = [], None
    for part in said.rpartition("; use ")[2].split(" or "):
        if not part.startswith("--"):
            part = f"{last}={part}"
        last = part.partition("=")[0]
        ways.append({flag.replace("-", "_"): int(value) for flag, value in re.findall(r"--([a-z-]+)=(\d+)", part)})
    return ways


ASKED = [dict(cfg=cfg, gpus=gpus) for cfg in ("tiny", "paper256", "stylegan2", "cifar", "auto") for gpus in (3, 5, 6, 7, 12, 20, 40)]
ASKED += [dict(cfg="tiny", method=["pacgan:m=2"], batch_gpu=3), dict(cfg="tiny", method=["pacgan:m=3"], batch=16)]
ASKED += [dict(cfg="tiny", method=["pacgan:m=2"], gpus=gpus) for gpus in (3, 5, 6)]
ASKED += [dict(cfg="tiny", batch=10, gpus=3), dict(cfg="tiny", batch=6), dict(cfg="tiny", batch=14, mbstd_group=4), dict(cfg="auto", mbstd_group=7)]
ASKED += [dict(cfg="tiny", batch_gpu=5, gpus=3), dict(cfg="tiny", batch=7, batch_gpu=2), dict(cfg="tiny", method=["image-pool"], batch=3, gpus=2)]
ASKED += [dict(cfg="tiny", backbone="dcgan", gpus=3), dict(cfg="tiny", method=["no-minibatch-std"], gpus=5)]


@pytest.mark.parametrize("flags", ASKED, ids=str)
def test_every_remedy_divides(flags, tiny_zip):
    flags = dict(flags, data=tiny_zip(num_images=4, resolution=16))
    try:
        config.resolve(flags)
        assert flags["cfg"] == "auto"
    except UserError as error:
        ways = remedies(str(error))
        assert ways
        for way in ways:
            config.resolve({**flags, **way})


def test_a_run_that_goes_on_keeps_its_batch():
    options = dict(batch_size=16, batch_gpu=5, num_gpus=3, D_kwargs=dict(epilogue_kwargs=dict(mbstd_group_size=4)), loss_kwargs={})
    with pytest.raises(UserError, match="a batch of 16 does not divide into 3 GPU.*; use --gpus=2 --batch-gpu=4 or --gpus=4 --batch-gpu=4$"):
        batches.check(options, goes_on=True)
