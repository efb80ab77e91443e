"""What a dry run foretells: counts against real networks, sizes against real files, a warning for each doubt."""

import dataclasses
import json
import os

import pytest
import torch

import dnnlib
from training import config, estimate, snapshots


def resolved(tiny_zip, **flags):
    data = flags.pop("data", None) or tiny_zip(num_images=12, resolution=32, num_classes=3)
    return config.resolve(dict(dict(device="cpu"), data=data, **flags))


def warnings(run, free_disk=None, num_images=None):
    costs = estimate.estimate(run.options, run.image_shape, run.label_dim)
    count = num_images or run.options.training_set_kwargs.max_size
    return "\n".join(estimate.warnings_for(run.options, costs, run.image_shape, count, free_disk))


@pytest.mark.parametrize("flags", [dict(cfg="tiny"), dict(cfg="tiny", cond=True), dict(cfg="cifar", cbase=1024, cmax=32)])
def test_counts_and_sizes_are_those_of_the_real_networks(flags, tiny_zip, tmp_path):
    run = resolved(tiny_zip, **flags)
    costs = estimate.estimate(run.options, run.image_shape, run.label_dim)
    common = dict(c_dim=run.label_dim, img_resolution=32, img_channels=3)
    G = dnnlib.util.construct_class_by_name(**run.options.G_kwargs, **common)
    D = dnnlib.util.construct_class_by_name(**run.options.D_kwargs, **common)
    assert costs.parameters_G == sum(parameter.numel() for parameter in G.parameters())
    assert costs.parameters_D == sum(parameter.numel() for parameter in D.parameters())
    path = tmp_path / "network.pkl"
    snapshots.save_network_snapshot(path, snapshots.build_snapshot_data(G, D, G, None, {}))
    # Beside the numbers a pickle holds the source text of its classes.
    assert abs(os.path.getsize(path) - 2 * estimate._tensor_bytes(G) - estimate._tensor_bytes(D)) < 400_000 + estimate._tensor_bytes(G)


def test_a_run_shorter_than_one_snapshot_interval_is_told_in_kimg(tiny_zip):
    told = warnings(resolved(tiny_zip, kimg=1, snap=10, tick=4))
    assert "--snap=10 ticks of 4 kimg are longer than the whole run (1 kimg)" in told
    assert "longer than the whole run" not in warnings(resolved(tiny_zip, kimg=40, snap=10, tick=4))


@pytest.mark.parametrize("flags", [dict(half="off"), dict(half="bf16"), dict(cond=True, fp32=True), dict(half="off", madr="1")], ids=str)
def test_small_networks_are_counted_on_the_cpu_as_on_the_meta_device(flags, tiny_zip, monkeypatch):
    run = resolved(tiny_zip, cfg="tiny", **flags)
    assert estimate.counting_device(run.options, 32) == "cpu"
    state = torch.get_rng_state()
    found = estimate.estimate(run.options, run.image_shape, run.label_dim)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(estimate, "SMALL_RESOLUTION", 16)
    assert estimate.counting_device(run.options, 32) == "meta"
    on_meta = estimate.estimate(run.options, run.image_shape, run.label_dim)
    assert dataclasses.replace(on_meta, memory=0) == dataclasses.replace(found, memory=0)
    # Operators in place take no place of their own on a real device alone; there, half precision keeps what it bounds twice.
    assert 0.75 < found.memory / on_meta.memory < (1.25 if flags.get("half") == "bf16" else 1.05)


def test_nothing_is_allocated(tiny_zip):
    run = resolved(tiny_zip, cfg="stylegan2", cbase=2**19, cmax=8192)
    costs = estimate.estimate(run.options, run.image_shape, run.label_dim)
    assert costs.parameters_G > 4e9 and costs.parameters_D > 4e9  # tens of gigabytes of weights


def test_memory_grows_with_the_microbatch_and_shrinks_with_float16(tiny_zip):
    def memory(**flags):
        run = resolved(tiny_zip, **flags)
        return estimate.estimate(run.options, run.image_shape, run.label_dim).memory

    small, large = memory(batch=32, batch_gpu=4), memory(batch=32, batch_gpu=32)
    assert 2 * small < large < 8 * small
    assert memory(batch=32, device="cuda") < 0.8 * memory(batch=32)


@pytest.mark.parametrize(
    "flags, snapshots_kept, grids",
    [
        (dict(kimg=200, snap=10), 6, 8),
        (dict(kimg=201, snap=10, tick=1), 22, 24),
        (dict(kimg=200, snap=10, keep="2"), 2, 8),
        (dict(kimg=200, snap=10, keep="2,best"), 3, 8),
        (dict(kimg=200, snap=10, img_snap=5), 6, 13),
    ],
)
def test_number_of_files(flags, snapshots_kept, grids, tiny_zip):
    run = resolved(tiny_zip, cfg="tiny", **flags)
    costs = estimate.estimate(run.options, run.image_shape, run.label_dim)
    assert (costs.num_snapshots, costs.num_grids) == (snapshots_kept, grids)


WARNINGS = [
    (dict(aug="noaug"), "by heart"),
    (dict(), "copies of them"),
    (dict(batch=32), "smaller than one batch"),
    (dict(cfg="auto", kimg=50), "--kimg=50 is short"),
    (dict(kimg=4), "--snap"),
    (dict(metrics=["fid50k_full"]), "--detector"),
    (dict(metrics=["fid50k_full"]), "on a CPU takes hours"),
    (dict(batch=2), "smaller than the group"),
    (dict(batch=1), "one image per microbatch: the minibatch standard deviation is always zero, D cannot see a lack of variety"),
    (dict(batch=8, method=["pacgan:m=8"]), "one pack of 8 images per microbatch: the minibatch standard deviation is always zero"),
    (
        dict(batch=8, method=["pacgan:m=4"]),
        "microbatches of 2 packs of 4 images are smaller than the group of 4 for the minibatch standard deviation: groups of 2",
    ),
    (dict(gpus=2), "--gpus=2 without CUDA"),
    (dict(cfg="auto"), "float16 is left out"),
    (dict(cfg="auto"), "--cfg=tiny is sized for CPUs"),
    (dict(workers=500), "--workers=500"),
    (dict(resume="gone.pkl"), "no such file yet"),
    (dict(resume="gone.pkl"), "--resume-kimg"),
    (dict(resume="gone.pkl", resume_kimg=300, kimg=200), "nothing will be trained"),
    (dict(cfg="stylegan2", cbase=2**19, cmax=8192), "of memory needed"),
]


@pytest.mark.parametrize("flags, words", WARNINGS)
def test_each_doubt_is_told(flags, words, tiny_zip):
    assert words in warnings(resolved(tiny_zip, **dict(dict(cfg="tiny"), **flags)))


@pytest.mark.parametrize("flags", [dict(backbone="dcgan"), dict(cfg="tiny", method=["no-minibatch-std"])], ids=str)
def test_networks_without_minibatch_deviation_are_not_warned_of_it(flags, tiny_zip):
    assert "minibatch standard deviation" not in warnings(resolved(tiny_zip, batch=1, **flags))


def test_what_methods_keep_counts_in_memory_and_states(tiny_zip):
    costs = {name: estimate.estimate(*options) for name, options in {
        name: (run.options, run.image_shape, run.label_dim)
        for name, run in {
            "plain": resolved(tiny_zip, cfg="tiny", gan="non-saturating"),
            "pool": resolved(tiny_zip, cfg="tiny", gan="non-saturating", method=["image-pool:size=500"]),
            "averages": resolved(tiny_zip, cfg="tiny", gan="non-saturating", method=["historical-averaging"]),
        }.items()
    }.items()}  # fmt: skip
    plain, pool = costs["plain"], 500 * 3 * 32 * 32 * 2
    assert (costs["pool"].state - plain.state, costs["pool"].memory - plain.memory) == (pool, pool)
    assert costs["averages"].state - plain.state == 4 * (plain.parameters_G + plain.parameters_D)


def test_full_disk_is_foretold(tiny_zip):
    run = resolved(tiny_zip, cfg="tiny")
    assert "of disk needed" in warnings(run, free_disk=1000)
    assert "of disk needed" not in warnings(run, free_disk=10**12)


def test_tiny_is_for_small_pictures(tiny_zip):
    assert "made for 16 to 64 pixels" in warnings(resolved(tiny_zip, cfg="tiny", data=tiny_zip(num_images=2, resolution=128)))


def test_a_sound_configuration_has_no_warnings(tiny_zip):
    assert warnings(resolved(tiny_zip, cfg="tiny", workers=1), free_disk=10**12, num_images=50_000) == ""


def test_report_names_the_gamma_rule(tiny_zip):
    run = resolved(tiny_zip, cfg="auto")
    costs = estimate.estimate(run.options, run.image_shape, run.label_dim)
    text = estimate.report(run, costs, ["be careful"])
    assert "gamma 0.0064 = 0.0002 * resolution^2 / batch = 0.0002 * 32^2 / 32" in text
    assert "cap 1" in text and "be careful" in text and "million" in text and "disk" in text
    json.dumps(run.options)


def test_planning_for_a_device_that_is_elsewhere(tiny_zip):
    run = resolved(tiny_zip, cfg="auto", device="cuda", gpus=1)
    assert "float16" not in warnings(run) or torch.cuda.is_available()
