"""The networks of the comparison of GANs beside StyleGAN2's own: DCGAN (Radford et al. 2015, 1511.06434), and what may be added to a
discriminator: spectral normalisation (Miyato et al. 2018, 1802.05957), minibatch discrimination (Salimans et al. 2016, 1606.03498).

    DCGANGenerator           z, c -> DCGANMapping: z beside the label -> DCGANSynthesis: transposed convolutions -> images
    DCGANDiscriminator       images, labels -> convolutions that halve -> features -> logits
    StyleGAN2Discriminator   that of training/networks.py with one or both of the additions; the same names of parameters

Every snapshot stores the text of this file, and other code bases of the family execute it. Hence it imports only torch and what
all of them have, and the networks of StyleGAN2 only while one is constructed. Must not know losses, data or the training loop.

Legend of shapes: N images, F features, B kernels of minibatch discrimination, C their dimensions, H x W pixels.
"""

import torch
import torch.nn.functional as F

from torch_utils import misc, persistence

FIRST_SIDES = {14: 7, 28: 7, 16: 4, 32: 4, 64: 4, 128: 4}  # pixels of the images: pixels of the smallest features
NORMS = ("batch", "none", "layer", "spectral")
SPECTRAL_SETTLING_STEPS = 15  # power iterations before training, as in PyTorch


# ---------------------------------------------------------------------------------------------------------------
# Additions to any discriminator.


@persistence.persistent_class
class SpectralNorm(torch.nn.Module):
    """weight -> weight / sigma(weight), its largest singular value, for matrices [height, width] (1802.05957, algorithm 1).

    sigma = u^T W v, where u and v follow the singular vectors by one power iteration after each step of the weight, as in the algorithm,
    however many passes a step has: whoever trains calls follow_weights(). They are buffers, so that a resumed run goes on with them.
    With one pass in each step the same numbers as torch.nn.utils.parametrizations.spectral_norm, whose modules cannot be pickled.
    """

    def __init__(self, height, width, eps=1e-12):
        super().__init__()
        self.eps = eps
        self.register_buffer("u", F.normalize(torch.randn(height), dim=0, eps=eps))
        self.register_buffer("v", F.normalize(torch.randn(width), dim=0, eps=eps))

    @torch.no_grad()
    def settle(self, weight, steps=1):
        """Move u and v by power iterations of a weight [height, ...]; its other dimensions count as one."""
        matrix = weight.flatten(1)
        for _ in range(steps):
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=self.eps))
            self.v.copy_(F.normalize(matrix.t() @ self.u, dim=0, eps=self.eps))

    def forward(self, weight):
        return weight / (self.u @ (weight.flatten(1) @ self.v))


def follow_weights(module, steps=1):
    """Power iterations of every SpectralNorm in a network whose weights have changed, one after a step. Alike wherever the weights are."""
    for layer in module.modules():
        norm = getattr(layer, "spectral_norm", None)
        if isinstance(norm, SpectralNorm):
            norm.settle(layer.weight, steps)


@persistence.persistent_class
class MinibatchDiscrimination(torch.nn.Module):
    """Features [N,F] -> how close each image is to the others of its batch, [N,B] (1606.03498, section 3.2).

    M_i = f_i T with T [F,B,C];  o_ib = sum over j of exp(-|M_ib - M_jb|_1), j = i among them. num_images: the N that D learns with. Of
    another N the sum over the other images is scaled to as many, since a larger sum would say that images are closer. None: never.
    """

    def __init__(self, in_features, num_kernels=50, kernel_dim=5, num_images=None):
        super().__init__()
        self.in_features, self.num_kernels, self.kernel_dim, self.num_images = in_features, num_kernels, kernel_dim, num_images
        # Unit variance of M where the features have it: distances near 1, at which exp() has a slope.
        self.initial_std = in_features**-0.5
        self.T = torch.nn.Parameter(torch.randn(in_features, num_kernels, kernel_dim) / in_features**0.5)

    def forward(self, features_NF):
        M_NBC = torch.einsum("nf,fbc->nbc", features_NF, self.T)
        distance_NNB = (M_NBC[:, None] - M_NBC[None, :]).abs().sum(dim=3)
        closeness_NB = (-distance_NNB).exp().sum(dim=1)
        num_others = len(features_NF) - 1
        if self.num_images is None or num_others in (0, self.num_images - 1):
            return closeness_NB
        return 1 + (closeness_NB - 1) * ((self.num_images - 1) / num_others)


@persistence.persistent_class
class ClosenessHead(torch.nn.Module):
    """The last layer of a discriminator, which takes the features and their minibatch discrimination side by side."""

    def __init__(self, in_features, num_kernels, kernel_dim, num_images=None):
        super().__init__()
        self.closeness = MinibatchDiscrimination(in_features, num_kernels, kernel_dim, num_images)
        self.linear = None  # the backbone's own kind of layer, in_features + num_kernels wide

    def forward(self, features_NF):
        return self.linear(torch.cat([features_NF, self.closeness(features_NF)], dim=1))


# ---------------------------------------------------------------------------------------------------------------
# Layers of DCGAN.


@persistence.persistent_class
class DCGANLayer(torch.nn.Module):
    """A layer with weight and, perhaps, bias. kind: 'linear', 'conv' or 'transposed' convolution.

    init_std: weights ~ N(0, init_std), bias 0 (section 4 of 1511.06434); None: PyTorch's own first weights. No bias goes before batch
    normalisation, which takes it away again: its gradient would be rounding errors alone. PyTorch's own layers have it there, too.
    """

    def __init__(
        self, kind, in_features, out_features, kernel_size=4, stride=2, padding=1, init_std=0.02, spectral_norm=False, bias=True, output_padding=0
    ):
        super().__init__()
        self.kind, self.stride, self.padding, self.output_padding = kind, stride, padding, output_padding
        self.initial_std = init_std  # for whoever bounds the weights
        pair = (in_features, out_features) if kind == "transposed" else (out_features, in_features)
        weight = torch.empty(pair if kind == "linear" else (*pair, kernel_size, kernel_size))
        self.bias = torch.nn.Parameter(torch.zeros(out_features)) if bias or init_std is None else None
        if init_std is None:
            torch.nn.init.kaiming_uniform_(weight, a=5**0.5)
            bound = weight[0].numel() ** -0.5
            torch.nn.init.uniform_(self.bias, -bound, bound)
        else:
            torch.nn.init.normal_(weight, std=init_std)
        self.weight = torch.nn.Parameter(weight)
        self.spectral_norm = None
        if spectral_norm:
            self.spectral_norm = SpectralNorm(weight.shape[0], weight[0].numel())
            self.spectral_norm.settle(weight, SPECTRAL_SETTLING_STEPS)

    def forward(self, x):
        weight = self.weight if self.spectral_norm is None else self.spectral_norm(self.weight)
        if self.kind == "linear":
            return F.linear(x, weight, self.bias)
        if self.kind == "transposed":
            return F.conv_transpose2d(x, weight, self.bias, stride=self.stride, padding=self.padding, output_padding=self.output_padding)
        return F.conv2d(x, weight, self.bias, stride=self.stride, padding=self.padding)

    def extra_repr(self):
        return f"{self.kind}, shape={list(self.weight.shape)}, stride={self.stride}"


@persistence.persistent_class
class DCGANNorm(torch.nn.Module):
    """kind 'batch': by the mean and variance of the batch, while training; later by their running averages. 'layer': of each image.

    The averages belong to the microbatches of one process: several processes average theirs after each step.
    """

    def __init__(self, kind, num_channels, momentum=0.1, eps=1e-5):
        super().__init__()
        self.kind, self.momentum, self.eps = kind, momentum, eps
        self.weight = torch.nn.Parameter(torch.ones(num_channels))
        self.bias = torch.nn.Parameter(torch.zeros(num_channels))
        if kind == "batch":
            self.register_buffer("running_mean", torch.zeros(num_channels))
            self.register_buffer("running_var", torch.ones(num_channels))

    def forward(self, x):
        if self.kind == "layer":
            return F.group_norm(x, 1, self.weight, self.bias, self.eps)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps)


def _first_side(img_resolution):
    """The side of the smallest features; refuse images of other sizes."""
    if img_resolution not in FIRST_SIDES:
        raise ValueError(f"DCGAN draws images of {', '.join(map(str, sorted(FIRST_SIDES)))} pixels (got {img_resolution})")
    return FIRST_SIDES[img_resolution]


def _num_doublings(img_resolution):
    return (img_resolution // _first_side(img_resolution)).bit_length() - 1


def _halved(side, times, kernel_size):
    """The sides of an image through convolutions of stride 2: a kernel of 4 rounds down, one of 3 up. -> [times + 1]."""
    sides = [side]
    for _ in range(times):
        sides.append((sides[-1] + 4 - kernel_size) // 2)
    return sides


def _widths(img_resolution, channel_base, channel_max):
    """Feature maps from half the resolution down: min(channel_base / side, channel_max), as in StyleGAN2; by default 64, 128, ..."""
    sides = [img_resolution // 2 ** (level + 1) for level in range(_num_doublings(img_resolution))]
    return [min((channel_base or 32 * img_resolution) // side, channel_max) for side in sides]


def _checked_norm(norm, allowed):
    if norm not in allowed:
        raise ValueError(f"norm must be one of {', '.join(allowed)} (got {norm!r})")
    return norm


# ---------------------------------------------------------------------------------------------------------------
# DCGAN's generator.


@persistence.persistent_class
class DCGANMapping(torch.nn.Module):
    """Latents z [N,z_dim] and labels c [N,c_dim] -> ws [N,1,w_dim]: z itself, beside an embedding of the label (Mirza 2014, 1411.1784).

    truncation_psi draws z towards its mean, which is 0; the label stays.
    """

    def __init__(self, z_dim, c_dim, label_features=64):
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws = z_dim, c_dim, 1
        self.w_dim = z_dim + (label_features if c_dim > 0 else 0)
        if c_dim > 0:  # as varied as z is, or the label would be overheard
            self.embed = DCGANLayer("linear", c_dim, label_features, init_std=1)

    def forward(self, z, c=None, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False, update_emas=False):
        """skip_w_avg_update and update_emas are the family's; there is no average to update."""
        misc.assert_shape(z, [None, self.z_dim])
        if truncation_psi != 1 and truncation_cutoff != 0:
            z = z * truncation_psi
        if self.c_dim > 0:
            misc.assert_shape(c, [z.shape[0], self.c_dim])
            z = torch.cat([z, self.embed(c.to(self.embed.weight.dtype))], dim=1)
        return z[:, None, :]


@persistence.persistent_class
class DCGANSynthesis(torch.nn.Module):
    """ws [N,1,w_dim] -> images [N,img_channels,img_resolution,img_resolution] in [-1, 1].

    There are min(channel_base / side, channel_max) feature maps, by default 64 at half the resolution. channels: the feature maps
    themselves, from the smallest side up; with one number more than there are doublings a 3x3 convolution at full resolution
    makes the image. norm: 'batch' or 'none'. kernel_size 3: channels holds a number for each doubling and one more, and sides are halved
    and rounded up: 28, 14, 7, 4.
    """

    def __init__(
        self, w_dim, img_resolution, img_channels, channel_base=None, channel_max=512, channels=None, norm="batch", init_std=0.02, kernel_size=4
    ):
        super().__init__()
        channels = list(channels or reversed(_widths(img_resolution, channel_base, channel_max)))
        _checked_norm(norm, ("batch", "none"))
        self.w_dim, self.img_resolution, self.img_channels, self.num_ws = w_dim, img_resolution, img_channels, 1
        _first_side(img_resolution)
        num_doublings = _num_doublings(img_resolution) if kernel_size == 4 else len(channels) - 1
        sides = _halved(img_resolution, num_doublings, kernel_size)[::-1]
        self.side, self.num_layers = sides[0], len(channels)
        if len(channels) not in (num_doublings, num_doublings + 1):
            raise ValueError(f"channels must hold {num_doublings} or {num_doublings + 1} numbers for {img_resolution} pixels (got {channels})")
        biased = dict(init_std=init_std, bias=norm != "batch")
        self.start = DCGANLayer("linear", w_dim, channels[0] * self.side**2, **biased)
        for index, (channels_in, channels_out) in enumerate(zip(channels, [*channels[1:], img_channels])):
            if norm == "batch":
                setattr(self, f"norm{index}", DCGANNorm("batch", channels_in))
            kind = dict(kind="conv", kernel_size=3, stride=1)
            if index < num_doublings:  # a kernel of 3 makes 2 s - 1 of s pixels, and one more where that is asked for
                more = sides[index + 1] - 2 * sides[index] + 4 - kernel_size
                kind = dict(kind="transposed", kernel_size=kernel_size, output_padding=more)
            kind.update(biased if index + 1 < len(channels) else dict(init_std=init_std))
            setattr(self, f"conv{index}", DCGANLayer(in_features=channels_in, out_features=channels_out, **kind))

    def forward(self, ws, noise_mode="const", force_fp32=False, fused_modconv=None):
        """The keywords are the family's: there is no noise, no half precision and no modulation here."""
        misc.assert_shape(ws, [None, 1, self.w_dim])
        x = self.start(ws[:, 0].to(self.start.weight.dtype))
        x = x.unflatten(1, (-1, self.side, self.side))
        for index in range(self.num_layers):
            if hasattr(self, f"norm{index}"):
                x = getattr(self, f"norm{index}")(x)
            x = getattr(self, f"conv{index}")(F.relu(x))
        return x.tanh()


@persistence.persistent_class
class DCGANGenerator(torch.nn.Module):
    """Latents and labels -> images: synthesis(mapping(z, c)), with the interface of StyleGAN2's generator and one w for each image.

    w_dim follows from z_dim and the label's width; given, it must agree.
    """

    def __init__(self, z_dim, c_dim, w_dim=None, img_resolution=64, img_channels=3, mapping_kwargs=None, synthesis_kwargs=None):
        super().__init__()
        self.z_dim, self.c_dim = z_dim, c_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.mapping = DCGANMapping(z_dim, c_dim, **(mapping_kwargs or {}))
        self.w_dim, self.num_ws = self.mapping.w_dim, self.mapping.num_ws
        if w_dim not in (None, self.w_dim):
            raise ValueError(f"w_dim must be {self.w_dim}, that of z and the embedded label, or None (got {w_dim})")
        self.synthesis = DCGANSynthesis(self.w_dim, img_resolution, img_channels, **(synthesis_kwargs or {}))

    def forward(self, z, c=None, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False, update_emas=False, **synthesis_kwargs):
        return self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), **synthesis_kwargs)


# ---------------------------------------------------------------------------------------------------------------
# Discriminators.


@persistence.persistent_class
class DCGANDiscriminator(torch.nn.Module):
    """Images [N,img_channels,res,res] and labels c [N,c_dim] -> logits [N,1], high where the image looks real.

    A label is one more channel of the image, made of it by a linear layer (Mirza 2014). channel_base, channel_max, channels: feature
    maps as in the generator, but channels goes down from half the resolution, and may go further than the smallest side. norm:
    'batch' (after the first convolution only with norm_first), 'none', 'layer' (1704.00028, for a penalty on single images) or 'spectral'
    (of all weights that images pass). minibatch_kernels > 0: so many of minibatch discrimination join the features; minibatch_images: how
    many images it learns with at once. kernel_size 3 halves sides rounded up. slope: of leaky ReLU below 0.
    """

    def __init__(
        self,
        c_dim,
        img_resolution,
        img_channels,
        channel_base=None,
        channel_max=512,
        channels=None,
        norm="batch",
        minibatch_kernels=0,
        minibatch_kernel_dim=5,
        init_std=0.02,
        kernel_size=4,
        norm_first=False,
        slope=0.2,
        minibatch_images=None,
    ):
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.norm, self.slope = _checked_norm(norm, NORMS), slope
        _first_side(img_resolution)
        channels = list(channels or _widths(img_resolution, channel_base, channel_max))
        layer_kwargs = dict(init_std=init_std, spectral_norm=norm == "spectral")
        sides = _halved(img_resolution, len(channels), kernel_size)
        if c_dim > 0:
            self.embed = DCGANLayer("linear", c_dim, img_resolution**2, init_std=1)
        self.num_layers = len(channels)
        for index, (channels_in, channels_out) in enumerate(zip([img_channels + (c_dim > 0), *channels], channels)):
            is_normed = norm in ("batch", "layer") and (norm_first or index > 0)
            biased = norm != "batch" or not is_normed
            setattr(self, f"conv{index}", DCGANLayer("conv", channels_in, channels_out, kernel_size, bias=biased, **layer_kwargs))
            if is_normed:
                setattr(self, f"norm{index}", DCGANNorm(norm, channels_out))
        if sides[-1] == 0:
            raise ValueError(f"channels holds {len(channels)} numbers, but {img_resolution} pixels cannot be halved so often")
        num_features = channels[-1] * sides[-1] ** 2
        self.out = DCGANLayer("linear", num_features + minibatch_kernels, 1, **layer_kwargs)
        if minibatch_kernels > 0:
            linear, self.out = self.out, ClosenessHead(num_features, minibatch_kernels, minibatch_kernel_dim, minibatch_images)
            self.out.linear = linear

    def features(self, img, c=None):
        """The last hidden layer [N,F], before minibatch discrimination."""
        misc.assert_shape(img, [None, self.img_channels, self.img_resolution, self.img_resolution])
        x = img.to(self.conv0.weight.dtype)
        if self.c_dim > 0:
            misc.assert_shape(c, [img.shape[0], self.c_dim])
            label = self.embed(c.to(x.dtype)).reshape(-1, 1, self.img_resolution, self.img_resolution)
            x = torch.cat([x, label], dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"conv{index}")(x)
            if hasattr(self, f"norm{index}"):
                x = getattr(self, f"norm{index}")(x)
            x = F.leaky_relu(x, self.slope)
        return x.flatten(1)

    def forward(self, img, c=None, force_fp32=False):
        """force_fp32 is the family's: there is no half precision here."""
        return self.out(self.features(img, c))

    def extra_repr(self):
        return f"c_dim={self.c_dim}, img_resolution={self.img_resolution}, img_channels={self.img_channels}, norm={self.norm}"


@persistence.persistent_class
class StyleGAN2Discriminator(torch.nn.Module):
    """The discriminator of training/networks.py with spectral_norm of all weights that images pass, minibatch discrimination, or both.

    Its parameters have that one's names; base_kwargs are its arguments. Spectral normalisation takes the place of the gains of the
    equalised learning rate, which it would divide out. Minibatch discrimination joins what the last layer reads (minibatch_images: how many
    images it learns with at once); epilogue_kwargs=dict(mbstd_num_channels=0) takes the standard deviation of the minibatch away.
    """

    def __init__(
        self,
        c_dim,
        img_resolution,
        img_channels,
        spectral_norm=False,
        minibatch_kernels=0,
        minibatch_kernel_dim=5,
        minibatch_images=None,
        **base_kwargs,
    ):
        from training import networks  # here, so that a snapshot opens where StyleGAN2's networks go by another name

        super().__init__()
        base = networks.Discriminator(c_dim, img_resolution, img_channels, **base_kwargs)
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.block_resolutions = list(base.block_resolutions)
        for name, child in base.named_children():
            setattr(self, name, child)
        if minibatch_kernels > 0:
            last = base.b4.out
            self.b4.out = ClosenessHead(last.in_features, minibatch_kernels, minibatch_kernel_dim, minibatch_images)
            self.b4.out.linear = networks.FullyConnectedLayer(last.in_features + minibatch_kernels, last.out_features)
        self.spectral_norm = spectral_norm
        if spectral_norm:
            for layer in [layer for name in self._parts() for layer in getattr(self, name).modules() if hasattr(layer, "weight_gain")]:
                layer.spectral_norm = SpectralNorm(layer.weight.shape[0], layer.weight[0].numel())
                layer.spectral_norm.settle(layer.weight, SPECTRAL_SETTLING_STEPS)

    def _parts(self):
        return [f"b{res}" for res in (*self.block_resolutions, 4)]

    def forward(self, img, c, **block_kwargs):
        x, (*blocks, epilogue) = None, self._parts()
        for name in blocks:
            x, img = self._call(name, x, img, **block_kwargs)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self._call(epilogue, x, img, cmap)

    def _call(self, name, *args, **kwargs):
        """Call a part, with its weights normalised. The layers multiply by their gains, which are divided out here."""
        part = getattr(self, name)
        if not self.spectral_norm:
            return part(*args, **kwargs)
        weights = {}
        for path, layer in part.named_modules():
            if hasattr(layer, "weight_gain"):
                weights[f"{path}.weight"] = layer.spectral_norm(layer.weight) / layer.weight_gain
        return torch.func.functional_call(part, weights, args, kwargs, tie_weights=False)

    def extra_repr(self):
        return f"c_dim={self.c_dim}, img_resolution={self.img_resolution}, img_channels={self.img_channels}, spectral_norm={self.spectral_norm}"
