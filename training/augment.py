"""The stochastic augmentations of "Training Generative Adversarial Networks with Limited Data" (ADA, arXiv:2006.06676).

Appendix B of the paper lists 18 transformations in five groups - pixel blitting, geometry, colour, image-space
filtering, corruptions. `AugmentPipe` draws each of them per image with probability p times its own multiplier and
applies them as one resampling, one colour matrix, one separable filter, one noise image and one mask.

Every snapshot carries the text of this file (torch_utils.persistence), and it runs from there in other checkouts of
this family of code: so it stands alone, imports only what all of them have, and knows neither the training loop nor
the rule that moves p.

Letters in shapes: N images, C channels, H rows, W columns, B frequency bands, T filter taps.
"""

import math

import numpy as np
import scipy.signal
import torch

from torch_utils import misc, persistence
from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix, upfirdn2d

# Scaling filters of the symlets with 2 and 6 vanishing moments (Daubechies, "Ten Lectures on Wavelets", table 6.3;
# sym2 also in closed form). Both sum to sqrt(2).
_SYM2 = [
    (1 - math.sqrt(3)) / (4 * math.sqrt(2)),
    (3 - math.sqrt(3)) / (4 * math.sqrt(2)),
    (3 + math.sqrt(3)) / (4 * math.sqrt(2)),
    (1 + math.sqrt(3)) / (4 * math.sqrt(2)),
]
_SYM6 = [
    +0.015404109327027373,
    +0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    +0.4910559419267466,
    +0.787641141030194,
    +0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    +0.04472490177066578,
    +0.0017677118642428036,
    -0.007800708325034148,
]

# Relative power that natural images (1/f spectrum) are expected to hold in the four bands, lowest first; the sum is 1.
_BAND_POWER = [10 / 13, 1 / 13, 1 / 13, 1 / 13]

# Image size up to which filters run as matrix products on a CPU.
_LARGEST_MATRIX_SIZE = 1024


class AugmentationError(ValueError):
    """Images that the pipe cannot take; shown to the person at the keyboard without a traceback."""

    is_user_error = True


# --- Homogeneous matrices. Entries may be numbers or tensors of equal shape; the result is [*shape, rows, columns]. ---


def matrix(*rows, device=None):
    """Matrix from rows of numbers and equally shaped tensors."""
    entries = [entry for row in rows for entry in row]
    assert all(len(row) == len(rows[0]) for row in rows)
    tensors = [entry for entry in entries if isinstance(entry, torch.Tensor)]
    if not tensors:
        return misc.constant(np.asarray(rows, dtype=np.float64), dtype=torch.get_default_dtype(), device=device)
    like = tensors[0]
    assert device is None or torch.device(device) == like.device
    stacked = torch.stack(
        [
            entry if isinstance(entry, torch.Tensor) else misc.constant(entry, shape=like.shape, dtype=like.dtype, device=like.device)
            for entry in entries
        ],
        dim=-1,
    )
    return stacked.reshape(*like.shape, len(rows), len(rows[0]))


def translate2d(tx, ty, **kwargs):
    """[3,3] that moves by (tx, ty)."""
    return matrix([1, 0, tx], [0, 1, ty], [0, 0, 1], **kwargs)


def translate3d(tx, ty, tz, **kwargs):
    """[4,4] that moves by (tx, ty, tz)."""
    return matrix([1, 0, 0, tx], [0, 1, 0, ty], [0, 0, 1, tz], [0, 0, 0, 1], **kwargs)


def scale2d(sx, sy, **kwargs):
    """[3,3] that scales about the origin."""
    return matrix([sx, 0, 0], [0, sy, 0], [0, 0, 1], **kwargs)


def scale3d(sx, sy, sz, **kwargs):
    """[4,4] that scales about the origin."""
    return matrix([sx, 0, 0, 0], [0, sy, 0, 0], [0, 0, sz, 0], [0, 0, 0, 1], **kwargs)


def rotate2d(theta, **kwargs):
    """[3,3] that turns the x axis towards the y axis by `theta` radians."""
    theta = torch.as_tensor(theta, dtype=None if isinstance(theta, torch.Tensor) else torch.get_default_dtype(), **kwargs)
    cos, sin = torch.cos(theta), torch.sin(theta)
    return matrix([cos, -sin, 0], [sin, cos, 0], [0, 0, 1])


def rotate3d(v, theta, **kwargs):
    """[4,4] that turns by `theta` radians about the unit axis v (Rodrigues' formula); further entries of v are ignored."""
    theta = torch.as_tensor(theta, dtype=None if isinstance(theta, torch.Tensor) else torch.get_default_dtype(), **kwargs)
    x, y, z = (v[..., axis] for axis in range(3))
    cos, sin = torch.cos(theta), torch.sin(theta)
    rest = 1 - cos
    return matrix(
        [x * x * rest + cos, x * y * rest - z * sin, x * z * rest + y * sin, 0],
        [y * x * rest + z * sin, y * y * rest + cos, y * z * rest - x * sin, 0],
        [z * x * rest - y * sin, z * y * rest + x * sin, z * z * rest + cos, 0],
        [0, 0, 0, 1],
    )


def translate2d_inv(tx, ty, **kwargs):
    """Inverse of translate2d(tx, ty)."""
    return translate2d(-tx, -ty, **kwargs)


def scale2d_inv(sx, sy, **kwargs):
    """Inverse of scale2d(sx, sy)."""
    return scale2d(1 / sx, 1 / sy, **kwargs)


def rotate2d_inv(theta, **kwargs):
    """Inverse of rotate2d(theta)."""
    return rotate2d(-theta, **kwargs)


# --- Filters. ---


def _band_filters():
    """[B,T] float64: zero-phase filters that split the spectrum into four octaves and add up to the unit impulse.

    With the half-band pair L(z) = H(z) H(1/z) / 2 and U(z) = L(-z), which satisfies L + U = 1, the bands are
    U(z), L(z) U(z^2), L(z) L(z^2) U(z^4) and the remainder L(z) L(z^2) L(z^4), returned lowest first.
    """
    low = np.convolve(_SYM2, _SYM2[::-1]) / 2
    high = low * (-1.0) ** (np.arange(len(low)) - len(low) // 2)

    def dilated(taps, step):
        """Taps of F(z^step)."""
        spread = np.zeros((len(taps) - 1) * step + 1)
        spread[::step] = taps
        return spread

    bands, passed = [], np.ones(1)
    for step in (1, 2, 4):
        bands.insert(0, scipy.signal.convolve(passed, dilated(high, step), method="direct"))
        passed = scipy.signal.convolve(passed, dilated(low, step), method="direct")
    bands.insert(0, passed)
    return np.stack([np.pad(band, (len(passed) - len(band)) // 2) for band in bands])


def _reflect_pad(images, left, right, top, bottom):
    """Mirror the images [N,C,H,W] at their borders, without repeating the border pixel, by any number of pixels.

    torch mirrors once, by less than the image's size; wide filters on small images need the mirror image mirrored.
    """
    height, width = images.shape[2:]
    left_over = [left, right, top, bottom]
    limits = [width - 1, width - 1, height - 1, height - 1]
    if min(limits) == 0:
        return torch.nn.functional.pad(images, left_over, mode="replicate")
    while any(left_over):
        # Full steps of size - 1 end on a border of the mirrored image, so the next step mirrors at the right place.
        step = [min(amount, limit) for amount, limit in zip(left_over, limits)]
        images = torch.nn.functional.pad(images, step, mode="reflect")
        left_over = [amount - taken for amount, taken in zip(left_over, step)]
    return images


# --- The groups of transformations as functions of their drawn parameters. ---


def _margins(inverse, width, height, extra):
    """Pixels [left, right, top, bottom] that the images need around them so that no sample falls outside.

    A corner (+-cx, +-cy) of the output reads the input at A (+-cx, +-cy) + t, hence at most |A| (cx, cy) +- t from the
    centre; `extra` is the reach of the resampling filters. Mirroring offers at most size - 1 pixels.
    """
    half_width, half_height = (width - 1) / 2, (height - 1) / 2
    reach = inverse[:, :2, 0].abs() * half_width + inverse[:, :2, 1].abs() * half_height  # [N,2]
    shift = inverse[:, :2, 2]
    needed = torch.stack([reach - shift, reach + shift], dim=-1).amax(dim=0).tolist()  # [[left, right], [top, bottom]]
    return [
        min(max(math.ceil(amount - half + extra), 0), size - 1)
        for amounts, half, size in zip(needed, (half_width, half_height), (width, height))
        for amount in amounts
    ]


# On a CPU, filters on small images are far quicker as matrix products than as convolutions of single channels.
# A matrix is made by filtering the unit impulses, so both ways are the same operator; tests hold them together.


def _uses_matrices(images):
    return images.device.type == "cpu" and max(images.shape[2:]) <= _LARGEST_MATRIX_SIZE


def _impulses(size, images):
    """[1,1,size,size]: row i is the unit impulse at pixel i, of the images' kind."""
    return torch.eye(size, dtype=images.dtype, device=images.device)[None, None]


def _oversample(images, left, right, top, bottom, lowpass):
    """Images with mirrored margins, then twice as wide and high."""
    if not _uses_matrices(images):
        return upfirdn2d.upsample2d(x=_reflect_pad(images, left, right, top, bottom), f=lowpass, up=2)
    height, width = images.shape[2:]
    along_rows, along_columns = (
        upfirdn2d.upsample2d(x=_reflect_pad(_impulses(size, images), before, after, 0, 0), f=lowpass[None], up=[2, 1])[0, 0]
        for size, before, after in ((width, left, right), (height, top, bottom))
    )
    return along_columns.T @ (images @ along_rows)


def _undersample(images, guard, lowpass):
    """Transpose of _oversample for images with `guard` pixels too many at each side."""
    crop = -2 * guard
    if not _uses_matrices(images):
        return upfirdn2d.downsample2d(x=images, f=lowpass, down=2, padding=crop, flip_filter=True)
    along_columns, along_rows = (
        upfirdn2d.downsample2d(x=_impulses(size, images), f=lowpass[None], down=[2, 1], padding=[crop, crop, 0, 0], flip_filter=True)[0, 0]
        for size in images.shape[2:]
    )
    return along_columns.T @ (images @ along_rows)


def _resample(images, inverse, lowpass):
    """Images [N,C,H,W] moved geometrically: output pixel x, counted from the centre, shows the input at inverse [N,3,3] x.

    Section B.1 of the paper: mirrored borders, 2x oversampling with the orthogonal lowpass, bilinear lookup, and the
    transposed lowpass on the way down. With the identity the two lowpasses cancel.
    """
    batch, channels, height, width = images.shape
    guard = lowpass.shape[0] // 4  # Output pixels added per side, cut off again by the way down.
    left, right, top, bottom = _margins(inverse, width, height, extra=2 * guard)
    images = _oversample(images, left, right, top, bottom, lowpass)

    # The centre of gravity of sym6 lies at tap 5, so pixel i of the padded image sits at 2 i of the oversampled one.
    # Chain of coordinates: normalised output -> oversampled output index -> pixels from the centre -> (inverse) ->
    # pixels from the centre -> oversampled input index -> normalised input.
    device = images.device
    in_height, in_width = images.shape[2:]
    out_height, out_width = 2 * (height + 2 * guard), 2 * (width + 2 * guard)
    half_width, half_height = (width - 1) / 2, (height - 1) / 2
    from_normalised = (
        translate2d(-guard - half_width, -guard - half_height, device=device)
        @ scale2d(0.5, 0.5, device=device)
        @ matrix([out_width / 2, 0, (out_width - 1) / 2], [0, out_height / 2, (out_height - 1) / 2], [0, 0, 1], device=device)
    )
    to_normalised = (
        matrix([2 / in_width, 0, 1 / in_width - 1], [0, 2 / in_height, 1 / in_height - 1], [0, 0, 1], device=device)
        @ scale2d(2, 2, device=device)
        @ translate2d(left + half_width, top + half_height, device=device)
    )
    chain = to_normalised @ inverse @ from_normalised
    grid = torch.nn.functional.affine_grid(chain[:, :2], [batch, channels, out_height, out_width], align_corners=False)
    images = grid_sample_gradfix.grid_sample(images, grid.to(images.dtype))
    return _undersample(images, guard, lowpass)


def _transform_colours(images, colours):
    """Images [N,C,H,W] with every pixel's colour multiplied by colours [N,4,4]; C is 3, or 1 for grey = equal channels."""
    batch, channels, height, width = images.shape
    colours = colours.to(images.dtype)
    if channels == 3:
        linear, constant = colours[:, :3, :3], colours[:, :3, 3:]
        return torch.baddbmm(constant, linear, images.reshape(batch, 3, height * width)).reshape(images.shape)
    grey = colours[:, :3].mean(dim=1)  # [N,4]
    return images * grey[:, :3].sum(dim=1).reshape(-1, 1, 1, 1) + grey[:, 3].reshape(-1, 1, 1, 1)


def _filter_bands(images, gains, bands):
    """Images [N,C,H,W] with the frequency bands [B,T] amplified by gains [N,B], along both axes."""
    batch, channels, height, width = images.shape
    reach = bands.shape[1] // 2
    if _uses_matrices(images):
        along_columns, along_rows = (
            torch.tensordot(
                gains.to(images.dtype),
                conv2d_gradfix.conv2d(
                    input=_reflect_pad(_impulses(size, images), reach, reach, 0, 0), weight=bands.to(images.dtype)[:, None, None, :]
                )[0],
                dims=1,
            )  # [N,size,size]
            for size in (height, width)
        )
        return along_columns.transpose(1, 2)[:, None] @ (images @ along_rows[:, None])
    taps = (gains @ bands.to(gains.dtype)).to(images.dtype).repeat_interleave(channels, dim=0)  # [N*C,T]
    images = _reflect_pad(images, reach, reach, reach, reach)
    images = images.reshape(1, batch * channels, height + 2 * reach, width + 2 * reach)
    images = conv2d_gradfix.conv2d(input=images, weight=taps[:, None, :, None], groups=batch * channels)
    images = conv2d_gradfix.conv2d(input=images, weight=taps[:, None, None, :], groups=batch * channels)
    return images.reshape(batch, channels, height, width)


def _cut_out(images, centre, size):
    """Images [N,C,H,W] with a rectangle set to zero; centre (x, y) and size [N,2] are fractions of width and height."""
    height, width = images.shape[2:]
    columns = (torch.arange(width, device=images.device) + 0.5) / width
    rows = (torch.arange(height, device=images.device) + 0.5) / height
    outside_columns = (columns - centre[:, :1]).abs() >= size[:, :1] / 2  # [N,W]
    outside_rows = (rows - centre[:, 1:]).abs() >= size[:, 1:] / 2  # [N,H]
    return images * (outside_columns[:, None, None, :] | outside_rows[:, None, :, None]).to(images.dtype)


def _apply_where(changed, function, images, *parameters):
    """function(images, *parameters) for the images marked in `changed` [N]; the others are passed on untouched."""
    chosen = changed.nonzero()[:, 0]
    if len(chosen) == 0:
        return images
    if len(chosen) == len(images):
        return function(images, *parameters)
    result = function(images[chosen], *[parameter[chosen] for parameter in parameters])
    return images.index_copy(0, chosen, result)


class _Draws:
    """The random numbers of one batch [N], from torch's global generator (which the host's training loop seeds).

    With a percentile given, every draw is that percentile of its distribution and every gate is open. The percentile
    of normal draws follows the convention of this family of code, erfinv(2q - 1), which leaves out the factor sqrt(2).
    """

    def __init__(self, probability, batch, percentile=None):
        self.probability = probability  # Tensor [] on the images' device.
        self.batch = batch
        self.percentile = percentile

    def full(self, value):
        """The same value for every image."""
        return torch.full([self.batch], float(value), device=self.probability.device)

    def uniform(self, low=0.0, high=1.0):
        """U(low, high)."""
        if self.percentile is not None:
            return self.full(low + (high - low) * self.percentile)
        return low + (high - low) * torch.rand([self.batch], device=self.probability.device)

    def integer(self, count):
        """Uniform on 0 .. count - 1, as float."""
        return torch.floor(self.uniform(0, count)).clamp(max=count - 1)

    def normal(self, std):
        """N(0, std^2)."""
        if self.percentile is not None:
            return torch.erfinv(self.full(2 * self.percentile - 1)) * std
        return torch.randn([self.batch], device=self.probability.device) * std

    def half_normal(self, std):
        """|N(0, std^2)|."""
        if self.percentile is not None:
            return torch.erfinv(self.full(self.percentile)) * std
        return self.normal(std).abs()

    def lognormal(self, std):
        """2^N(0, std^2)."""
        return torch.exp2(self.normal(std))

    def gated(self, multiplier, neutral, *values, probability=None):
        """The values [N,...] with probability p * multiplier (one decision per image), else the neutral value."""
        if self.percentile is not None:
            return values if len(values) > 1 else values[0]
        rate = (self.probability if probability is None else probability) * multiplier
        taken = torch.rand([self.batch], device=self.probability.device) < rate
        values = [torch.where(taken.reshape(-1, *[1] * (value.ndim - 1)), value, torch.full_like(value, neutral)) for value in values]
        return values if len(values) > 1 else values[0]


@persistence.persistent_class
class AugmentPipe(torch.nn.Module):
    """All transformations, each with probability p (a buffer that the training loop moves) times its multiplier.

    xflip, rotate90, xint, scale, rotate, aniso, xfrac, brightness, contrast, lumaflip, hue, saturation, imgfilter,
    noise and cutout are multipliers (0 = never); the remaining arguments are the strengths of appendix B.
    """

    def __init__(
        self,
        xflip=0,
        rotate90=0,
        xint=0,
        xint_max=0.125,
        scale=0,
        rotate=0,
        aniso=0,
        xfrac=0,
        scale_std=0.2,
        rotate_max=1,
        aniso_std=0.2,
        xfrac_std=0.125,
        brightness=0,
        contrast=0,
        lumaflip=0,
        hue=0,
        saturation=0,
        brightness_std=0.2,
        contrast_std=0.5,
        hue_max=1,
        saturation_std=1,
        imgfilter=0,
        imgfilter_bands=[1, 1, 1, 1],
        imgfilter_std=1,
        noise=0,
        cutout=0,
        noise_std=0.1,
        cutout_size=0.5,
    ):
        super().__init__()
        self.register_buffer("p", torch.ones([]))

        # Pixel blitting: multipliers, and the largest whole-pixel shift as a fraction of the size.
        self.xflip = float(xflip)
        self.rotate90 = float(rotate90)
        self.xint = float(xint)
        self.xint_max = float(xint_max)

        # Geometry: std of log2 of the scales, largest angle in units of pi, std of the shift as a fraction of the size.
        self.scale = float(scale)
        self.rotate = float(rotate)
        self.aniso = float(aniso)
        self.xfrac = float(xfrac)
        self.scale_std = float(scale_std)
        self.rotate_max = float(rotate_max)
        self.aniso_std = float(aniso_std)
        self.xfrac_std = float(xfrac_std)

        # Colour.
        self.brightness = float(brightness)
        self.contrast = float(contrast)
        self.lumaflip = float(lumaflip)
        self.hue = float(hue)
        self.saturation = float(saturation)
        self.brightness_std = float(brightness_std)
        self.contrast_std = float(contrast_std)
        self.hue_max = float(hue_max)
        self.saturation_std = float(saturation_std)

        # Image-space filtering: one more multiplier per band.
        self.imgfilter = float(imgfilter)
        self.imgfilter_bands = list(imgfilter_bands)
        self.imgfilter_std = float(imgfilter_std)

        # Corruptions.
        self.noise = float(noise)
        self.cutout = float(cutout)
        self.noise_std = float(noise_std)
        self.cutout_size = float(cutout_size)

        self.register_buffer("Hz_geom", upfirdn2d.setup_filter(_SYM6))
        self.register_buffer("Hz_fbank", torch.as_tensor(_band_filters(), dtype=torch.float32))

    def forward(self, images, debug_percentile=None):
        """Images [N,C,H,W] -> images of the same shape.

        debug_percentile in [0, 1] makes the pipe deterministic: see _Draws.
        """
        if not isinstance(images, torch.Tensor) or images.ndim != 4:
            raise AugmentationError(f"augmentation takes a batch of images [N,C,H,W] (got shape {list(np.shape(images))})")
        if debug_percentile is None and not self.p.item() > 0:
            return images
        batch, _, height, width = images.shape
        if batch == 0:
            return images
        if debug_percentile is not None:
            debug_percentile = float(debug_percentile)
        draws = _Draws(self.p.to(images.device), batch, debug_percentile)

        inverse = self._draw_geometry(draws, width, height)
        if inverse is not None:
            changed = (inverse != torch.eye(3, device=inverse.device)).flatten(1).any(dim=1)
            images = _apply_where(changed, lambda chosen, matrices: _resample(chosen, matrices, self.Hz_geom), images, inverse)

        colours = self._draw_colours(draws, images.shape[1])
        if colours is not None:
            images = _transform_colours(images, colours)

        gains = self._draw_band_gains(draws)
        if gains is not None:
            changed = (gains != 1).any(dim=1)
            images = _apply_where(changed, lambda chosen, values: _filter_bands(chosen, values, self.Hz_fbank), images, gains)

        if self.noise > 0:
            sigma = draws.gated(self.noise, 0, draws.half_normal(self.noise_std))
            images = images + torch.randn_like(images) * sigma.to(images.dtype).reshape(-1, 1, 1, 1)
        if self.cutout > 0:
            size = draws.gated(self.cutout, 0, draws.full(self.cutout_size))
            centre = torch.stack([draws.uniform(), draws.uniform()], dim=1)
            images = _cut_out(images, centre, torch.stack([size, size], dim=1))
        return images

    def _draw_geometry(self, draws, width, height):
        """[N,3,3] from output to input pixels, both counted from the centre; None if blitting and geometry are off."""
        # The paper multiplies each new step to the left of G; the inverse grows on the right.
        steps = []
        if self.xflip > 0:
            flip = draws.gated(self.xflip, 0, draws.integer(2))
            steps.append(scale2d_inv(1 - 2 * flip, 1))
        if self.rotate90 > 0:
            quarters = draws.gated(self.rotate90, 0, draws.integer(4))
            steps.append(self._quarter_turns(quarters))
        if self.xint > 0:
            tx, ty = draws.gated(self.xint, 0, *[draws.uniform(-self.xint_max, self.xint_max) for _ in range(2)])
            steps.append(translate2d_inv(torch.round(tx * width), torch.round(ty * height)))

        if self.scale > 0:
            factor = draws.gated(self.scale, 1, draws.lognormal(self.scale_std))
            steps.append(scale2d_inv(factor, factor))
        # A rotation before and one after the anisotropic scaling; each has probability q with 1 - (1 - q)^2 = p.
        rotate_probability = 1 - torch.sqrt((1 - draws.probability * self.rotate).clamp(0, 1))
        if self.rotate > 0:
            steps.append(rotate2d_inv(-self._draw_angle(draws, rotate_probability)))
        if self.aniso > 0:
            factor = draws.gated(self.aniso, 1, draws.lognormal(self.aniso_std))
            steps.append(scale2d_inv(factor, 1 / factor))
        if self.rotate > 0 and draws.percentile is None:  # A percentile's two equal turns would hide each other.
            steps.append(rotate2d_inv(-self._draw_angle(draws, rotate_probability)))
        if self.xfrac > 0:
            tx, ty = draws.gated(self.xfrac, 0, *[draws.normal(self.xfrac_std) for _ in range(2)])
            steps.append(translate2d_inv(tx * width, ty * height))

        if not steps:
            return None
        inverse = steps[0]
        for step in steps[1:]:
            inverse = inverse @ step
        return inverse

    def _draw_angle(self, draws, probability):
        """[N] radians."""
        angle = draws.uniform(-math.pi * self.rotate_max, math.pi * self.rotate_max)
        return draws.gated(1, 0, angle, probability=probability)

    @staticmethod
    def _quarter_turns(quarters):
        """[N,3,3] inverse of rotations by -90 degrees times `quarters` [N]; exact, unlike cosines of rounded angles."""
        even = (quarters == 0) | (quarters == 2)
        cos = torch.where(even, 1 - quarters, torch.zeros_like(quarters))
        sin = torch.where(even, torch.zeros_like(quarters), 2 - quarters)
        return matrix([cos, -sin, 0], [sin, cos, 0], [0, 0, 1])

    def _draw_colours(self, draws, channels):
        """[N,4,4] on homogeneous colours; None if all colour transformations are off."""
        if max(self.brightness, self.contrast, self.lumaflip, self.hue, self.saturation) <= 0:
            return None
        if channels not in (1, 3):
            raise AugmentationError(
                f"colour augmentation needs images with 1 or 3 channels (got {channels}); "
                "choose an augmentation preset without colour (--augpipe=bg) or train with --aug=noaug"
            )
        device = draws.probability.device
        identity = torch.eye(4, device=device)
        colours = identity.expand(draws.batch, 4, 4)
        if self.brightness > 0:
            offset = draws.gated(self.brightness, 0, draws.normal(self.brightness_std))
            colours = translate3d(offset, offset, offset) @ colours
        if self.contrast > 0:
            factor = draws.gated(self.contrast, 1, draws.lognormal(self.contrast_std))
            colours = scale3d(factor, factor, factor) @ colours

        luma = misc.constant(np.array([1, 1, 1, 0]) / np.sqrt(3), dtype=torch.float32, device=device)  # The grey axis.
        onto_luma = luma.outer(luma)
        if self.lumaflip > 0:
            flip = draws.gated(self.lumaflip, 0, draws.integer(2)).reshape(-1, 1, 1)
            colours = (identity - 2 * onto_luma * flip) @ colours  # Householder reflection.
        # Grey images lie on the axis that the last two leave alone.
        if self.hue > 0 and channels > 1:
            angle = draws.gated(self.hue, 0, draws.uniform(-math.pi * self.hue_max, math.pi * self.hue_max))
            colours = rotate3d(luma, angle) @ colours
        if self.saturation > 0 and channels > 1:
            factor = draws.gated(self.saturation, 1, draws.lognormal(self.saturation_std)).reshape(-1, 1, 1)
            colours = (onto_luma + (identity - onto_luma) * factor) @ colours
        return colours

    def _draw_band_gains(self, draws):
        """[N,B] amplification per frequency band; None if filtering is off."""
        if self.imgfilter <= 0:
            return None
        device = draws.probability.device
        power = misc.constant(np.array(_BAND_POWER), dtype=torch.float32, device=device)
        gains = torch.ones([draws.batch, len(_BAND_POWER)], device=device)
        for band, multiplier in enumerate(self.imgfilter_bands):
            amplified = torch.ones_like(gains)
            amplified[:, band] = draws.lognormal(self.imgfilter_std)
            # The expected power of the image stays what it was, so that one band rises at the cost of the others.
            amplified = amplified / (power * amplified.square()).sum(dim=1, keepdim=True).sqrt()
            drawn = draws.gated(self.imgfilter * multiplier, 1, amplified)
            if multiplier > 0:  # with a percentile given every gate is open, also that of a band which is never touched
                gains = gains * drawn
        return gains
