"""Sampling: the same images whatever the batch size and the number of processes; labels; seeds."""

import os

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from madr_spaces import sampling
from metrics import metric_main, metric_utils, precision_recall
from metrics.detectors import INCEPTION_URL
from torch_utils import distributed


def compute(opts, max_items=40, **kwargs):
    return metric_utils.compute_feature_stats_for_generator(
        opts, INCEPTION_URL, dict(return_features=True), capture_all=True, max_items=max_items, **kwargs
    ).get_all()


def test_latents_and_labels_belong_to_items():
    whole = sampling.latents(3, 0, 700, 5)
    assert whole.shape == (700, 5) and whole.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([sampling.latents(3, 0, 250, 5), sampling.latents(3, 250, 450, 5)]), whole)
    np.testing.assert_array_equal(sampling.label_items(3, 255, 3, 10), sampling.label_items(3, 0, 300, 10)[255:258])
    assert not np.array_equal(sampling.latents(4, 0, 700, 5), whole)
    big = sampling.latents(0, 0, 20_000, 8)
    assert abs(big.mean()) < 0.01 and abs(big.std() - 1) < 0.01
    assert abs(np.corrcoef(sampling.latents(0, 0, 5000, 1)[:, 0], sampling.latents(1, 0, 5000, 1)[:, 0])[0, 1]) < 0.05
    assert np.bincount(sampling.label_items(0, 0, 10_000, 10)).min() > 850


def test_features_do_not_depend_on_batch_size(options):
    fixed = dict(G_kwargs=dict(noise_mode="const"), num_gen=None)
    reference = compute(options(**fixed, c_dim=3))
    assert reference.shape == (40, 224)
    for batch_size in (1, 7, 64):
        np.testing.assert_allclose(compute(options(**fixed, c_dim=3, batch_size=batch_size)), reference, atol=1e-6)


def test_seed_and_truncation_matter_and_are_recorded(options):
    features = {}
    for seed, psi in ((0, 1), (1, 1), (0, 0.5)):
        opts = options(seed=seed, G_kwargs=dict(truncation_psi=psi))
        features[seed, psi] = compute(opts)
        assert (opts.facts["seed"], opts.facts["truncation_psi"], opts.facts["num_gen"]) == (seed, psi, 40)
    assert not np.allclose(features[0, 1], features[1, 1]) and not np.allclose(features[0, 1], features[0, 0.5])
    np.testing.assert_array_equal(compute(options()), features[0, 1])  # noise inputs included


def test_sampling_leaves_the_callers_generators_alone(options):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    compute(options())
    assert torch.equal(torch.rand(3), expected)


def test_labels_come_from_the_data(options):
    labels = metric_utils.LabelSource(options(c_dim=3)).take(0, 12)
    assert labels.shape == (12, 3) and labels.sum() == 12
    with pytest.raises(UserError, match="labels of 5 values.*3"):
        metric_utils.LabelSource(options(c_dim=5))
    assert metric_utils.LabelSource(options(c_dim=0)).take(0, 2).shape == (2, 0)


def test_no_data_set_is_a_sentence(options):
    with pytest.raises(UserError, match="--data"):
        metric_utils.construct_dataset(options(dataset_kwargs={}))


def test_network_keeps_its_mode_and_gradients(options):
    opts = options()
    opts.G.weight = torch.nn.Parameter(torch.zeros(1))
    opts.G.train()
    compute(opts)
    assert opts.G.training and opts.G.weight.requires_grad


# ----------------------------------------------------------------------------------------------------------------
# Processes.


def evaluate_everything(rank, job):
    """Body of each process: all that is shared among processes, saved by every rank."""
    os.environ["DNNLIB_CACHE_DIR"] = job["cache"]
    num_gpus = distributed.get_world_size()
    make = lambda **more: metric_utils.MetricOptions(num_gpus=num_gpus, rank=rank, device="cpu", **job["options"], **more)
    arrays = dict(
        generated=compute(make()),
        real=metric_utils.compute_feature_stats_for_dataset(
            make(), INCEPTION_URL, dict(return_features=True), capture_all=True, batch_size=8
        ).get_all(),
    )
    rows, cols = torch.from_numpy(arrays["real"]), torch.from_numpy(arrays["generated"])
    distances = precision_recall.compute_distances(rows, cols, num_gpus, rank, col_batch_size=9)
    assert (distances is None) == (rank != 0)
    if rank == 0:
        arrays["distances"] = distances.numpy()
    for metric in ("fid50k_full", "pr50k3_full", "ppl2_wend", "kid50k_full", "is50k"):
        result = metric_main.calc_metric(metric, num_gpus=num_gpus, rank=rank, device="cpu", **job["options"])
        arrays[metric] = np.array(list(result.results.values()))
    np.savez(os.path.join(job["out"], f"{num_gpus}-{rank}.npz"), **arrays)


def test_two_processes_equal_one(tiny_zip, detector_file, tmp_path, toy_generator, warm_processes):
    job = dict(
        out=str(tmp_path),
        cache=str(tmp_path / "shared-cache"),
        options=dict(
            G=toy_generator(3),
            detectors=dict(inception=detector_file, vgg16=detector_file),
            num_gen=45,
            batch_size=8,
            cache=False,
            dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=30, num_classes=3)),
        ),
    )
    distributed.launch(evaluate_everything, job, num_processes=1)
    distributed.launch(_two_rank_body, job, num_processes=2)
    one, first, second = (dict(np.load(tmp_path / name)) for name in ("1-0.npz", "2-0.npz", "2-1.npz"))
    assert set(one) == set(first)
    for name, value in one.items():
        np.testing.assert_allclose(first[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        if name in second:
            np.testing.assert_array_equal(second[name], first[name], err_msg=name)
    np.testing.assert_array_equal(first["generated"], one["generated"])


def _two_rank_body(rank, job):
    evaluate_everything(rank, job)
