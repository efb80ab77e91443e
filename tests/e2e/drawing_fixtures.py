"""Networks of a second's making that know what their labels are, and what the tests of the drawing tools ask of every call."""

import pickle

import numpy as np
import PIL.Image
import torch

from training import label_facts, networks

NUM_WS, W_DIM = 6, 8
ANIMALS = ["cat", "dog", "horse"]


def tiny_generator(c_dim=0, seed=0, img_channels=3):
    """A generator of 16 px with random weights."""
    torch.manual_seed(seed)
    synthesis_kwargs = dict(channel_base=256, channel_max=16)
    shape = dict(z_dim=8, c_dim=c_dim, w_dim=W_DIM, img_resolution=16, img_channels=img_channels)
    return networks.Generator(**shape, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=synthesis_kwargs).eval()


def save_snapshot(generator, path, labels=None, class_names=None, data=None):
    """Write a network pickle; labels: of the training set, as the training loop states them to the generator."""
    if labels is not None:
        label_facts.keep_with(generator, label_facts.of_labels(np.asarray(labels), class_names))
    discriminator = networks.Discriminator(
        c_dim=generator.c_dim, img_resolution=16, img_channels=generator.img_channels, channel_base=64, channel_max=4
    )
    training_set_kwargs = None if data is None else dict(class_name="training.dataset.ImageFolderDataset", path=str(data), use_labels=True)
    with open(path, "wb") as file:
        pickle.dump(dict(G=generator, D=discriminator, G_ema=generator, augment_pipe=None, training_set_kwargs=training_set_kwargs), file)
    return str(path)


def read_png(path):
    """The pixels of a file."""
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def assert_sentence(result, *parts):
    """The command ended with one sentence that holds the parts."""
    code, _, err = result
    assert code == 1 and err.startswith("Error: ") and err.count("\n") == 1, result
    for part in parts:
        assert part in err, err
