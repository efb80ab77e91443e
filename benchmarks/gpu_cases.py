"""What benchmarks/gpu.py times: its cases, as functions that are made when their turn has come. Imports nothing heavy by itself."""

import dataclasses
from collections.abc import Callable

from dnnlib import console

DEVICE = "cuda"
KERNEL, PLAIN = "kernels", "plain PyTorch"
DTYPES = ("float32", "float16", "bfloat16")
FILTER = [1, 3, 3, 1]


@dataclasses.dataclass(frozen=True)
class Case:
    """ways(): {name: function without arguments}, made when its turn has come. alike: whether all give the same numbers."""

    section: str
    name: str
    ways: Callable
    alike: str | None = None  # one of DTYPES
    per_call: int = 1  # what one call does: its time is divided by it


# ------------------------------------------------------------------------------------------
# Operators.

RESAMPLINGS = {
    "filter": dict(up=1, down=1, padding=[2, 1, 2, 1], gain=1),
    "enlarge": dict(up=2, down=1, padding=[2, 1, 2, 1], gain=4),
    "shrink": dict(up=1, down=2, padding=[1, 1, 1, 1], gain=1),
}
SHAPES = ((16, 512, 32), (16, 64, 256))  # images, channels, side


def passes_of(function, inputs):
    """{pass: function without arguments -> tensor}: forward, with the first derivative, with a penalty on the gradient besides."""
    import torch

    def forward():
        with torch.no_grad():
            return function(*inputs)

    def first():
        result = function(*inputs)
        return torch.autograd.grad(result, inputs[0], torch.ones_like(result))[0]

    def second():
        (gradient,) = torch.autograd.grad(function(*inputs).square().sum(), inputs[0], create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), inputs[0])[0]

    return dict(forward=forward, first=first, second=second)


def operator_ways(call, shapes, dtype, channels_last, kind):
    """{way: one pass of call(*tensors, impl=...)}"""
    import torch

    generator = torch.Generator().manual_seed(0)
    tensors = [(0.1 * torch.randn(*shape, generator=generator)).to(DEVICE, getattr(torch, dtype)) for shape in shapes]
    if channels_last:
        tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    inputs = [tensor.requires_grad_() for tensor in tensors]
    ways = {KERNEL: "cuda", PLAIN: "ref"}
    return {name: passes_of(lambda *given, impl=impl: call(*given, impl=impl), inputs)[kind] for name, impl in ways.items()}


def operator_cases():
    def activate(x, b, impl):
        from torch_utils.ops import bias_act

        return bias_act.bias_act(x, b, act="lrelu", clamp=256, impl=impl)

    def resample(options):
        def call(x, impl):
            from torch_utils.ops import upfirdn2d

            return upfirdn2d.upfirdn2d(x, upfirdn2d.setup_filter(FILTER, device=x.device), impl=impl, **options)

        return call

    operators = {"bias_act lrelu": (activate, True), **{f"upfirdn2d {name}": (resample(options), False) for name, options in RESAMPLINGS.items()}}
    for operator, (call, has_bias) in operators.items():
        for dtype in DTYPES:
            for channels_last in (False, True):
                for images, channels, side in SHAPES:
                    shapes = [(images, channels, side, side), *([(channels,)] if has_bias else [])]
                    layout = "channels-last" if channels_last else "contiguous"
                    for kind in ("forward", "first", "second"):
                        make = lambda call=call, shapes=shapes, dtype=dtype, last=channels_last, kind=kind: operator_ways(
                            call, shapes, dtype, last, kind
                        )
                        yield Case("operators", f"{operator}, {kind}, {dtype}, {layout}, {images}x{channels}x{side}x{side}", make, alike=dtype)


# ------------------------------------------------------------------------------------------
# Training steps.

WIDTH_OF_NETWORKS = dict(channel_base=16384, channel_max=512)  # of --cfg=paper256
CYCLE = 16  # steps, with the path length in every 4th and R1 in every 16th


class Training:
    """G and D on random images: cycle() makes CYCLE steps."""

    def __init__(self, resolution, batch, precision, kernels=True, madr=None):
        import torch

        from torch_utils.ops import plugins
        from training import loss, networks

        torch.manual_seed(0)
        half = precision != "float32"
        size = dict(WIDTH_OF_NETWORKS, num_fp16_res=4 if half else 0, conv_clamp=256 if half else None)
        common = dict(c_dim=0, img_resolution=resolution, img_channels=3)
        synthesis = dict(size, fp16_channels_last=precision == "bfloat16")
        block = dict(fp16_channels_last=precision == "bfloat16")
        self.G = networks.Generator(z_dim=512, w_dim=512, mapping_kwargs=dict(num_layers=8), synthesis_kwargs=synthesis, **common).to(DEVICE)
        self.D = networks.Discriminator(**common, **size, block_kwargs=block, epilogue_kwargs=dict(mbstd_group_size=4)).to(DEVICE)
        if precision == "bfloat16":
            from training import half_precision

            half_precision.begin("bf16", [self.G, self.D], torch.device(DEVICE))
        self.choose_kernels = lambda: plugins.choose(kernels)
        self.opts = {name: torch.optim.Adam(network.parameters(), lr=0.002, betas=(0.0, 0.99)) for name, network in (("G", self.G), ("D", self.D))}
        images = torch.randint(0, 256, [256, 3, resolution, resolution], dtype=torch.uint8)
        self.real = images[:batch].to(DEVICE).float() / 127.5 - 1
        self.z, self.c = torch.randn(batch, 512, device=DEVICE), torch.zeros(batch, 0, device=DEVICE)
        kwargs = dict(G_mapping=self.G.mapping, G_synthesis=self.G.synthesis, D=self.D, r1_gamma=1)
        self.loss = loss.StyleGAN2Loss(torch.device(DEVICE), **kwargs) if madr is None else with_madr(madr, images.numpy(), kwargs)

    def phase(self, name, gain):
        opt = self.opts[name[0]]
        self.G.requires_grad_(name[0] == "G"), self.D.requires_grad_(name[0] == "D")
        opt.zero_grad(set_to_none=True)
        self.loss.begin_phase(name, 0)
        self.loss.accumulate_gradients(name, self.real, self.c, self.z, self.c, sync=True, gain=gain)
        opt.step()
        self.loss.end_phase(name)

    def cycle(self):
        self.choose_kernels()
        for step in range(CYCLE):
            for name, interval in (("Gmain", 1), ("Greg", 4), ("Dmain", 1), ("Dreg", CYCLE)):
                if step % interval == 0:
                    self.phase(name, interval)


class Images:
    """A data set of the StyleGAN2-ADA kind."""

    def __init__(self, images):
        self.images, self.image_shape, self.label_shape = images, list(images.shape[1:]), [0]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        import numpy as np

        return self.images[index].copy(), np.zeros([0], np.float32)


def with_madr(madr, images, kwargs):
    import torch

    from madr_plugin.loss import MADRLoss

    made = MADRLoss(torch.device(DEVICE), base_class_name="training.loss.StyleGAN2Loss", madr=madr, **kwargs)
    made.attach(dict(training_set=Images(images), random_seed=0))
    return made


def step_cases(batch):
    for resolution in (64, 128, 256):
        for precision in DTYPES:

            def make(resolution=resolution, precision=precision):
                return {way: Training(resolution, batch, precision, kernels=way == KERNEL).cycle for way in (KERNEL, PLAIN)}

            yield Case("training step", f"G+D step, {resolution} px, {batch} images, {precision}", make, per_call=CYCLE)


MADR_WAYS = {"default": dict(preset="default"), "witness": dict(preset="witness"), "plain GAN": None}


def madr_cases(batch):
    def make():
        return {way: Training(64, batch, "float32", madr=madr).cycle for way, madr in MADR_WAYS.items()}

    yield Case("MADR", f"G+D step, 64 px, {batch} images, float32", make, per_call=CYCLE)


# ------------------------------------------------------------------------------------------
# Upkeep of coverage.

REALS, MEMORY, REPLACED, WIDTH = 50_000, 2048, 64, 384


def coverage_ways():
    import torch

    from madr_plugin.maths import estimators

    generator = torch.Generator(DEVICE).manual_seed(0)
    randn = lambda *shape: torch.randn(*shape, generator=generator, device=DEVICE)
    real_ND, memory_KD, sigma = randn(REALS, WIDTH), randn(MEMORY, WIDTH), float(WIDTH) ** 0.5
    scores = {"kept up to date": estimators.IncrementalScore(real_ND), "all pairs": estimators.ExactScore(real_ND)}

    def update(score):
        memory_KD[torch.randint(MEMORY, [REPLACED], generator=generator, device=DEVICE)] = randn(REPLACED, WIDTH)
        return score.scores(memory_KD, sigma)

    search = faiss_search(real_ND, memory_KD)
    ways = {name: lambda score=score: update(score) for name, score in scores.items()}
    return dict(ways) if search is None else {"kept up to date": ways.pop("kept up to date"), "faiss-gpu, flat": search, **ways}


def faiss_search(real_ND, memory_KD):
    """The nearest entry of each real by faiss-gpu, or None with a line where that is not installed."""
    try:
        import faiss
        import faiss.contrib.torch_utils  # has faiss take tensors where they are
    except ImportError:
        faiss = None
    if faiss is None or not hasattr(faiss, "StandardGpuResources"):
        console.note("faiss-gpu is not installed: its row is left out (pip install faiss-gpu-cu12)")
        return None
    resources = faiss.StandardGpuResources()

    def search():
        index = faiss.GpuIndexFlatL2(resources, WIDTH)
        index.add(memory_KD)
        return index.search(real_ND, 1)

    return search


def coverage_cases():
    yield Case("coverage", f"upkeep of N = {REALS}, K = {MEMORY}, b = {REPLACED}, d = {WIDTH}", coverage_ways)


def all_cases(batch):
    """Everything, in the order in which it is timed."""
    return [*operator_cases(), *step_cases(batch), *madr_cases(batch), *coverage_cases()]
