"""Snapshots that forks write with MADR and without augmentation: their pipe is an Identity with tensors on it, opened without running it."""

import copyreg
import io
import pickle

import pytest
import torch

import legacy
from madr_plugin.augment_pipe import CARRIED, MADRAugmentPipe
from torch_utils import safe_unpickle
from training import networks


def snapshot(pipe):
    made = networks.Generator(z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=1, synthesis_kwargs=dict(channel_base=64, channel_max=8))
    judge = networks.Discriminator(c_dim=0, img_resolution=8, img_channels=1, channel_base=64, channel_max=8)
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path="x.zip")
    # As the family writes it: what the data set was comes before or after, and names a class as well.
    return dict(training_set_kwargs=kwargs, G=made, D=judge, G_ema=made, augment_pipe=pipe)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_it_opens_with_what_it_carries(protocol):
    pipe = MADRAugmentPipe()
    pipe.carry(dict(step=torch.tensor(7), memory__features=torch.arange(6.0).reshape(2, 3)))
    loaded = legacy.load_network_pkl(io.BytesIO(pickle.dumps(snapshot(pipe), protocol=protocol)))
    found = loaded["augment_pipe"]
    assert type(found) is torch.nn.Identity and float(found.p) == 0 and found.training == pipe.base.training
    assert int(getattr(found, CARRIED)["step"]) == 7 and torch.equal(getattr(found, CARRIED)["memory__features"], torch.arange(6.0).reshape(2, 3))
    assert loaded["G_ema"].img_resolution == 8


def test_an_identity_that_brings_more_is_refused():
    pipe = torch.nn.Identity()
    pipe.inner = torch.nn.Identity()
    with pytest.raises(safe_unpickle.RefusedPickle, match="Identity that is more"):
        legacy.load_network_pkl(io.BytesIO(pickle.dumps(snapshot(pipe))))
    for state in (dict(_buffers=dict(p=3)), 5, dict(_buffers=5)):
        with pytest.raises(safe_unpickle.RefusedPickle, match="Identity"):
            safe_unpickle.load(io.BytesIO(pickle.dumps(Stateful(state))), name="x.pkl")


class Stateful:
    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return copyreg._reconstructor, (torch.nn.Identity, object, None), self.state


class Foreign(torch.nn.Module):
    """Of a class that no checkout knows."""


def test_a_refusal_does_not_name_the_class_of_the_data_set():
    with pytest.raises(safe_unpickle.RefusedPickle) as caught:
        legacy.load_network_pkl(io.BytesIO(pickle.dumps(snapshot(Foreign()))))
    assert "Foreign" in str(caught.value) and "ImageFolderDataset" not in str(caught.value)
