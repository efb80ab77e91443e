"""Training with the C++ kernels: the same gradients up to rounding, and a resumed run that is the whole run bit for bit."""

import copy
import gc
import os

import pytest
import torch

import dnnlib
from torch_utils.ops import bias_act, conv2d_gradfix, plugins
from training import loss, phases, setup, state
from training.training_loop import training_loop


def networks(dtype, **more):
    common = dict(channel_base=256, channel_max=16, num_fp16_res=0, conv_clamp=4.0, **more)
    shape = dict(c_dim=0, img_resolution=16, img_channels=3)
    torch.manual_seed(0)
    G = dnnlib.util.construct_class_by_name(class_name="training.networks.Generator", z_dim=8, w_dim=8, **shape, synthesis_kwargs=common)
    D = dnnlib.util.construct_class_by_name(class_name="training.networks.Discriminator", **shape, **common)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    return G.to(dtype).train().requires_grad_(False), D.to(dtype).train().requires_grad_(False)


def gradients(phase, network, dtype, uses_kernels):
    """{name: gradient or None} of one microbatch, the seeds always the same."""
    G, D = networks(dtype)
    plugins.choose(uses_kernels)
    terms = loss.StyleGAN2Loss(device=torch.device("cpu"), G_mapping=G.mapping, G_synthesis=G.synthesis, D=D, r1_gamma=1)
    module = dict(G=G, D=D)[network].requires_grad_(True)
    phases.seed_microbatch(0, 0, 0, 0)
    z = torch.randn(4, 8, dtype=dtype)
    real = torch.randn(4, 3, 16, 16, dtype=dtype)
    c = torch.zeros(4, 0, dtype=dtype)
    terms.accumulate_gradients(phase=phase, real_img=real, real_c=c, gen_z=z, gen_c=c, sync=True, gain=1)
    return {name: parameter.grad for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("phase, network", [("Gmain", "G"), ("Greg", "G"), ("Dmain", "D"), ("Dreg", "D")])
def test_gradients_of_every_phase(cpu_kernels, monkeypatch, phase, network):
    """Values in float64; and a gradient is absent with kernels where it is absent without: the optimizer skips those."""
    calls = []
    activate = cpu_kernels.activate
    monkeypatch.setattr(cpu_kernels, "activate", lambda x, b, scale, *rest: calls.append(scale) or activate(x, b, scale, *rest))
    without = gradients(phase, network, torch.float64, False)
    assert not calls
    with_kernels = gradients(phase, network, torch.float64, True)
    assert calls and any(scale is not None for scale in calls) == (phase != "Dreg")
    for name, plain in without.items():
        assert (with_kernels[name] is None) == (plain is None), name
        if plain is not None:
            # float32 holds somewhere in the loss (weights of the noise) no more than about 1e-7.
            torch.testing.assert_close(
                with_kernels[name], plain, rtol=1e-9, atol=1e-9 * (1 + plain.abs().max().item()), msg=lambda text: f"{name}: {text}"
            )


def test_gradients_in_float32(cpu_kernels):
    for phase, network in (("Gmain", "G"), ("Dmain", "D")):
        without, with_kernels = (gradients(phase, network, torch.float32, uses) for uses in (False, True))
        for name, plain in without.items():
            torch.testing.assert_close(
                with_kernels[name], plain, rtol=1e-3, atol=1e-4 * (1e-3 + plain.abs().max().item()), msg=lambda text: f"{name}: {text}"
            )


def test_fakes_and_reals_in_one_pass(cpu_kernels, monkeypatch):
    """By one pass where nothing stands against it, with the random numbers of two; by two where somebody counts on them."""
    G, D = networks(torch.float32)
    D.requires_grad_(True)
    calls, hook = [], []
    forward = type(D).forward
    monkeypatch.setattr(type(D), "forward", lambda self, img, c, **more: calls.append(len(img)) or forward(self, img, c, **more))

    def passes(terms, num_images=4, phase="Dmain"):
        calls.clear()
        torch.manual_seed(5)
        z, c = torch.zeros(num_images, 8), torch.zeros(num_images, 0)
        terms.accumulate_gradients(phase=phase, real_img=torch.zeros(num_images, 3, 16, 16), real_c=c, gen_z=z, gen_c=c, sync=True, gain=1)
        return list(calls), torch.rand(())

    def augment(images):
        return images + torch.randn_like(images)

    class Other(loss.StyleGAN2Loss):
        def run_D(self, img, c, sync):
            return super().run_D(img, c, sync)

    parts = dict(device=torch.device("cpu"), G_mapping=G.mapping, G_synthesis=G.synthesis, D=D, augment_pipe=augment)
    ours = loss.StyleGAN2Loss(**parts)
    assert passes(ours)[0] == [8] and passes(Other(**parts))[0] == [4, 4]
    assert passes(ours)[1] == passes(Other(**parts))[1]
    assert passes(ours, phase="Dboth")[0] == [4, 4] and passes(ours, num_images=2)[0] == [2, 2]
    hook.append(D.register_forward_hook(lambda *_: None))
    assert passes(ours)[0] == [4, 4]
    hook[0].remove()
    ours.judges_at_once = False
    assert passes(ours)[0] == [4, 4]
    ours.judges_at_once = True
    monkeypatch.setattr(loss, "AT_ONCE_UP_TO_PIXELS", 4 * 16 * 16 - 1)
    assert passes(ours)[0] == [4, 4]
    monkeypatch.undo()
    plugins.choose(False)
    assert not ours._judges_at_once(torch.zeros(4, 8), torch.zeros(4, 3, 16, 16))


@pytest.mark.parametrize("noise_mode", ["random", "const", "none"])
@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_generator_in_every_mode(cpu_kernels, noise_mode, architecture):
    G, _ = networks(torch.float64, architecture=architecture)
    ws = G.mapping(torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), None, skip_w_avg_update=True)
    images = []
    for uses in (False, True):
        plugins.choose(uses)
        for fused_modconv in (False, True):
            torch.manual_seed(3)
            images.append(G.synthesis(ws, noise_mode=noise_mode, fused_modconv=fused_modconv))
    for image in images[1:]:
        torch.testing.assert_close(image, images[0], rtol=1e-9, atol=1e-9)


def test_networks_of_code_bases_without_this_operator(monkeypatch):
    """Others execute the text of our networks file, and their bias_act knows neither has_kernel nor modulated_bias_act."""
    monkeypatch.delattr(bias_act, "has_kernel")
    monkeypatch.delattr(bias_act, "modulated_bias_act")
    G, _ = networks(torch.float32)
    assert G(torch.zeros(2, 8), None).shape == (2, 3, 16, 16)


def test_weights_may_be_kept_out_of_the_first_pass(cpu_kernels):
    """Path length and R1 go through no_weight_gradients(), which must hold for what the kernels do as well."""
    G, _ = networks(torch.float64)
    G.requires_grad_(True)
    ws = G.mapping(torch.randn(2, 8, dtype=torch.float64), None).detach().requires_grad_()
    image = G.synthesis(ws, noise_mode="const")
    with conv2d_gradfix.no_weight_gradients():
        (to_ws,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), ws, create_graph=True)
    to_ws.square().sum().backward()
    assert G.synthesis.b8.conv0.weight.grad.abs().sum() > 0


def test_layout_follows_the_kernels(cpu_kernels):
    G, D = networks(torch.float32)
    layouts = []
    for layer in (G.synthesis.b16.conv1, D.b16.conv0):
        layer.register_forward_hook(lambda _layer, inputs, output: layouts.append([x.is_contiguous() for x in (inputs[0], output)]))
    for uses, is_contiguous in ((False, True), (True, False)):
        plugins.choose(uses)
        logits = D(G(torch.zeros(2, 8), None), None)
        assert layouts == [[is_contiguous] * 2] * 2 and logits.shape == (2, 1)
        layouts.clear()
    assert not bias_act.prefers_channels_last("cpu", torch.float16) and not bias_act.prefers_channels_last("meta", torch.float32)


def test_operator_without_a_kernel_is_its_formula():
    x, b, scale, noise = torch.randn(2, 3, 4, 4), torch.randn(3), torch.randn(2, 3), torch.randn(4, 4)
    y = bias_act.modulated_bias_act(x, b, scale, noise, act="lrelu", gain=2.0, clamp=1.5)
    z = x * scale[:, :, None, None] + noise + b[:, None, None]
    torch.testing.assert_close(y, (torch.nn.functional.leaky_relu(z, 0.2) * 2).clamp(-1.5, 1.5))


def run(path, options, **more):
    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **copy.deepcopy({**options, **more}))
    return state.load_state(state.latest_state(path))["parts"]


def test_resume_is_bitwise_with_kernels(cpu_kernels, tmp_path, loop_options, capsys):
    options = loop_options(total_kimg=0.048, kimg_per_tick=0.024, network_snapshot_ticks=1)
    whole = run(tmp_path / "whole", options)
    assert 'Setting up PyTorch plugin "cpu_ops_plugin"' not in capsys.readouterr().out  # it was there
    run(tmp_path / "parts", options, total_kimg=0.024)
    parts = run(tmp_path / "parts", options, resume_state=state.latest_state(tmp_path / "parts"))
    without = run(tmp_path / "without", options, kernels="off")
    differs = False
    for name in ("G", "D", "G_ema"):
        for key, tensor in whole[name].items():
            assert torch.equal(tensor, parts[name][key]), (name, key)
            differs |= not torch.equal(tensor, without[name][key])
            torch.testing.assert_close(tensor, without[name][key], rtol=1e-2, atol=1e-2)
    assert differs, "kernels were not used, or --kernels=off used them"


def test_adam_takes_one_pass_where_the_kernels_are(cpu_kernels, monkeypatch):
    adam, cpu = dict(class_name="torch.optim.Adam", lr=0.1), torch.device("cpu")
    assert setup.on_this_device(adam, cpu) == dict(adam, fused=True)
    for options, device in ((dict(adam, foreach=True), cpu), (dict(class_name="torch.optim.SGD", lr=0.1), cpu), (adam, torch.device("cuda"))):
        assert setup.on_this_device(options, device) is options
    monkeypatch.setenv("MADR_KERNELS", "off")
    assert setup.on_this_device(adam, cpu) is adam


def test_a_run_that_goes_on_keeps_its_optimizer(cpu_kernels):
    """A state of before, or of a run without kernels, has Adam tensor by tensor, and its bits go on so."""
    before, after = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    old, new = (
        torch.optim.Adam([before], lr=0.1),
        torch.optim.Adam(
            [after],
            **{k: v for k, v in setup.on_this_device(dict(class_name="torch.optim.Adam", lr=0.1), torch.device("cpu")).items() if k != "class_name"},
        ),
    )
    before.grad = torch.ones(3)
    old.step()
    assert new.param_groups[0]["fused"]
    new.load_state_dict(old.state_dict())
    assert not new.param_groups[0]["fused"]


@pytest.fixture
def nothing_set_aside():
    """Without the objects that conftest.py set aside for all tests."""
    gc.unfreeze()
    yield
    gc.freeze()


def test_garbage_collection_is_rare_in_training_and_as_before_afterwards(nothing_set_aside):
    before = gc.get_threshold()
    with pytest.raises(KeyError), setup.rare_garbage_collection():
        assert gc.get_threshold() == setup.GARBAGE_THRESHOLDS and gc.get_freeze_count() > 0 and gc.isenabled()
        raise KeyError
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0


def test_what_a_program_has_set_aside_stays_so(nothing_set_aside):
    gc.freeze()
    before, count = gc.get_threshold(), gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    with setup.rare_garbage_collection():
        assert gc.get_threshold() == setup.GARBAGE_THRESHOLDS and abs(gc.get_freeze_count() - count) < len(kept)
    assert gc.get_threshold() == before and gc.get_freeze_count() > count - len(kept)
