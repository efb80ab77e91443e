"""The networks of StyleGAN2 (arXiv 1912.04958) with the half precision of StyleGAN2-ADA (arXiv 2006.06676).

    Generator      z, c -> MappingNetwork -> ws, one latent per layer -> SynthesisNetwork: blocks b4, b8, ... -> images
    Discriminator  images -> blocks ..., b16, b8, each halving the resolution -> DiscriminatorEpilogue b4 -> logits

The file reads downwards: precision, sizes and connections; what layers share; modulated convolution; layers; blocks;
generator; discriminator.

Every snapshot stores the text of this file, and other code bases of the family execute it. Hence it is self-contained:
besides torch and numpy it uses only the helper functions that all of them have, and it must know nothing of losses,
data or the training loop. Names of classes, arguments, attributes, parameters and buffers are the family's common ones.

Legend of shapes: N images, I input channels, O output channels, kh x kw kernel, H x W pixels, L latents per image.

Seeds and optimiser states of existing runs rely on two orders: in which constructors draw random numbers, and in which
they register parameters. Float64 modules (`.double()`) compute in float64 throughout, which the tests use as reference.
"""

import numpy as np
import torch
import torch.nn.functional as F

from torch_utils import misc, persistence
from torch_utils.ops import bias_act, conv2d_resample, fma, upfirdn2d

# ---------------------------------------------------------------------------------------------------------------
# Precision, sizes, connections.


def _full_precision(tensor):
    """Return the type that this tensor's module computes in where half precision is not wanted."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


# What the upper blocks may be told to compute in, by _Block.half_type; None: in float16 on CUDA, in full precision elsewhere.
_HALF_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _block_precision(block, weight, force_fp32, device):
    """Choose dtype and memory format of a block's features."""
    if block.use_fp16 and not force_fp32 and (block.half_type or device.type == "cuda"):
        dtype = torch.float16 if block.half_type is None else _HALF_TYPES[block.half_type]
        return dict(dtype=dtype, memory_format=torch.channels_last if block.channels_last else torch.contiguous_format)
    return dict(dtype=_full_precision(weight), memory_format=_full_precision_layout(weight, device))


def _of_this_code_base(name):
    """Look up a function of bias_act that the rest of the family lacks: None there."""
    return getattr(bias_act, name, None)


def _full_precision_layout(weight, device):
    """Choose the memory format that is fastest with the kernels that are there; other code bases know of none."""
    prefers_channels_last = _of_this_code_base("prefers_channels_last")
    if prefers_channels_last is not None and prefers_channels_last(device, _full_precision(weight)):
        return torch.channels_last
    return torch.contiguous_format


def _checked(tensor, *shape, dtype=None, memory_format=torch.preserve_format):
    """Check that an input has the shape [N, *shape], and convert it to the precision that follows (None: leave it)."""
    misc.assert_shape(tensor, [None, *shape])
    return tensor if dtype is None else tensor.to(dtype=dtype, memory_format=memory_format)


def _log2_of_resolution(img_resolution, smallest):
    """Return the exponent of a power of two; refuse what is none or too small."""
    exponent = int(img_resolution).bit_length() - 1
    if img_resolution != 2**exponent or img_resolution < smallest:
        raise ValueError(f"img_resolution must be a power of two and at least {smallest} (got {img_resolution})")
    return exponent


def _levels(img_resolution_log2, channel_base, channel_max, num_fp16_res):
    """Plan both networks: {resolution: (feature maps, use_fp16)} from 4x4 up to the image.

    There are channel_base / resolution feature maps, at most channel_max. The num_fp16_res highest resolutions compute in
    half precision; 4x4 never does.
    """
    levels = {}
    for exponent in range(2, img_resolution_log2 + 1):
        use_fp16 = exponent > max(img_resolution_log2 - num_fp16_res, 2)
        levels[2**exponent] = min(channel_base // 2**exponent, channel_max), use_fp16
    return levels


# Section 4.1 of StyleGAN2: the plain network, the one with input/output skips, the residual one.
#     images      every resolution has an image of its own
#     shortcuts   a linear layer leads around the convolutions of each block; saved networks call this layer `skip`
_ARCHITECTURES = {
    "orig": dict(images=False, shortcuts=False),
    "skip": dict(images=True, shortcuts=False),
    "resnet": dict(images=False, shortcuts=True),
}

# Scales both the shortcut and the convolutions around which it leads. Without it their sum would have twice the variance
# of each, and the features would grow from block to block (same section).
_BRANCH_GAIN = np.sqrt(0.5)


def _connections(architecture):
    """Look up how an architecture connects images and features; refuse unknown names."""
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"architecture must be 'orig', 'skip' or 'resnet' (got {architecture!r})")
    return _ARCHITECTURES[architecture]


# ---------------------------------------------------------------------------------------------------------------
# What layers share.


def _normal_weight(*shape, channels_last=False):
    """Draw initial weights [O,I] or [O,I,kh,kw]: standard normal in every layer. The scale comes from _he_gain()."""
    return torch.randn(shape).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _he_gain(fan_in, lr_multiplier=1):
    """Return the factor that weights are multiplied by whenever they are used: 1/sqrt(fan_in).

    It keeps the variance of a layer's input (He's initialisation). That it is applied at run time and not stored in the
    weights equalises the learning rate (arXiv 1710.10196, section 4.1): Adam moves every weight by about the same amount
    per step, and with all weights stored at unit variance that is the same relative change in every layer.
    """
    return lr_multiplier / np.sqrt(fan_in)


def _resampling(layer):
    """Tell how a layer resamples. Enlarging layers hold their kernels mirrored: saved networks would look wrong otherwise."""
    return dict(up=layer.up, padding=layer.padding, flip_weight=layer.up == 1)


def _activate(layer, x, gain=1):
    """Compute act(x + bias) times the layer's own gain and the caller's.

    The layer's gain restores the variance that the activation takes away: sqrt(2) for lrelu. conv_clamp limits the values
    before the caller's gain; without a limit, half precision overflows now and then.
    """
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    limit = None if layer.conv_clamp is None else layer.conv_clamp * gain
    return bias_act.bias_act(x, bias, act=layer.activation, gain=layer.act_gain * gain, clamp=limit)


def _takes_one_pass(x, activation):
    """Tell whether demodulation, noise, bias and activation have a compiled kernel; other code bases know of none."""
    has_kernel = _of_this_code_base("has_kernel")
    return has_kernel is not None and x.dtype != torch.float16 and has_kernel(x, activation)


@misc.profiled_function
def normalize_2nd_moment(x, dim=1, eps=1e-8):
    """Scale x to a mean square of 1 along dim: x / sqrt(mean of x^2 + eps)."""
    mean_square = x.square().mean(dim, keepdim=True)
    return x * (mean_square + eps).rsqrt()


# ---------------------------------------------------------------------------------------------------------------
# Modulated convolution: section 2.2 of StyleGAN2. Styles scale a layer's kernels, and the expected change of the output's
# variance is divided out again, in place of normalising the output itself.


@misc.profiled_function
def modulated_conv2d(
    x, weight, styles, noise=None, up=1, down=1, padding=0, resample_filter=None, demodulate=True, flip_weight=True, fused_modconv=True
):
    """Convolve image n with weights scaled per input channel by styles[n], and normalised per output channel.

    x [N,I,H,W], weight [O,I,kh,kw], styles [N,I], noise broadcastable to the result -> [N,O,H',W'].

    fused_modconv=True makes one kernel per image and convolves in groups. False scales the activations before and
    after a convolution with shared weights: mathematically the same. Gradients with respect to styles then do not pass
    through the convolution's weight, so they survive conv2d_gradfix.no_weight_gradients().
    """
    num_in = weight.shape[1]
    misc.assert_shape(x, [None, num_in, None, None])
    misc.assert_shape(styles, [x.shape[0], num_in])
    if demodulate and x.dtype == torch.float16:
        weight, styles = _bounded_for_fp16(weight, styles)
    demodulation = _demodulation(weight, styles) if demodulate else None
    noise = None if noise is None else noise.to(x.dtype)

    if up == down == 1 and padding == 0 and x.device.type == "cpu" and _is_pointwise(weight):
        return _modulated_matrices(x, weight.flatten(1), styles, demodulation, noise)
    convolve = _modulated_kernels if fused_modconv else _modulated_features
    resampling = dict(f=resample_filter, up=up, down=down, padding=padding, flip_weight=flip_weight)
    return convolve(x, weight, styles, demodulation, noise, **resampling)


def _modulated_kernels(x, weight, styles, demodulation, noise, **resampling):
    """Apply equations 1 and 3 to the kernels: one for each image, used by a convolution with as many groups as images."""
    with misc.suppress_tracer_warnings():  # the number of groups is frozen into a trace
        num_images = int(x.shape[0])
    kernels = weight[None] * styles[:, None, :, None, None]
    if demodulation is not None:
        kernels = kernels * demodulation[:, :, None, None, None]
    x = x.reshape(1, num_images * x.shape[1], *x.shape[2:])
    x = conv2d_resample.conv2d_resample(x, kernels.flatten(0, 1).to(x.dtype), groups=num_images, **resampling)
    x = x.reshape(num_images, weight.shape[0], *x.shape[2:])
    return x if noise is None else x + noise


def _modulated_features(x, weight, styles, demodulation, noise, **resampling):
    """Apply equations 1 and 3 to the features: scale by the styles before, and normalise after, one shared convolution."""
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = conv2d_resample.conv2d_resample(x, weight.to(x.dtype), **resampling)
    if demodulation is None:
        return x if noise is None else x + noise
    demodulation = demodulation.to(x.dtype)[:, :, None, None]
    return x * demodulation if noise is None else fma.fma(x, demodulation, noise)


def _modulated_matrices(x, weight_OI, styles, demodulation, noise):
    """Multiply each image by its 1x1 kernel, a matrix: on a CPU five to nine times as fast as convolving."""
    matrices = weight_OI * styles[:, None, :]
    if demodulation is not None:
        matrices = matrices * demodulation[:, :, None]
    matrices, size = matrices.to(x.dtype), x.shape[2:]
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        # From the right, so that the gradient of x has its channels last, too.
        x = (x.permute(0, 2, 3, 1).flatten(1, 2) @ matrices.mT).unflatten(1, size).permute(0, 3, 1, 2)
    else:
        x = (matrices @ x.flatten(2)).unflatten(2, size)
    return x if noise is None else x + noise


def _is_pointwise(weight):
    with misc.suppress_tracer_warnings():  # sizes are tensors while a trace is recorded
        return int(weight.shape[2]) == int(weight.shape[3]) == 1


def _demodulation(weight, styles, eps=1e-8):
    """Compute the factor of equation 3, 1/sqrt(sum over i,k of (styles_i * weight_oik)^2 + eps), for every image and output channel.

    weight [O,I,kh,kw], styles [N,I] -> [N,O]. Styles do not depend on k, so summing over k first leaves one small matrix product.
    """
    energy_OI = weight.square().sum(dim=[2, 3])
    return (styles.square() @ energy_OI.t() + eps).rsqrt()


def _bounded_for_fp16(weight, styles):
    """Scale weight per output channel and styles per image so that products in half precision stay in range.

    Demodulation divides any such factor out again, so the result does not depend on them and no gradient is needed.
    """
    largest_weight = weight.detach().abs().amax(dim=[1, 2, 3], keepdim=True)
    largest_style = styles.detach().abs().amax(dim=1, keepdim=True)
    return weight / (largest_weight * np.sqrt(weight[0].numel())), styles / largest_style


# ---------------------------------------------------------------------------------------------------------------
# Layers.


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """act(x W^T + b), x [N,in_features]. lr_multiplier slows the layer's learning without changing its initial output."""

    def __init__(self, in_features, out_features, bias=True, activation="linear", lr_multiplier=1, bias_init=0):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.activation = activation
        self.weight_gain = _he_gain(in_features, lr_multiplier)
        self.bias_gain = lr_multiplier
        self.weight = torch.nn.Parameter(_normal_weight(out_features, in_features) / lr_multiplier)
        self.bias = None
        if bias:
            self.bias = torch.nn.Parameter(torch.full([out_features], float(bias_init)))

    def forward(self, x):
        weight = self.weight.to(x.dtype) * self.weight_gain
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if bias is not None and self.bias_gain != 1:
            bias = bias * self.bias_gain
        if self.activation == "linear":
            return F.linear(x, weight, bias)
        return bias_act.bias_act(F.linear(x, weight), bias, act=self.activation)

    def extra_repr(self):
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}, activation={self.activation}"


@persistence.persistent_class
class Conv2dLayer(torch.nn.Module):
    """act(conv(x) + b) with equalised learning rate, enlarging or shrinking with a low-pass filter on the way.

    trainable=False keeps weight and bias as buffers: saved and moved with the module, out of the optimiser's reach.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        bias=True,
        activation="linear",
        up=1,
        down=1,
        resample_filter=[1, 3, 3, 1],
        conv_clamp=None,
        channels_last=False,
        trainable=True,
    ):
        super().__init__()
        self.up, self.down, self.padding = up, down, kernel_size // 2
        self.activation, self.conv_clamp = activation, conv_clamp
        self.act_gain = bias_act.activation_funcs[activation].def_gain
        self.weight_gain = _he_gain(in_channels * kernel_size**2)

        def register(name, tensor):
            if trainable:
                self.register_parameter(name, torch.nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

        register("weight", _normal_weight(out_channels, in_channels, kernel_size, kernel_size, channels_last=channels_last))
        if bias:
            register("bias", torch.zeros([out_channels]))
        else:
            self.bias = None
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))

    def forward(self, x, gain=1):
        weight = (self.weight * self.weight_gain).to(x.dtype)
        x = conv2d_resample.conv2d_resample(x, weight, f=self.resample_filter, down=self.down, **_resampling(self))
        return _activate(self, x, gain)

    def extra_repr(self):
        return f"shape={list(self.weight.shape)}, activation={self.activation}, up={self.up}, down={self.down}"


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """Modulated convolution, plus per-pixel noise, bias and activation. `up` enlarges by that factor before.

    The weight needs no gain of its own: demodulation divides every factor out.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        w_dim,
        resolution,
        kernel_size=3,
        up=1,
        use_noise=True,
        activation="lrelu",
        resample_filter=[1, 3, 3, 1],
        conv_clamp=None,
        channels_last=False,
    ):
        super().__init__()
        self.up, self.resolution, self.padding = up, resolution, kernel_size // 2
        self.activation, self.conv_clamp = activation, conv_clamp
        self.act_gain = bias_act.activation_funcs[activation].def_gain
        self.use_noise = use_noise

        self.weight = torch.nn.Parameter(_normal_weight(out_channels, in_channels, kernel_size, kernel_size, channels_last=channels_last))
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        if use_noise:
            self.noise_strength = torch.nn.Parameter(torch.zeros([]))
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)  # latent -> styles; they begin around 1

    def _noise(self, num_images, mode, device):
        """Return what to add before the activation: fresh for each image, the layer's own constant picture, or None."""
        if mode not in ("random", "const", "none"):
            raise ValueError(f"noise_mode must be 'random', 'const' or 'none' (got {mode!r})")
        if not self.use_noise or mode == "none":
            return None
        if mode == "const":
            return self.noise_const * self.noise_strength
        # From torch's global generator: the interface has no place for another one.
        shape = [num_images, 1, self.resolution, self.resolution]
        return torch.randn(shape, dtype=self.noise_strength.dtype, device=device) * self.noise_strength

    def forward(self, x, w, noise_mode="random", fused_modconv=True, gain=1):
        size = self.resolution // self.up
        x = _checked(x, self.weight.shape[1], size, size)
        noise = self._noise(x.shape[0], noise_mode, x.device)
        if not fused_modconv and self.padding > 0 and _takes_one_pass(x, self.activation):
            return self._in_one_pass(x, self.affine(w), noise, gain)
        resampling = dict(resample_filter=self.resample_filter, **_resampling(self))
        x = modulated_conv2d(x, self.weight, self.affine(w), noise, fused_modconv=fused_modconv, **resampling)
        return _activate(self, x, gain)

    def _in_one_pass(self, x, styles, noise, gain):
        """Do the same with one operator for what comes before the convolution, and one for all that follows."""
        modulated_bias_act = _of_this_code_base("modulated_bias_act")
        demodulation = _demodulation(self.weight, styles)
        x = modulated_bias_act(x, None, styles)
        x = conv2d_resample.conv2d_resample(x, self.weight.to(x.dtype), f=self.resample_filter, **_resampling(self))
        limit = None if self.conv_clamp is None else self.conv_clamp * gain
        bias = self.bias.to(x.dtype)
        return modulated_bias_act(x, bias, demodulation, noise, act=self.activation, gain=self.act_gain * gain, clamp=limit)

    def extra_repr(self):
        return f"shape={list(self.weight.shape)}, resolution={self.resolution}, up={self.up}, activation={self.activation}"


@persistence.persistent_class
class ToRGBLayer(torch.nn.Module):
    """Features -> image channels: modulated like the others, but neither demodulated nor activated."""

    activation, act_gain = "linear", 1  # what _activate() asks for

    def __init__(self, in_channels, out_channels, w_dim, kernel_size=1, conv_clamp=None, channels_last=False):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.weight_gain = _he_gain(in_channels * kernel_size**2)
        self.weight = torch.nn.Parameter(_normal_weight(out_channels, in_channels, kernel_size, kernel_size, channels_last=channels_last))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)

    def forward(self, x, w, fused_modconv=True):
        # The gain goes to the styles, of which there are fewer than weights.
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x, self.weight, styles, padding=self.weight.shape[2] // 2, demodulate=False, fused_modconv=fused_modconv)
        return _activate(self, x)

    def extra_repr(self):
        return f"shape={list(self.weight.shape)}"


# ---------------------------------------------------------------------------------------------------------------
# Blocks: one resolution of either network.


class _Block(torch.nn.Module):
    """What the blocks of both networks have in common. in_channels=0 makes the first block.

    Subclasses define _convolutions(x, ..., gain=1) and make only the layers that their place and architecture call for;
    their forward uses what is there.

    half_type says what a block with use_fp16 computes in: a key of _HALF_TYPES, whatever the device, or None. It belongs to the
    process that sets it, not to the network: copies and pickles are without, so that they run wherever the family runs.
    """

    half_type = None

    def __init__(self, in_channels, resolution, img_channels, architecture, resample_filter, use_fp16, fp16_channels_last):
        super().__init__()
        self.in_channels, self.img_channels = in_channels, img_channels
        self.resolution = resolution
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "half_type"}

    def _features(self, x, *inputs, **layer_kwargs):
        """Apply the block's convolutions, and add the shortcut around them if the block has one."""
        if not hasattr(self, "skip"):
            return self._convolutions(x, *inputs, **layer_kwargs)
        shortcut = self.skip(x, gain=_BRANCH_GAIN)
        return shortcut + self._convolutions(x, *inputs, gain=_BRANCH_GAIN, **layer_kwargs)

    def extra_repr(self):
        return f"resolution={self.resolution}, architecture={self.architecture}, use_fp16={self.use_fp16}"


# ---------------------------------------------------------------------------------------------------------------
# Generator.


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """Latents z [N,z_dim] and labels c [N,c_dim] -> intermediate latents [N,num_ws,w_dim], or [N,w_dim] if num_ws is None.

    Keeps w_avg, an exponential moving average of its outputs in training mode, as the centre of truncation
    (w_avg_beta=None: none). z_dim=0 or c_dim=0 leave that input out. lr_multiplier: so deep a stack of fully connected
    layers makes training unstable at the learning rate of the others (StyleGAN, arXiv 1812.04948, appendix C).
    """

    def __init__(
        self,
        z_dim,
        c_dim,
        w_dim,
        num_ws,
        num_layers=8,
        embed_features=None,
        layer_features=None,
        activation="lrelu",
        lr_multiplier=0.01,
        w_avg_beta=0.995,
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_ws, self.num_layers = num_ws, num_layers
        self.w_avg_beta = w_avg_beta

        input_width = z_dim
        if c_dim > 0:
            label_width = w_dim if embed_features is None else embed_features
            self.embed = FullyConnectedLayer(c_dim, label_width)
            input_width += label_width
        hidden_width = w_dim if layer_features is None else layer_features
        widths = [input_width, *[hidden_width] * (num_layers - 1), w_dim]
        for i, (width, next_width) in enumerate(zip(widths, widths[1:])):
            setattr(self, f"fc{i}", FullyConnectedLayer(width, next_width, activation=activation, lr_multiplier=lr_multiplier))
        if self._keeps_average:
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    @property
    def _keeps_average(self):
        return self.num_ws is not None and self.w_avg_beta is not None

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False):
        x = self._normalized_inputs(z, c, _full_precision(self.fc0.weight))
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)

        if self.training and self._keeps_average and not skip_w_avg_update:
            batch_mean = x.detach().mean(dim=0)
            self.w_avg.copy_(batch_mean.lerp(self.w_avg, self.w_avg_beta))  # beta * w_avg + (1 - beta) * batch_mean
        if self.num_ws is not None:
            x = x[:, None, :].repeat(1, self.num_ws, 1)
        return self._truncate(x, truncation_psi, truncation_cutoff)

    def _normalized_inputs(self, z, c, dtype):
        """Put z and the embedded label side by side, each scaled to unit mean square."""
        inputs = []
        if self.z_dim > 0:
            inputs.append(_checked(z, self.z_dim, dtype=dtype))
        if self.c_dim > 0:
            inputs.append(self.embed(_checked(c, self.c_dim, dtype=dtype)))
        return torch.cat([normalize_2nd_moment(x) for x in inputs], dim=1)

    def _truncate(self, x, psi, cutoff):
        """Move the first `cutoff` latents of each image (None: all) towards w_avg: w_avg + psi (w - w_avg); psi=1 is no change."""
        if isinstance(psi, (int, float)) and psi == 1:
            return x
        if not self._keeps_average:
            raise ValueError("truncation_psi needs the running average w_avg, which this mapping network does not keep")
        if cutoff is None:
            return self.w_avg.lerp(x, psi)
        return torch.cat([self.w_avg.lerp(x[:, :cutoff], psi), x[:, cutoff:]], dim=1)


@persistence.persistent_class
class SynthesisBlock(_Block):
    """One resolution of the generator. in_channels=0 makes the first block, which begins with a learned constant.

    architecture: 'orig' makes an image in the last block only; 'skip' adds one per block to the enlarged image so far;
    'resnet' adds a linear shortcut around the convolutions. Takes num_conv + num_torgb latents per image.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        w_dim,
        resolution,
        img_channels,
        is_last,
        architecture="skip",
        resample_filter=[1, 3, 3, 1],
        conv_clamp=None,
        use_fp16=False,
        fp16_channels_last=False,
        **layer_kwargs,
    ):
        connections = _connections(architecture)
        super().__init__(in_channels, resolution, img_channels, architecture, resample_filter, use_fp16, fp16_channels_last)
        self.w_dim = w_dim
        self.is_last = is_last
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = 1 if is_last or connections["images"] else 0

        enlarge = dict(up=2, resample_filter=resample_filter)
        modulated = dict(w_dim=w_dim, conv_clamp=conv_clamp, channels_last=self.channels_last)
        layer_kwargs = dict(layer_kwargs, resolution=resolution, **modulated)
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, **enlarge, **layer_kwargs)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **layer_kwargs)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, **modulated)
        if connections["shortcuts"] and in_channels != 0:  # around a constant, a shortcut would be one more constant
            self.skip = Conv2dLayer(in_channels, out_channels, kernel_size=1, bias=False, channels_last=self.channels_last, **enlarge)

    def forward(self, x, img, ws, force_fp32=False, fused_modconv=None, **layer_kwargs):
        """x [N,in_channels,res/2,res/2] or None, img [N,img_channels,res/2,res/2] or None -> the same at res x res."""
        ws = _checked(ws, self.num_conv + self.num_torgb, self.w_dim, dtype=_full_precision(self.conv1.weight))
        latents = ws.unbind(dim=1)
        precision = _block_precision(self, self.conv1.weight, force_fp32, ws.device)
        if fused_modconv is None:
            fused_modconv = self._prefers_fused(precision["dtype"], ws)

        if self.in_channels == 0:
            x = self.const[None].repeat(ws.shape[0], 1, 1, 1).to(**precision)
        else:
            x = _checked(x, self.in_channels, self.resolution // 2, self.resolution // 2, **precision)
        x = self._features(x, latents, fused_modconv=fused_modconv, **layer_kwargs)
        return x, self._image(x, img, latents, fused_modconv)

    def _prefers_fused(self, dtype, ws):
        """Tell which of two equal ways is faster here. Training needs the unfused one: see modulated_conv2d()."""
        if self.training:
            return False
        if ws.device.type != "cpu" and dtype in (torch.float32, torch.float64):
            return True
        with misc.suppress_tracer_warnings():
            return int(ws.shape[0]) == 1

    def _convolutions(self, x, latents, gain=1, **layer_kwargs):
        if self.in_channels != 0:
            x = self.conv0(x, latents[0], **layer_kwargs)
        return self.conv1(x, latents[self.num_conv - 1], gain=gain, **layer_kwargs)

    def _image(self, x, img, latents, fused_modconv):
        """Enlarge the image so far and add this block's. The sum is in full precision, whatever the features are in."""
        if img is not None:
            img = _checked(img, self.img_channels, self.resolution // 2, self.resolution // 2)
            img = upfirdn2d.upsample2d(img, self.resample_filter)
        if self.num_torgb == 0:
            return img
        rgb = self.torgb(x, latents[self.num_conv], fused_modconv=fused_modconv)
        rgb = rgb.to(dtype=_full_precision(self.conv1.weight), memory_format=torch.contiguous_format)
        return rgb if img is None else img + rgb


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """Intermediate latents ws [N,num_ws,w_dim] -> images [N,img_channels,img_resolution,img_resolution], about [-1, 1].

    One latent per convolution, in order; each image output takes the latent of the convolution that comes next.
    """

    def __init__(self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=0, **block_kwargs):
        super().__init__()
        self.w_dim = w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.img_resolution_log2 = _log2_of_resolution(img_resolution, smallest=4)
        levels = _levels(self.img_resolution_log2, channel_base, channel_max, num_fp16_res)
        self.block_resolutions = list(levels)

        block_kwargs = dict(block_kwargs, w_dim=w_dim, img_channels=img_channels)
        self.num_ws = 1  # for the last image output
        in_channels = 0
        for res, (channels, use_fp16) in levels.items():
            is_last = res == img_resolution
            block = SynthesisBlock(in_channels, channels, resolution=res, is_last=is_last, use_fp16=use_fp16, **block_kwargs)
            setattr(self, f"b{res}", block)
            self.num_ws += block.num_conv
            in_channels = channels

    def forward(self, ws, **block_kwargs):
        x = img = None
        for block, latents in self._blocks_with_latents(_checked(ws, self.num_ws, self.w_dim)):
            x, img = block(x, img, latents, **block_kwargs)
        return img

    def _blocks_with_latents(self, ws):
        """Yield each block with its latents. That of its image output is the next block's first one, too: the windows overlap."""
        first = 0
        for res in self.block_resolutions:
            block = getattr(self, f"b{res}")
            yield block, ws.narrow(1, first, block.num_conv + block.num_torgb)
            first += block.num_conv

    def extra_repr(self):
        return f"w_dim={self.w_dim}, num_ws={self.num_ws}, img_resolution={self.img_resolution}, img_channels={self.img_channels}"


@persistence.persistent_class
class Generator(torch.nn.Module):
    """Latents and labels -> images: synthesis(mapping(z, c))."""

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs={}, synthesis_kwargs={}):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = SynthesisNetwork(w_dim=w_dim, img_resolution=img_resolution, img_channels=img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_ws=self.num_ws, **mapping_kwargs)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, **synthesis_kwargs):
        return self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), **synthesis_kwargs)


# ---------------------------------------------------------------------------------------------------------------
# Discriminator.


@persistence.persistent_class
class DiscriminatorBlock(_Block):
    """One resolution of the discriminator. in_channels=0 makes the first block, which begins with the image.

    architecture: 'orig' reads the image in the first block only; 'skip' reads it, shrunk, in every block; 'resnet' adds
    a linear shortcut around the convolutions. Layers are numbered from first_layer_idx through the whole
    discriminator; those below freeze_layers don't learn. num_layers says how many numbers this block took.
    """

    def __init__(
        self,
        in_channels,
        tmp_channels,
        out_channels,
        resolution,
        img_channels,
        first_layer_idx,
        architecture="resnet",
        activation="lrelu",
        resample_filter=[1, 3, 3, 1],
        conv_clamp=None,
        use_fp16=False,
        fp16_channels_last=False,
        freeze_layers=0,
    ):
        if in_channels not in (0, tmp_channels):
            raise ValueError(f"in_channels must be 0 or equal tmp_channels (got {in_channels} and {tmp_channels})")
        connections = _connections(architecture)
        super().__init__(in_channels, resolution, img_channels, architecture, resample_filter, use_fp16, fp16_channels_last)
        self.first_layer_idx = first_layer_idx
        self.num_layers = 0

        def add_layer(name, *shape, **kwargs):
            trainable = first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            setattr(self, name, Conv2dLayer(*shape, trainable=trainable, channels_last=self.channels_last, **kwargs))

        active = dict(activation=activation, conv_clamp=conv_clamp)
        shrink = dict(down=2, resample_filter=resample_filter)
        if in_channels == 0 or connections["images"]:
            add_layer("fromrgb", img_channels, tmp_channels, 1, **active)
        add_layer("conv0", tmp_channels, tmp_channels, 3, **active)
        add_layer("conv1", tmp_channels, out_channels, 3, **active, **shrink)
        if connections["shortcuts"]:
            add_layer("skip", tmp_channels, out_channels, 1, bias=False, **shrink)

    def forward(self, x, img, force_fp32=False):
        """x [N,in_channels,res,res] or None, img [N,img_channels,res,res] or None -> both at half the resolution."""
        precision = _block_precision(self, self.conv1.weight, force_fp32, (img if x is None else x).device)
        if x is not None:
            x = _checked(x, self.in_channels, self.resolution, self.resolution, **precision)
        if hasattr(self, "fromrgb"):
            img = _checked(img, self.img_channels, self.resolution, self.resolution, **precision)
            rgb = self.fromrgb(img)
            x = rgb if x is None else x + rgb
            img = upfirdn2d.downsample2d(img, self.resample_filter) if _connections(self.architecture)["images"] else None
        return self._features(x), img

    def _convolutions(self, x, gain=1):
        return self.conv1(self.conv0(x), gain=gain)


@persistence.persistent_class
class MinibatchStdLayer(torch.nn.Module):
    """Append num_channels constant maps: how much the images of a group differ (arXiv 1710.10196, section 3).

    M = N / group_size groups; group m holds images m, m + M, m + 2M, ... Map f of all images of a group is the standard
    deviation over the group, averaged over the pixels and over the f-th of num_channels equal parts of the features.
    """

    def __init__(self, group_size, num_channels=1):
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x):
        with misc.suppress_tracer_warnings():  # the grouping is frozen into a trace
            num_images, channels, height, width = (int(size) for size in x.shape)
        group = num_images if self.group_size is None else min(self.group_size, num_images)
        if num_images % group != 0 or channels % self.num_channels != 0:
            raise ValueError(
                f"minibatch standard deviation: {num_images} images and {channels} features cannot be divided into "
                f"groups of {group} images and {self.num_channels} parts"
            )
        grouped = x.reshape(group, num_images // group, self.num_channels, -1)  # [group, M, f, features and pixels]
        variance = (grouped - grouped.mean(dim=0)).square().mean(dim=0)
        statistic = (variance + 1e-8).sqrt().mean(dim=2)  # [M, f]
        maps = statistic.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)
        return torch.cat([x, maps], dim=1)

    def extra_repr(self):
        return f"group_size={self.group_size}, num_channels={self.num_channels}"


@persistence.persistent_class
class DiscriminatorEpilogue(torch.nn.Module):
    """The last resolution: features [N,in_channels,res,res] -> logits [N,1], always in full precision.

    cmap_dim > 0: the logit is the projection of the output on the label's embedding cmap [N,cmap_dim] (arXiv 1802.05637).
    """

    def __init__(
        self,
        in_channels,
        cmap_dim,
        resolution,
        img_channels,
        architecture="resnet",
        mbstd_group_size=4,
        mbstd_num_channels=1,
        activation="lrelu",
        conv_clamp=None,
    ):
        super().__init__()
        self.in_channels, self.img_channels = in_channels, img_channels
        self.cmap_dim = cmap_dim
        self.resolution = resolution
        self.architecture = architecture
        if _connections(architecture)["images"]:
            self.fromrgb = Conv2dLayer(img_channels, in_channels, kernel_size=1, activation=activation)
        self.mbstd = None
        if mbstd_num_channels > 0:
            self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels)
        num_maps = in_channels + mbstd_num_channels
        self.conv = Conv2dLayer(num_maps, in_channels, kernel_size=3, activation=activation, conv_clamp=conv_clamp)
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, cmap_dim if cmap_dim > 0 else 1)

    def forward(self, x, img, cmap, force_fp32=False):
        """force_fp32 is accepted for the sake of uniformity; there is no half precision here."""
        precision = dict(dtype=_full_precision(self.conv.weight), memory_format=torch.contiguous_format)
        x = _checked(x, self.in_channels, self.resolution, self.resolution, **precision)
        if hasattr(self, "fromrgb"):
            x = x + self.fromrgb(_checked(img, self.img_channels, self.resolution, self.resolution, **precision))
        if self.mbstd is not None:
            x = self.mbstd(x)
        output = self.out(self.fc(self.conv(x).flatten(1)))
        if self.cmap_dim == 0:
            return output
        projection = (output * _checked(cmap, self.cmap_dim)).sum(dim=1, keepdim=True)
        return projection / np.sqrt(self.cmap_dim)

    def extra_repr(self):
        return f"resolution={self.resolution}, architecture={self.architecture}"


@persistence.persistent_class
class Discriminator(torch.nn.Module):
    """Images [N,img_channels,res,res] and labels c [N,c_dim] -> logits [N,1], high where the image looks real."""

    def __init__(
        self,
        c_dim,
        img_resolution,
        img_channels,
        architecture="resnet",
        channel_base=32768,
        channel_max=512,
        num_fp16_res=0,
        conv_clamp=None,
        cmap_dim=None,
        block_kwargs={},
        mapping_kwargs={},
        epilogue_kwargs={},
    ):
        super().__init__()
        self.c_dim = c_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.img_resolution_log2 = _log2_of_resolution(img_resolution, smallest=8)
        levels = _levels(self.img_resolution_log2, channel_base, channel_max, num_fp16_res)
        self.block_resolutions = sorted(levels, reverse=True)[:-1]  # 4x4 is the epilogue's

        common = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        in_channels = num_layers = 0
        for res in self.block_resolutions:
            channels, use_fp16 = levels[res]
            out_channels, _ = levels[res // 2]
            block = DiscriminatorBlock(
                in_channels, channels, out_channels, resolution=res, first_layer_idx=num_layers, use_fp16=use_fp16, **block_kwargs, **common
            )
            setattr(self, f"b{res}", block)
            num_layers += block.num_layers
            in_channels = out_channels
        if c_dim == 0:
            cmap_dim = 0
        else:
            cmap_dim = in_channels if cmap_dim is None else cmap_dim
            self.mapping = MappingNetwork(z_dim=0, c_dim=c_dim, w_dim=cmap_dim, num_ws=None, w_avg_beta=None, **mapping_kwargs)
        self.b4 = DiscriminatorEpilogue(in_channels, cmap_dim=cmap_dim, resolution=4, **epilogue_kwargs, **common)

    def forward(self, img, c, **block_kwargs):
        x = None
        for res in self.block_resolutions:
            x, img = getattr(self, f"b{res}")(x, img, **block_kwargs)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, img, cmap)

    def can_judge_together(self, num_images):
        """Tell whether judge_together() takes two batches of this many images."""
        group = 1 if self.b4.mbstd is None else self.b4.mbstd.group_size
        return group is not None and group <= num_images and num_images % group == 0

    def judge_together(self, img_a, c_a, img_b, c_b):
        """Return the logits of two batches of one size in one pass, which costs less than two.

        Each image is compared with those of its own batch alone: MinibatchStdLayer's M groups of a batch become 2M, where every
        run of M images of the one batch is followed by M of the other.
        """
        num_images, group = len(img_a), 1 if self.b4.mbstd is None else self.b4.mbstd.group_size
        runs = [group, num_images // group]
        woven = [torch.stack([a.unflatten(0, runs), b.unflatten(0, runs)], dim=1).flatten(0, 2) for a, b in ((img_a, img_b), (c_a, c_b))]
        logits_a, logits_b = self(*woven).unflatten(0, [runs[0], 2, runs[1]]).unbind(1)
        return logits_a.flatten(0, 1), logits_b.flatten(0, 1)

    def extra_repr(self):
        return f"c_dim={self.c_dim}, img_resolution={self.img_resolution}, img_channels={self.img_channels}"
