"""Networks and detectors of milliseconds for the tests of the metrics."""

import pytest
import torch

from metrics import extractors, progress
from metrics.metric_utils import MetricOptions


class ToyGenerator(torch.nn.Module):
    """16x16 RGB images that are a smooth function of z, the label and, when noise_mode is 'random', of torch's generator."""

    def __init__(self, c_dim=0, resolution=16, scale=1.0):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.img_channels, self.img_resolution = 8, c_dim, 8, 3, resolution
        draw = torch.Generator().manual_seed(1)
        self.register_buffer("mix", torch.randn(8 + c_dim, 3 * 4 * 4, generator=draw) * scale)
        self.register_buffer("noise_const", torch.zeros(resolution, resolution))

    def mapping(self, z, c, truncation_psi=1, truncation_cutoff=None):
        return (torch.cat([z, c], dim=1) * truncation_psi)[:, None].repeat(1, 2, 1)

    def synthesis(self, ws, noise_mode="random", force_fp32=False):
        coarse = torch.tanh(ws[:, 0] @ self.mix).reshape(-1, 3, 4, 4)
        x = torch.nn.functional.interpolate(coarse, size=[self.img_resolution] * 2, mode="bilinear")
        if noise_mode == "random":
            x = x + 0.1 * torch.randn(x.shape, device=x.device)
        return x

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, **synthesis_kwargs):
        return self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), **synthesis_kwargs)


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory):
    """A TorchScript file that stands in for every published detector."""
    path = tmp_path_factory.mktemp("detectors") / "tiny.pt"
    extractors.save_torchscript("random-conv", path)
    return str(path)


@pytest.fixture
def options(tiny_zip, detector_file):
    """options(**overrides) -> MetricOptions with a toy generator, a toy data set and the toy detector."""

    def make(c_dim=0, **overrides):
        kwargs = dict(
            G=ToyGenerator(c_dim),
            device="cpu",
            detectors=dict(inception=detector_file, vgg16=detector_file),
            num_gen=40,
            dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=30, num_classes=3)),
        )
        kwargs.update(overrides)
        return MetricOptions(**kwargs)

    return make


@pytest.fixture
def toy_generator():
    return ToyGenerator


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    """A warning is said once per process; no test has said any before this one."""
    monkeypatch.setattr(progress, "_told", set())


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
