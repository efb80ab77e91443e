"""Training on a card: half precision, resume, MADR, memory; and the networks with kernels against those without."""

import copy
import os

import pytest
import torch

from torch_utils.ops import plugins

# Adam divides tiny gradients by their own size, so that rounding in another order moves single weights by whole steps; over all
# weights of a network the runs stay together.
RELATIVE_DISTANCE = 0.02


def networks_on(card, resolution=32, channels=32, num_fp16_res=0, conv_clamp=None, channels_last=False):
    from training.networks import Discriminator, Generator

    torch.manual_seed(0)
    common = dict(img_resolution=resolution, img_channels=3, c_dim=0)
    size = dict(channel_base=resolution * channels, channel_max=channels, num_fp16_res=num_fp16_res, conv_clamp=conv_clamp)
    synthesis, block = dict(size, fp16_channels_last=channels_last), dict(fp16_channels_last=channels_last)
    G = Generator(z_dim=32, w_dim=32, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=synthesis, **common)
    D = Discriminator(**common, **size, block_kwargs=block, epilogue_kwargs=dict(mbstd_group_size=4))
    return G.to(card).train(), D.to(card).train()


def gradients(G, D, loss_options=None):
    """One step's gradients of both networks, of all terms: {name: tensor}."""
    from training.loss import StyleGAN2Loss

    device = next(G.parameters()).device
    loss = StyleGAN2Loss(device, G.mapping, G.synthesis, D, style_mixing_prob=0, r1_gamma=1, **(loss_options or {}))
    generator = torch.Generator().manual_seed(1)
    z, real = torch.randn(8, 32, generator=generator).to(device), torch.rand(8, 3, G.img_resolution, G.img_resolution, generator=generator).to(device)
    c = torch.zeros(8, 0, device=device)
    found = {}
    for phase, network in (("Gboth", G), ("Dboth", D)):
        for other in (G, D):
            other.requires_grad_(other is network)
            other.zero_grad(set_to_none=True)
        torch.manual_seed(2)
        loss.accumulate_gradients(phase, real * 2 - 1, c, z, c, sync=True, gain=1)
        found.update({f"{phase} {name}": value.grad.clone() for name, value in network.named_parameters() if value.grad is not None})
    return found


def distance(a, b):
    """Of all numbers together, relative."""
    flat_a, flat_b = (torch.cat([value.double().flatten() for value in values]) for values in (a, b))
    return ((flat_a - flat_b).norm() / flat_b.norm()).item()


def with_and_without(monkeypatch, function):
    results = []
    for wanted in (True, False):
        monkeypatch.setattr(plugins, "_wanted", wanted)
        results.append(function())
    return results


def test_gradients_with_kernels_are_those_without(kernels, card, exactly, monkeypatch):
    G, D = networks_on(card, conv_clamp=256)
    ours, plain = with_and_without(monkeypatch, lambda: gradients(G, D))
    assert list(ours) == list(plain) and len(ours) > 40
    for name, value in ours.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-2, atol=1e-3 * max(1e-3, plain[name].abs().max().item()), msg=name)


@pytest.mark.parametrize("channels_last", [False, True])
def test_float16_steps_need_no_scaling_of_the_loss(kernels, card, monkeypatch, channels_last):
    """num_fp16_res and conv_clamp alone, as in StyleGAN2-ADA: every gradient finite, and near to those of float32."""
    half = dict(num_fp16_res=3, conv_clamp=256, channels_last=channels_last)
    exact = gradients(*networks_on(card, conv_clamp=256))
    for found in with_and_without(monkeypatch, lambda: gradients(*networks_on(card, **half))):
        assert list(found) == list(exact) and all(value.isfinite().all() for value in found.values())
        for phase in ("Gboth", "Dboth"):
            names = [name for name in exact if name.startswith(phase)]
            assert distance([found[name] for name in names], [exact[name] for name in names]) < 0.1, phase


def test_bfloat16_steps(kernels, card):
    from training import half_precision

    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this card has no bfloat16")
    exact = gradients(*networks_on(card, conv_clamp=256))
    G, D = networks_on(card, num_fp16_res=3, conv_clamp=256)
    half_precision.begin("bf16", [G, D], card)
    found = gradients(G, D)
    assert all(value.isfinite().all() for value in found.values())
    assert distance([found[name] for name in exact], list(exact.values())) < 0.3


# ------------------------------------------------------------------------------------------
# Runs.


def options_on_card(loop_options, **more):
    options = loop_options(device="cuda", cudnn_benchmark=False, network_snapshot_ticks=1, kimg_per_tick=0.024, **more)
    for kwargs in (options["G_kwargs"]["synthesis_kwargs"], options["D_kwargs"]):
        kwargs.update(num_fp16_res=2, conv_clamp=256)
    return options


def parts_of(path):
    from training import state

    return state.load_state(state.latest_state(path))["parts"]


def run(path, options, **more):
    from training.training_loop import training_loop

    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **{**options, **more})
    return parts_of(path)


def test_a_run_in_two_parts_is_the_run_in_one(kernels, card, tmp_path, loop_options):
    """Position and everything drawn are the same to the bit; weights up to what sums of several threads differ by."""
    options = options_on_card(loop_options, total_kimg=0.08)
    whole = run(tmp_path / "whole", options)
    run(tmp_path / "parts", options, total_kimg=0.04)
    from training import state

    parts = run(tmp_path / "parts", options, resume_state=state.latest_state(tmp_path / "parts"))
    for name in ("batch_idx", "cur_nimg"):
        assert whole["progress"][name] == parts["progress"][name]
    for network in ("G", "D", "G_ema"):
        assert all(value.isfinite().all() for value in whole[network].values())
        assert distance(parts[network].values(), whole[network].values()) < RELATIVE_DISTANCE, network


def test_madr_keeps_its_memory_on_the_card(kernels, card, tell):
    from madr_plugin.loss import MADRLoss
    from tests.madr.toy_host import Images

    G, D = networks_on(card, resolution=8)
    base = "training.loss.StyleGAN2Loss"
    madr = dict(capacity=256, deficit_window=64, width=16, random_seed=0)
    loss = MADRLoss(card, base_class_name=base, madr=madr, G_mapping=G.mapping, G_synthesis=G.synthesis, D=D, pl_weight=0)
    loss.attach(dict(training_set=Images(), random_seed=0))
    c = torch.zeros(16, 0, device=card)
    G.requires_grad_(True), D.requires_grad_(False)
    for step in range(4):
        G.zero_grad(set_to_none=True)
        loss.begin_phase("Gmain", step * 16)
        loss.accumulate_gradients("Gmain", torch.rand(16, 3, 8, 8, device=card), c, torch.randn(16, 32, device=card), c, sync=True, gain=1)
        loss.end_phase("Gmain")
    memory = loss.engine.memory
    assert memory.count == 64 and all(tensor.is_cuda for tensor in memory.tensors.values())
    assert all(value.grad is not None and value.grad.isfinite().all() for value in G.mapping.parameters())
    size = sum(tensor.nbytes for tensor in memory.tensors.values())
    tell(f"MADR's memory of {memory.capacity} samples on the card: {size / 2**20:.2f} MiB")


def test_faiss_on_the_card_finds_the_neighbours(card):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        pytest.skip("this faiss has no GPU part (faiss-gpu-cu12 has)")
    reals, queries = (torch.randn(count, 64, generator=torch.Generator().manual_seed(count)) for count in (5000, 200))
    index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 64)
    index.add(reals.numpy())
    squared, found = index.search(queries.numpy(), 5)
    expected = torch.cdist(queries.double(), reals.double()).square().topk(5, largest=False)
    torch.testing.assert_close(torch.from_numpy(squared).double(), expected.values, rtol=1e-4, atol=1e-4)
    assert (torch.from_numpy(found) == expected.indices).float().mean() > 0.99


def test_kernels_take_no_more_memory(kernels, card, monkeypatch, tell):
    G, D = networks_on(card, resolution=128, channels=64, num_fp16_res=4, conv_clamp=256)

    def peak():
        gradients(G, D)  # the first time, libraries allocate for themselves
        torch.cuda.synchronize(), torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        gradients(G, D)
        return torch.cuda.max_memory_allocated()

    ours, plain = with_and_without(monkeypatch, peak)
    tell(f"peak of a G+D step at 128 px, 64 channels, 8 images, float16: {ours / 2**20:.0f} MiB with kernels, {plain / 2**20:.0f} MiB without")
    assert ours <= 1.05 * plain


def test_a_network_copied_from_the_card_draws_alike_on_the_cpu(kernels, card, exactly):
    G, _ = networks_on(card, conv_clamp=256)
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    on_cpu = copy.deepcopy(G).cpu()
    with torch.no_grad():
        mine, theirs = (network.eval()(z.to(device), None, noise_mode="const") for network, device in ((G, card), (on_cpu, "cpu")))
    torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-3, atol=1e-3)
