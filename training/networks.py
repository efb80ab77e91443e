"""The networks of StyleGAN2 (arXiv 1912.04958) with the mixed precision of StyleGAN2-ADA (arXiv 2006.06676).

Every snapshot stores the text of this file, and other code bases of the family execute it. Hence it is self-contained:
besides torch and numpy it uses only the helper functions that all of them have, and it must know nothing of losses,
data or the training loop. Names of classes, arguments, attributes, parameters and buffers are the family's common ones.

Legend of shapes: N images, I input channels, O output channels, kh x kw kernel, H x W pixels, L latents per image.

Learning rates are equalised: weights are stored with unit variance and scaled at run time by 1/sqrt(fan-in).
Float64 modules (`.double()`) compute in float64 throughout, which the tests use as reference.
"""
import numpy as np
import torch
import torch.nn.functional as F

from torch_utils import misc
from torch_utils import persistence
from torch_utils.ops import bias_act
from torch_utils.ops import conv2d_resample
from torch_utils.ops import fma
from torch_utils.ops import upfirdn2d

# ---------------------------------------------------------------------------------------------------------------
# Precision, sizes.


def _full_precision(tensor):
    """What this tensor's module computes in where half precision is not wanted."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _block_precision(block, weight, force_fp32, fp16_device):
    """(dtype, memory format) of a block's activations. Half precision exists on CUDA only."""
    if block.use_fp16 and not force_fp32 and fp16_device.type == "cuda":
        return torch.float16, torch.channels_last if block.channels_last else torch.contiguous_format
    return _full_precision(weight), torch.contiguous_format


def _log2_of_resolution(img_resolution, smallest):
    exponent = int(img_resolution).bit_length() - 1
    if img_resolution != 2 ** exponent or img_resolution < smallest:
        raise ValueError(f"img_resolution must be a power of two and at least {smallest} (got {img_resolution})")
    return exponent


def _channels_at(resolutions, channel_base, channel_max):
    """{resolution: feature maps}: channel_base // resolution, at most channel_max."""
    return {resolution: min(channel_base // resolution, channel_max) for resolution in resolutions}


def _first_fp16_resolution(img_resolution_log2, num_fp16_res):
    """The num_fp16_res highest resolutions run in half precision; 4x4 never does."""
    return max(2 ** (img_resolution_log2 + 1 - num_fp16_res), 8)


def _check_architecture(architecture):
    if architecture not in ("orig", "skip", "resnet"):
        raise ValueError(f"architecture must be 'orig', 'skip' or 'resnet' (got {architecture!r})")

# ---------------------------------------------------------------------------------------------------------------
# Functions.


@misc.profiled_function
def normalize_2nd_moment(x, dim=1, eps=1e-8):
    """x / sqrt(mean of x^2 along dim + eps)."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


def _bounded_for_fp16(weight, styles):
    """Scales weight per output channel and styles per image so that products in half precision stay in range.

    Demodulation divides any such factor out again, so the result does not depend on them and no gradient is needed.
    """
    fan_in = weight[0].numel()
    weight = weight / (weight.detach().abs().amax(dim=[1, 2, 3], keepdim=True) * np.sqrt(fan_in))
    styles = styles / styles.detach().abs().amax(dim=1, keepdim=True)
    return weight, styles


def _demodulation(weight, styles, eps=1e-8):
    """weight [O,I,kh,kw], styles [N,I] -> [N,O], equation 3 of StyleGAN2: 1/sqrt(sum over i,k of (styles_i * weight_oik)^2 + eps).

    styles do not depend on k, so summing over k first leaves one small matrix product.
    """
    return (styles.square() @ weight.square().sum(dim=[2, 3]).t() + eps).rsqrt()


def _modulated_matrix(x, weight_OI, styles, scale, noise):
    """modulated_conv2d() with a 1x1 kernel as matrix products: on a CPU five to nine times as fast as convolving."""
    kernels = weight_OI * styles[:, None, :]
    if scale is not None:
        kernels = kernels * scale[:, :, None]
    x = (kernels.to(x.dtype) @ x.flatten(2)).unflatten(2, x.shape[2:])
    return x if noise is None else x + noise


@misc.profiled_function
def modulated_conv2d(x, weight, styles, noise=None, up=1, down=1, padding=0, resample_filter=None, demodulate=True,
                     flip_weight=True, fused_modconv=True):
    """Convolution of image n with weights scaled per input channel by styles[n], and normalised per output channel.

    x [N,I,H,W], weight [O,I,kh,kw], styles [N,I], noise broadcastable to the result -> [N,O,H',W'].

    fused_modconv=True makes one kernel per image and convolves in groups. False scales the activations before and
    after a convolution with shared weights: mathematically the same. Gradients with respect to styles then do not pass
    through the convolution's weight, so they survive conv2d_gradfix.no_weight_gradients().
    """
    num_images = x.shape[0]
    num_out, num_in, kernel_height, kernel_width = weight.shape
    misc.assert_shape(x, [num_images, num_in, None, None])
    misc.assert_shape(styles, [num_images, num_in])
    if demodulate and x.dtype == torch.float16:
        weight, styles = _bounded_for_fp16(weight, styles)
    scale = _demodulation(weight, styles) if demodulate else None
    resample = dict(f=resample_filter, up=up, down=down, padding=padding, flip_weight=flip_weight)
    noise = None if noise is None else noise.to(x.dtype)

    if up == 1 and down == 1 and padding == 0 and x.device.type == "cpu":
        with misc.suppress_tracer_warnings():
            is_matrix = (int(kernel_height), int(kernel_width)) == (1, 1)
        if is_matrix:
            return _modulated_matrix(x, weight[:, :, 0, 0], styles, scale, noise)
    if not fused_modconv:
        x = x * styles.to(x.dtype)[:, :, None, None]
        x = conv2d_resample.conv2d_resample(x=x, w=weight.to(x.dtype), **resample)
        scale = None if scale is None else scale.to(x.dtype)[:, :, None, None]
        if scale is not None and noise is not None:
            return fma.fma(x, scale, noise)
        if scale is not None:
            return x * scale
        return x if noise is None else x + noise

    with misc.suppress_tracer_warnings():  # the number of groups is frozen into a trace
        num_images = int(num_images)
    kernels = weight[None] * styles[:, None, :, None, None]
    if scale is not None:
        kernels = kernels * scale[:, :, None, None, None]
    kernels = kernels.reshape(num_images * num_out, num_in, kernel_height, kernel_width)
    x = x.reshape(1, num_images * num_in, *x.shape[2:])
    x = conv2d_resample.conv2d_resample(x=x, w=kernels.to(x.dtype), groups=num_images, **resample)
    x = x.reshape(num_images, num_out, *x.shape[2:])
    return x if noise is None else x + noise

# ---------------------------------------------------------------------------------------------------------------
# Layers.


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """act(x W^T + b), x [N,in_features]. lr_multiplier slows the layer's learning without changing its initial output."""

    def __init__(self, in_features, out_features, bias=True, activation="linear", lr_multiplier=1, bias_init=0):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]) / lr_multiplier)
        self.bias = torch.nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain = lr_multiplier / np.sqrt(in_features)
        self.bias_gain = lr_multiplier

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

    def __init__(self, in_channels, out_channels, kernel_size, bias=True, activation="linear", up=1, down=1,
                 resample_filter=[1, 3, 3, 1], conv_clamp=None, channels_last=False, trainable=True):
        super().__init__()
        self.activation = activation
        self.up = up
        self.down = down
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / np.sqrt(in_channels * kernel_size ** 2)
        self.act_gain = bias_act.activation_funcs[activation].def_gain

        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn([out_channels, in_channels, kernel_size, kernel_size]).to(memory_format=memory_format)
        for name, value in [("weight", weight), ("bias", torch.zeros([out_channels]) if bias else None)]:
            if value is None:
                self.bias = None
            elif trainable:
                self.register_parameter(name, torch.nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))

    def forward(self, x, gain=1):
        x = conv2d_resample.conv2d_resample(
            x=x, w=(self.weight * self.weight_gain).to(x.dtype), f=self.resample_filter, up=self.up, down=self.down,
            padding=self.padding, flip_weight=self.up == 1)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(x, bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)

    def extra_repr(self):
        return f"shape={list(self.weight.shape)}, activation={self.activation}, up={self.up}, down={self.down}"


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """Latents z [N,z_dim] and labels c [N,c_dim] -> intermediate latents [N,num_ws,w_dim], or [N,w_dim] if num_ws is None.

    Keeps w_avg, an exponential moving average of its outputs in training mode, as the centre of truncation
    (w_avg_beta=None: none). z_dim=0 or c_dim=0 leave that input out.
    """

    def __init__(self, z_dim, c_dim, w_dim, num_ws, num_layers=8, embed_features=None, layer_features=None,
                 activation="lrelu", lr_multiplier=0.01, w_avg_beta=0.995):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta

        embed_features = w_dim if embed_features is None else embed_features
        layer_features = w_dim if layer_features is None else layer_features
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        widths = [z_dim + (embed_features if c_dim > 0 else 0)] + [layer_features] * (num_layers - 1) + [w_dim]
        for i, (width_in, width_out) in enumerate(zip(widths, widths[1:])):
            setattr(self, f"fc{i}", FullyConnectedLayer(width_in, width_out, activation=activation, lr_multiplier=lr_multiplier))
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False):
        dtype = _full_precision(self.fc0.weight)
        inputs = []
        if self.z_dim > 0:
            misc.assert_shape(z, [None, self.z_dim])
            inputs.append(normalize_2nd_moment(z.to(dtype)))
        if self.c_dim > 0:
            misc.assert_shape(c, [None, self.c_dim])
            inputs.append(normalize_2nd_moment(self.embed(c.to(dtype))))
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)

        if self.training and not skip_w_avg_update and self.num_ws is not None and self.w_avg_beta is not None:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        if self.num_ws is not None:
            x = x[:, None, :].repeat(1, self.num_ws, 1)
        return self._truncate(x, truncation_psi, truncation_cutoff)

    def _truncate(self, x, psi, cutoff):
        """Moves the first `cutoff` latents of each image (None: all) towards w_avg; psi=1 is no change."""
        if isinstance(psi, (int, float)) and psi == 1:
            return x
        if self.num_ws is None or self.w_avg_beta is None:
            raise ValueError("truncation_psi needs the running average w_avg, which this mapping network does not keep")
        if cutoff is None:
            return self.w_avg.lerp(x, psi)
        return torch.cat([self.w_avg.lerp(x[:, :cutoff], psi), x[:, cutoff:]], dim=1)


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """Modulated convolution, plus per-pixel noise, bias and activation. `up` enlarges by that factor before."""

    def __init__(self, in_channels, out_channels, w_dim, resolution, kernel_size=3, up=1, use_noise=True, activation="lrelu",
                 resample_filter=[1, 3, 3, 1], conv_clamp=None, channels_last=False):
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.use_noise = use_noise
        self.activation = activation
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.act_gain = bias_act.activation_funcs[activation].def_gain

        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn([out_channels, in_channels, kernel_size, kernel_size]).to(memory_format=memory_format)
        self.weight = torch.nn.Parameter(weight)
        if use_noise:
            self.noise_strength = torch.nn.Parameter(torch.zeros([]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))
        if use_noise:
            self.register_buffer("noise_const", torch.randn([resolution, resolution]))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)

    def _noise(self, num_images, mode, device):
        """What to add before the activation: fresh for each image, the layer's own constant picture, or None."""
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
        resolution_in = self.resolution // self.up
        misc.assert_shape(x, [None, self.weight.shape[1], resolution_in, resolution_in])
        noise = self._noise(x.shape[0], noise_mode, x.device)
        x = modulated_conv2d(
            x=x, weight=self.weight, styles=self.affine(w), noise=noise, up=self.up, padding=self.padding,
            resample_filter=self.resample_filter, flip_weight=self.up == 1, fused_modconv=fused_modconv)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(x, self.bias.to(x.dtype), act=self.activation, gain=self.act_gain * gain, clamp=clamp)

    def extra_repr(self):
        return f"shape={list(self.weight.shape)}, resolution={self.resolution}, up={self.up}, activation={self.activation}"


@persistence.persistent_class
class ToRGBLayer(torch.nn.Module):
    """Features -> image channels: modulated like the others, but neither demodulated nor activated."""

    def __init__(self, in_channels, out_channels, w_dim, kernel_size=1, conv_clamp=None, channels_last=False):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.weight_gain = 1 / np.sqrt(in_channels * kernel_size ** 2)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn([out_channels, in_channels, kernel_size, kernel_size]).to(memory_format=memory_format)
        self.weight = torch.nn.Parameter(weight)
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)

    def forward(self, x, w, fused_modconv=True):
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x=x, weight=self.weight, styles=styles, padding=self.weight.shape[2] // 2, demodulate=False,
                             fused_modconv=fused_modconv)
        return bias_act.bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)

    def extra_repr(self):
        return f"shape={list(self.weight.shape)}"

# ---------------------------------------------------------------------------------------------------------------
# Generator.


@persistence.persistent_class
class SynthesisBlock(torch.nn.Module):
    """One resolution of the generator. in_channels=0 makes the first block, which begins with a learned constant.

    architecture: 'orig' makes an image in the last block only; 'skip' adds one per block to the enlarged image so far;
    'resnet' adds a linear shortcut around the convolutions. Takes num_conv + num_torgb latents per image.
    """

    def __init__(self, in_channels, out_channels, w_dim, resolution, img_channels, is_last, architecture="skip",
                 resample_filter=[1, 3, 3, 1], conv_clamp=None, use_fp16=False, fp16_channels_last=False, **layer_kwargs):
        _check_architecture(architecture)
        super().__init__()
        self.in_channels = in_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.is_last = is_last
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = 1 if is_last or architecture == "skip" else 0
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))

        common = dict(conv_clamp=conv_clamp, channels_last=self.channels_last)
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn([out_channels, resolution, resolution]))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim=w_dim, resolution=resolution, up=2,
                                        resample_filter=resample_filter, **common, **layer_kwargs)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim=w_dim, resolution=resolution, **common, **layer_kwargs)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim=w_dim, **common)
        if in_channels != 0 and architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, kernel_size=1, bias=False, up=2, resample_filter=resample_filter,
                                    channels_last=self.channels_last)

    def _prefers_fused(self, dtype, ws):
        """The faster of two equal ways. Training needs the unfused one: see modulated_conv2d()."""
        if self.training:
            return False
        if ws.device.type != "cpu" and dtype != torch.float16:
            return True
        with misc.suppress_tracer_warnings():
            return int(ws.shape[0]) == 1

    def _features(self, x, ws, fused_modconv, **layer_kwargs):
        """The convolutions, with the shortcut around them if there is one."""
        if self.in_channels == 0:
            return self.conv1(x, next(ws), fused_modconv=fused_modconv, **layer_kwargs)
        if self.architecture != "resnet":
            x = self.conv0(x, next(ws), fused_modconv=fused_modconv, **layer_kwargs)
            return self.conv1(x, next(ws), fused_modconv=fused_modconv, **layer_kwargs)
        # Two branches of equal variance: each times sqrt(1/2) keeps the sum at that variance.
        shortcut = self.skip(x, gain=np.sqrt(0.5))
        x = self.conv0(x, next(ws), fused_modconv=fused_modconv, **layer_kwargs)
        return shortcut + self.conv1(x, next(ws), fused_modconv=fused_modconv, gain=np.sqrt(0.5), **layer_kwargs)

    def forward(self, x, img, ws, force_fp32=False, fused_modconv=None, **layer_kwargs):
        """x [N,in_channels,res/2,res/2] or None, img [N,img_channels,res/2,res/2] or None -> the same at res x res."""
        misc.assert_shape(ws, [None, self.num_conv + self.num_torgb, self.w_dim])
        num_images = ws.shape[0]
        full_precision = _full_precision(self.conv1.weight)
        dtype, memory_format = _block_precision(self, self.conv1.weight, force_fp32, ws.device)
        if fused_modconv is None:
            fused_modconv = self._prefers_fused(dtype, ws)
        ws = iter(ws.to(full_precision).unbind(dim=1))

        if self.in_channels == 0:
            x = self.const[None].repeat(num_images, 1, 1, 1)
        else:
            misc.assert_shape(x, [None, self.in_channels, self.resolution // 2, self.resolution // 2])
        x = x.to(dtype=dtype, memory_format=memory_format)
        x = self._features(x, ws, fused_modconv, **layer_kwargs)

        if img is not None:
            misc.assert_shape(img, [None, self.img_channels, self.resolution // 2, self.resolution // 2])
            img = upfirdn2d.upsample2d(img, self.resample_filter)
        if self.num_torgb:
            # The image is summed in full precision whatever the features are in.
            rgb = self.torgb(x, next(ws), fused_modconv=fused_modconv)
            rgb = rgb.to(dtype=full_precision, memory_format=torch.contiguous_format)
            img = rgb if img is None else img + rgb
        return x, img

    def extra_repr(self):
        return f"resolution={self.resolution}, architecture={self.architecture}, use_fp16={self.use_fp16}"


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """Intermediate latents ws [N,num_ws,w_dim] -> images [N,img_channels,img_resolution,img_resolution], about [-1, 1].

    One latent per convolution, in order; each image output takes the latent of the convolution that comes next.
    """

    def __init__(self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=0, **block_kwargs):
        super().__init__()
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_resolution_log2 = _log2_of_resolution(img_resolution, smallest=4)
        self.img_channels = img_channels
        self.block_resolutions = [2 ** i for i in range(2, self.img_resolution_log2 + 1)]
        channels = _channels_at(self.block_resolutions, channel_base, channel_max)
        fp16_from = _first_fp16_resolution(self.img_resolution_log2, num_fp16_res)

        self.num_ws = 0
        for res in self.block_resolutions:
            is_last = res == img_resolution
            block = SynthesisBlock(channels.get(res // 2, 0), channels[res], w_dim=w_dim, resolution=res, img_channels=img_channels,
                                   is_last=is_last, use_fp16=res >= fp16_from, **block_kwargs)
            setattr(self, f"b{res}", block)
            self.num_ws += block.num_conv + (block.num_torgb if is_last else 0)

    def forward(self, ws, **block_kwargs):
        misc.assert_shape(ws, [None, self.num_ws, self.w_dim])
        x = img = None
        first = 0
        for res in self.block_resolutions:
            block = getattr(self, f"b{res}")
            x, img = block(x, img, ws.narrow(1, first, block.num_conv + block.num_torgb), **block_kwargs)
            first += block.num_conv
        return img

    def extra_repr(self):
        return f"w_dim={self.w_dim}, num_ws={self.num_ws}, img_resolution={self.img_resolution}, img_channels={self.img_channels}"


@persistence.persistent_class
class Generator(torch.nn.Module):
    """Latents and labels -> images: synthesis(mapping(z, c))."""

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs={}, synthesis_kwargs={}):
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = SynthesisNetwork(w_dim=w_dim, img_resolution=img_resolution, img_channels=img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_ws=self.num_ws, **mapping_kwargs)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, **synthesis_kwargs):
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)

# ---------------------------------------------------------------------------------------------------------------
# Discriminator.


@persistence.persistent_class
class DiscriminatorBlock(torch.nn.Module):
    """One resolution of the discriminator. in_channels=0 makes the first block, which begins with the image.

    architecture: 'orig' reads the image in the first block only; 'skip' reads it, shrunk, in every block; 'resnet' adds
    a linear shortcut around the convolutions. Layers are numbered from first_layer_idx through the whole
    discriminator; those below freeze_layers don't learn. num_layers says how many numbers this block took.
    """

    def __init__(self, in_channels, tmp_channels, out_channels, resolution, img_channels, first_layer_idx, architecture="resnet",
                 activation="lrelu", resample_filter=[1, 3, 3, 1], conv_clamp=None, use_fp16=False, fp16_channels_last=False,
                 freeze_layers=0):
        if in_channels not in (0, tmp_channels):
            raise ValueError(f"in_channels must be 0 or equal tmp_channels (got {in_channels} and {tmp_channels})")
        _check_architecture(architecture)
        super().__init__()
        self.in_channels = in_channels
        self.resolution = resolution
        self.img_channels = img_channels
        self.first_layer_idx = first_layer_idx
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.num_layers = 0
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(resample_filter))

        def add_layer(name, *shape, **kwargs):
            trainable = first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            setattr(self, name, Conv2dLayer(*shape, trainable=trainable, channels_last=self.channels_last, **kwargs))

        if in_channels == 0 or architecture == "skip":
            add_layer("fromrgb", img_channels, tmp_channels, 1, activation=activation, conv_clamp=conv_clamp)
        add_layer("conv0", tmp_channels, tmp_channels, 3, activation=activation, conv_clamp=conv_clamp)
        add_layer("conv1", tmp_channels, out_channels, 3, activation=activation, conv_clamp=conv_clamp, down=2,
                  resample_filter=resample_filter)
        if architecture == "resnet":
            add_layer("skip", tmp_channels, out_channels, 1, bias=False, down=2, resample_filter=resample_filter)

    def forward(self, x, img, force_fp32=False):
        """x [N,in_channels,res,res] or None, img [N,img_channels,res,res] or None -> both at half the resolution."""
        device = (img if x is None else x).device
        dtype, memory_format = _block_precision(self, self.conv0.weight, force_fp32, device)
        if x is not None:
            misc.assert_shape(x, [None, self.in_channels, self.resolution, self.resolution])
            x = x.to(dtype=dtype, memory_format=memory_format)
        if self.in_channels == 0 or self.architecture == "skip":
            misc.assert_shape(img, [None, self.img_channels, self.resolution, self.resolution])
            img = img.to(dtype=dtype, memory_format=memory_format)
            rgb = self.fromrgb(img)
            x = rgb if x is None else x + rgb
            img = upfirdn2d.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None

        if self.architecture == "resnet":
            shortcut = self.skip(x, gain=np.sqrt(0.5))
            return shortcut + self.conv1(self.conv0(x), gain=np.sqrt(0.5)), img
        return self.conv1(self.conv0(x)), img

    def extra_repr(self):
        return f"resolution={self.resolution}, architecture={self.architecture}, use_fp16={self.use_fp16}"


@persistence.persistent_class
class MinibatchStdLayer(torch.nn.Module):
    """Appends num_channels constant maps: how much the images of a group differ.

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
            raise ValueError(f"minibatch standard deviation: {num_images} images and {channels} features cannot be divided into "
                             f"groups of {group} images and {self.num_channels} parts")
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

    cmap_dim > 0: the logit is the projection of the output on the label's embedding cmap [N,cmap_dim].
    """

    def __init__(self, in_channels, cmap_dim, resolution, img_channels, architecture="resnet", mbstd_group_size=4,
                 mbstd_num_channels=1, activation="lrelu", conv_clamp=None):
        _check_architecture(architecture)
        super().__init__()
        self.in_channels = in_channels
        self.cmap_dim = cmap_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.architecture = architecture
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, kernel_size=1, activation=activation)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = Conv2dLayer(in_channels + mbstd_num_channels, in_channels, kernel_size=3, activation=activation,
                                conv_clamp=conv_clamp)
        self.fc = FullyConnectedLayer(in_channels * resolution ** 2, in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, 1 if cmap_dim == 0 else cmap_dim)

    def forward(self, x, img, cmap, force_fp32=False):
        """force_fp32 is accepted for the sake of uniformity; there is no half precision here."""
        misc.assert_shape(x, [None, self.in_channels, self.resolution, self.resolution])
        precision = dict(dtype=_full_precision(self.conv.weight), memory_format=torch.contiguous_format)
        x = x.to(**precision)
        if self.architecture == "skip":
            misc.assert_shape(img, [None, self.img_channels, self.resolution, self.resolution])
            x = x + self.fromrgb(img.to(**precision))
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if self.cmap_dim > 0:
            misc.assert_shape(cmap, [None, self.cmap_dim])
            x = (x * cmap).sum(dim=1, keepdim=True) / np.sqrt(self.cmap_dim)
        return x

    def extra_repr(self):
        return f"resolution={self.resolution}, architecture={self.architecture}"


@persistence.persistent_class
class Discriminator(torch.nn.Module):
    """Images [N,img_channels,res,res] and labels c [N,c_dim] -> logits [N,1], high where the image looks real."""

    def __init__(self, c_dim, img_resolution, img_channels, architecture="resnet", channel_base=32768, channel_max=512,
                 num_fp16_res=0, conv_clamp=None, cmap_dim=None, block_kwargs={}, mapping_kwargs={}, epilogue_kwargs={}):
        super().__init__()
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_resolution_log2 = _log2_of_resolution(img_resolution, smallest=8)
        self.img_channels = img_channels
        self.block_resolutions = [2 ** i for i in range(self.img_resolution_log2, 2, -1)]
        channels = _channels_at([*self.block_resolutions, 4], channel_base, channel_max)
        fp16_from = _first_fp16_resolution(self.img_resolution_log2, num_fp16_res)
        if c_dim == 0:
            cmap_dim = 0
        elif cmap_dim is None:
            cmap_dim = channels[4]

        common = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        num_layers = 0
        for res in self.block_resolutions:
            block = DiscriminatorBlock(channels[res] if res < img_resolution else 0, channels[res], channels[res // 2],
                                       resolution=res, first_layer_idx=num_layers, use_fp16=res >= fp16_from, **block_kwargs, **common)
            setattr(self, f"b{res}", block)
            num_layers += block.num_layers
        if c_dim > 0:
            self.mapping = MappingNetwork(z_dim=0, c_dim=c_dim, w_dim=cmap_dim, num_ws=None, w_avg_beta=None, **mapping_kwargs)
        self.b4 = DiscriminatorEpilogue(channels[4], cmap_dim=cmap_dim, resolution=4, **epilogue_kwargs, **common)

    def forward(self, img, c, **block_kwargs):
        x = None
        for res in self.block_resolutions:
            x, img = getattr(self, f"b{res}")(x, img, **block_kwargs)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, img, cmap)

    def extra_repr(self):
        return f"c_dim={self.c_dim}, img_resolution={self.img_resolution}, img_channels={self.img_channels}"
