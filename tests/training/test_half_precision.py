"""bfloat16 in the upper blocks: where it is used and where not, that nothing else notices, and that runs go on exactly."""

import copy
import os
import pickle
import signal

import pytest
import torch

import madr_plugin.options
from madr_plugin.memory.sample_memory import SampleMemory
from torch_utils import devices, distributed
from training import half_precision, networks, state
from training.gan.loss import GANLoss
from training.loss import StyleGAN2Loss
from training.training_loop import training_loop

STEPS_OF_TWO_PROCESSES = 3


def make_networks(res=32, told="bfloat16", architecture=None, channels_last=True):
    """(G, D) with half precision in all blocks above 8x8, told to compute in a type."""
    torch.manual_seed(0)
    common = dict(channel_base=16 * res, channel_max=32, num_fp16_res=2, conv_clamp=256, **(dict(architecture=architecture) if architecture else {}))
    synthesis_kwargs = dict(common, fp16_channels_last=channels_last)
    G = networks.Generator(16, 0, 16, res, 3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=synthesis_kwargs)
    D = networks.Discriminator(0, res, 3, **common, block_kwargs=dict(fp16_channels_last=channels_last))
    tell(told, G, D)
    return G, D


def tell(told, *modules):
    for module in modules if told else ():
        for block in half_precision.blocks_of(module):
            block.half_type = told


def types_of_features(module, run):
    """{resolution: (dtype, channels-last) of what the block's last convolution gave} while run() runs."""
    seen = {}
    hooks = [
        block.conv1.register_forward_hook(
            lambda _layer, _inputs, x, size=block.resolution: seen.update(
                {size: (x.dtype, x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())}
            )
        )
        for block in module.modules()
        if hasattr(block, "half_type")
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


def relative_error(value, wanted):
    return float(((value - wanted).norm() / wanted.norm()).detach())


@pytest.mark.parametrize("architecture, channels_last", [("skip", True), ("resnet", True), ("orig", False)])
def test_upper_blocks_compute_in_bfloat16_and_nothing_else_does(architecture, channels_last):
    G, D = make_networks(architecture=architecture, channels_last=channels_last)
    z, c = torch.randn(4, 16), torch.zeros(4, 0)
    half, full = (torch.bfloat16, channels_last), (torch.float32, False)
    assert types_of_features(G, lambda: G(z, c)) == {4: full, 8: full, 16: half, 32: half}
    images, exact = G(z, c, noise_mode="const"), G(z, c, noise_mode="const", force_fp32=True)
    assert images.dtype == torch.float32 and images.is_contiguous() and 0 < relative_error(images, exact) < 0.02
    assert types_of_features(D, lambda: D(images, c)) == {8: full, 16: half, 32: half}
    logits = D(images, c)
    assert logits.dtype == torch.float32 and 0 < relative_error(logits, D(images, c, force_fp32=True)) < 0.05
    logits.sum().backward()
    gradients = [p.grad for p in [*G.parameters(), *D.parameters()] if p.grad is not None]
    assert gradients and all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


def test_gradients_agree_with_those_of_float32():
    G, D = make_networks()
    z, c = torch.randn(8, 16), torch.zeros(8, 0)

    def gradients(**how):
        loss = torch.nn.functional.softplus(-D(G.synthesis(G.mapping(z, c), noise_mode="const", **how), c, **how)).mean()
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, [*G.synthesis.parameters()])])

    half, full = gradients(), gradients(force_fp32=True)
    assert torch.cosine_similarity(half, full, dim=0) > 0.99 and not torch.equal(half, full)


def test_copies_and_pickles_are_the_familys_networks():
    G, _ = make_networks()
    plain, _ = make_networks(told=None)
    z, c = torch.randn(2, 16), torch.zeros(2, 0)
    for other in (copy.deepcopy(G), pickle.loads(pickle.dumps(G))):
        assert all(block.half_type is None for block in half_precision.blocks_of(other)) and len(half_precision.blocks_of(other)) == 2
        assert vars(other.synthesis.b32).keys() == vars(plain.synthesis.b32).keys()
        assert torch.equal(other(z, c, noise_mode="const"), plain(z, c, noise_mode="const"))  # in float32, as everywhere without CUDA
        assert other.init_kwargs == plain.init_kwargs
    assert not torch.equal(G(z, c, noise_mode="const"), plain(z, c, noise_mode="const"))


@pytest.mark.parametrize("phase", ["Dreg", "Dboth", "Greg"])
def test_regularisers_are_in_float32(phase):
    """The penalty and its gradients are those of the same networks without half precision."""
    found = []
    for told in ("bfloat16", "float32"):
        G, D = make_networks(told=told)
        loss = StyleGAN2Loss(torch.device("cpu"), G.mapping, G.synthesis, D, r1_gamma=3)
        learning = D if phase[0] == "D" else G
        if phase == "Dboth":
            loss.discriminator_fake = lambda *_: setattr(loss, "_fake_loss", torch.zeros(4, 1))
        G.requires_grad_(learning is G)
        D.requires_grad_(learning is D)
        torch.manual_seed(1)
        real = torch.rand(4, 3, 32, 32) * 2 - 1
        types = types_of_features(
            learning, lambda: loss.accumulate_gradients(phase, real, torch.zeros(4, 0), torch.randn(4, 16), torch.zeros(4, 0), True, 1)
        )
        assert {dtype for dtype, _ in types.values()} == {torch.float32}
        found.append([p.grad for p in learning.parameters() if p.grad is not None])
        if told == "bfloat16":
            assert {block.half_type for block in half_precision.blocks_of(learning)} == {told}  # put back
    assert len(found[0]) > 5 and all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_main_phases_are_in_bfloat16():
    G, D = make_networks()
    loss = StyleGAN2Loss(torch.device("cpu"), G.mapping, G.synthesis, D)
    arguments = (torch.rand(4, 3, 32, 32), torch.zeros(4, 0), torch.randn(4, 16), torch.zeros(4, 0), True, 1)
    for phase in ("Gmain", "Dmain"):
        G.requires_grad_(phase[0] == "G")
        D.requires_grad_(phase[0] == "D")
        for network in (G, D):
            types = types_of_features(network, lambda phase=phase: loss.accumulate_gradients(phase, *arguments))
            assert types[32][0] == types[16][0] == torch.bfloat16


def gan_gradients(told, phase, method, **values):
    """(types of G's features, gradients of the learner) of one phase of a loss with a method; styles are not mixed."""
    G, D = make_networks(told=told)
    loss = GANLoss(torch.device("cpu"), G.mapping, G.synthesis, D, methods=[dict(name=method, **values)], style_mixing_prob=0)
    learning = G if phase[0] == "G" else D
    G.requires_grad_(learning is G)
    D.requires_grad_(learning is D)
    torch.manual_seed(1)
    arguments = (torch.rand(4, 3, 32, 32), torch.zeros(4, 0), torch.randn(4, 16), torch.zeros(4, 0), True, 1)
    types = types_of_features(G, lambda: loss.accumulate_gradients(phase, *arguments))
    assert {block.half_type for network in (G, D) for block in half_precision.blocks_of(network)} == {told}  # put back
    return {dtype for dtype, _ in types.values()}, [p.grad for p in learning.parameters() if p.grad is not None]


@pytest.mark.parametrize("phase", ["Gmain", "Dmain"])
def test_images_of_near_latents_are_compared_in_float32(phase):
    """Those of zcr differ by less than bfloat16 rounds them, at a small sigma or where G has collapsed."""
    near = dict(method="zcr", dis=5.0, gen=0.5, sigma=1e-3)
    (types, half), (_, full) = (gan_gradients(told, phase, **near) for told in ("bfloat16", "float32"))
    assert types == {torch.float32}
    assert len(half) > 5 and all(torch.equal(one, other) for one, other in zip(half, full, strict=True))
    assert torch.bfloat16 in gan_gradients("bfloat16", phase, "mode-seeking", weight=1.0)[0]  # of latents that lie far apart


def test_a_derivative_error_puts_the_type_back():
    G, D = make_networks()
    with pytest.raises(RuntimeError), half_precision.full_precision(G, D):
        assert {block.half_type for block in half_precision.blocks_of(D)} == {"float32"}
        raise RuntimeError
    assert {block.half_type for block in half_precision.blocks_of(G)} == {"bfloat16"}


def test_float16_on_cuda_is_left_alone():
    """What nothing was told for keeps the family's rule, also in the regularisers."""
    _, D = make_networks(told=None)
    assert half_precision.begin(None, [D], torch.device("cpu")) is None
    with half_precision.full_precision(D):
        on_cuda = networks._block_precision(D.b32, D.b32.conv1.weight, False, torch.device("cuda"))
    assert on_cuda == dict(dtype=torch.float16, memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------------
# What the machine can do.


@pytest.mark.parametrize(
    "amx, avx512_bf16, name",
    [(False, False, None), (False, True, "AVX512-BF16"), (True, True, "AMX"), (None, True, "AVX512-BF16"), (None, None, None)],
)
def test_instructions_of_a_cpu(monkeypatch, amx, avx512_bf16, name):
    """None: a PyTorch without the question."""
    for question, answer in (("_is_amx_tile_supported", amx), ("_is_avx512_bf16_supported", avx512_bf16)):
        if answer is None:
            monkeypatch.delattr(torch.cpu, question, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, question, lambda answer=answer: answer, raising=False)
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert devices.bf16_instructions("cpu") == name and devices.bf16_instructions("mps") is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert devices.bf16_instructions(torch.device("cpu")) is None


def test_a_machine_without_computes_in_float32_and_says_so(monkeypatch):
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: None)
    G, D = make_networks(told=None)
    told = half_precision.begin("bf16", [G, D], torch.device("cpu"))
    assert "bfloat16 is left out" in told and "AVX512-BF16" in told and "--half=off" in told
    z, c = torch.randn(2, 16), torch.zeros(2, 0)
    assert {dtype for dtype, _ in types_of_features(G, lambda: G(z, c)).values()} == {torch.float32}
    without_blocks = torch.nn.Linear(2, 2)
    assert "no blocks for it" in half_precision.begin("bf16", [without_blocks], torch.device("cpu"))


# ------------------------------------------------------------------------------------------
# Runs.


@pytest.fixture
def half_options(loop_options, monkeypatch):
    """half_options(...) -> loop_options of a run with bfloat16 at 16 px; small, for a CPU without the instructions takes its time."""
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: "test")

    def make(**overrides):
        options = loop_options(half="bf16", **{"batch_size": 4, **overrides})
        for kwargs in (options["G_kwargs"]["synthesis_kwargs"], options["D_kwargs"]):
            kwargs.update(num_fp16_res=1, conv_clamp=256)
        options["G_kwargs"]["synthesis_kwargs"].update(fp16_channels_last=True)
        options["D_kwargs"]["block_kwargs"] = dict(fp16_channels_last=True)
        return options

    return make


def run(path, options, **more):
    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **{**options, **more})
    return state.load_state(state.latest_state(path))["parts"]


class StopAfter:
    """abort_fn that sends this process a signal after some steps."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self):
        self.steps -= 1
        if self.steps == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return False


def assert_same(one, other):
    for network in ("G", "D", "G_ema"):
        assert all(torch.equal(value, other[network][name]) for name, value in one[network].items())


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, half_options, capsys):
    """Bit for bit, and what is saved opens as the family's networks."""
    options = half_options(total_kimg=0.02, kimg_per_tick=0.012, network_snapshot_ticks=1)
    whole = run(tmp_path / "whole", options)
    told = capsys.readouterr().out
    assert "Half precision: bfloat16 (test) in the blocks of 16 px" in told and "bfloat16" in told[told.index("b16.conv0") :].splitlines()[0]
    with pytest.raises(SystemExit):
        run(tmp_path / "parts", options, abort_fn=StopAfter(2))
    parts = run(tmp_path / "parts", options, resume_state=state.latest_state(tmp_path / "parts"))
    assert_same(whole, parts)
    with open(tmp_path / "whole" / "network-snapshot-000000.pkl", "rb") as file:
        saved = pickle.load(file)
    assert all("half_type" not in vars(module) for module in saved["G"].modules()) and saved["G"].synthesis.b16.use_fp16


def _train(rank, options):
    torch.set_num_threads(1)
    devices.bf16_instructions = lambda _device: "test"  # this is another process than the test's
    training_loop(rank=rank, **options)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, half_options, warm_processes):
    """Few steps: sums of gradients differ in their last bits, and bfloat16 rounds some of that up to its own."""
    options = half_options(
        batch_size=8, total_kimg=STEPS_OF_TWO_PROCESSES * 8 / 1000, network_snapshot_ticks=1, augment_kwargs=None, ada_target=None, augment_p=0
    )
    parts = []
    for count in (1, 2):
        run_dir = tmp_path / str(count)
        os.makedirs(run_dir)
        distributed.launch(_train, {**options, "run_dir": str(run_dir), "num_gpus": count}, count)
        parts.append(state.load_state(state.latest_state(run_dir))["parts"])
    one, two = parts
    assert one["progress"]["batch_idx"] == two["progress"]["batch_idx"] == STEPS_OF_TWO_PROCESSES
    for network in ("G", "D"):
        for name, value in one[network].items():
            tolerance = 0.02 if name.endswith("w_avg") else 0.002
            assert float((value - two[network][name]).abs().max()) <= tolerance * max(float(value.abs().max()), 1), (network, name)


def test_madr_sees_float32(half_options, tmp_path, monkeypatch):
    """What MADR measures of images of a bfloat16 generator; with it, too, a run in two parts is the run in one."""
    offered = set()
    offer = SampleMemory.offer

    def watched(self, samples, *args, **kwargs):
        offered.update({samples["features"].dtype, samples["latents"].dtype})
        return offer(self, samples, *args, **kwargs)

    monkeypatch.setattr(SampleMemory, "offer", watched)
    options = half_options(total_kimg=0.016, kimg_per_tick=0.008, network_snapshot_ticks=1, num_classes=0)
    madr_plugin.options.apply(options, dict(madr=1, madr_deficit_window=64, madr_reals=16, madr_width=8))
    whole = run(tmp_path / "whole", options)
    assert offered == {torch.float32}
    with pytest.raises(SystemExit):
        run(tmp_path / "parts", options, abort_fn=StopAfter(1))
    assert_same(whole, run(tmp_path / "parts", options, resume_state=state.latest_state(tmp_path / "parts")))
