"""The images of one class of a labelled data set, with the face of a data set.

Must not know metrics.
"""

import numpy as np
import torch.utils.data


class OneClass(torch.utils.data.Dataset):
    """Those `items` (indices) of a data set with class labels whose label is `number`."""

    def __init__(self, dataset, number, items):
        self.whole, self.number, self.items = dataset, number, items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, idx):
        return self.whole[self.items[idx]]

    def get_label(self, idx):
        return self.whole.get_label(self.items[idx])

    def get_details(self, idx):
        return self.whole.get_details(self.items[idx])

    def content_fingerprint(self):
        return f"{self.whole.content_fingerprint()}, class {self.number}"

    def close(self):
        self.whole.close()

    # What holds of the whole set holds of the part.
    name = property(lambda self: self.whole.name)
    image_shape = property(lambda self: self.whole.image_shape)
    num_channels = property(lambda self: self.whole.num_channels)
    resolution = property(lambda self: self.whole.resolution)
    label_shape = property(lambda self: self.whole.label_shape)
    label_dim = property(lambda self: self.whole.label_dim)
    has_labels = property(lambda self: self.whole.has_labels)
    has_onehot_labels = property(lambda self: self.whole.has_onehot_labels)
    class_names = property(lambda self: self.whole.class_names)
    provenance = property(lambda self: self.whole.provenance)


def by_class(dataset):
    """{class number: OneClass} of a data set with class labels, empty ones included."""
    classes_N = np.array([int(dataset.get_details(i).raw_label) for i in range(len(dataset))], np.int64)
    return {number: OneClass(dataset, number, np.flatnonzero(classes_N == number)) for number in range(dataset.label_dim)}
