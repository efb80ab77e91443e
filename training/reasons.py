"""Why a value is what it is: the sentences of --dry-run, of which a later one takes the place of those about the same matter.

Must not know how a value is found, nor import torch.
"""

from training import presets


class About(str):
    """A sentence that names the matter it decides, such as 'gamma'. The matters are those of the constants below."""

    def __new__(cls, matter, text):
        sentence = super().__new__(cls, text)
        sentence.matter = matter
        return sentence


BATCH, GAMMA, RATE_G, RATE_D, TAIL = "batch", "gamma", "rate of G", "rate of D", "tail"
N_CRITIC, CHANNELS, AUGMENTATION = "steps of D per step of G", "channels", "augmentation"


def tell(reasons, sentences):
    """Add sentences to `reasons`, in place. One about a matter takes the place of what was said of it before; plain text only joins."""
    for sentence in sentences:
        matter = getattr(sentence, "matter", None)
        if matter is not None:
            reasons[:] = [former for former in reasons if getattr(former, "matter", None) != matter]
        reasons.append(sentence)


def of_base(cfg, row, resolution, num_gpus):
    """Sentences on the numbers of a base configuration. row: presets.base_config(cfg, ...)."""
    factor, rule = presets.gamma_per_pixel(cfg), presets.BASE_CONFIGS[cfg]
    fixed = f"fixed by --cfg={cfg}"
    share = f"4096 / resolution images per GPU (at most 32), at most {presets.MAX_AUTO_BATCH_SIZE} in all, on {num_gpus} GPU(s)"
    yield About(BATCH, f"batch size {row.batch_size}: {share if rule.batch_size is None else fixed}")
    if rule.gamma is None:
        yield About(
            GAMMA,
            f"R1 gamma {row.gamma:g} = {factor:g} * resolution^2 / batch = {factor:g} * {resolution}^2 / {row.batch_size}, a rule of thumb: "
            f"if samples are too alike or training diverges try {row.gamma * 5:g}, if they lack detail try {row.gamma / 5:g}",
        )
    else:
        of_rule = presets.GAMMA_PER_PIXEL * resolution**2 / row.batch_size
        yield About(GAMMA, f"R1 gamma {row.gamma:g}: {fixed}, whatever the data set; the rule of --cfg=auto would give {of_rule:g} here")
    usual = "lowered at 1024 pixels and above" if resolution >= 1024 else "the usual one below 1024 pixels"
    for letter, matter in (("G", RATE_G), ("D", RATE_D)):
        yield About(matter, f"learning rate of {letter} {row.lr:g}: {usual if rule.lr is None else fixed}")
    sized = "full width from 512 pixels on, half below" if cfg == "auto" else "sized for CPU cores" if cfg == "tiny" else fixed
    yield About(CHANNELS, f"channels min({row.channel_base} / r, {row.channel_max}) at resolution r: {sized}")
    if row.lr_tail:
        yield About(TAIL, f"learning rates fall to 0 over the last {row.lr_tail:g} of the run: --cfg={cfg}; --lr-tail=0 keeps them as they are")


def of_overrides(flags, options):
    """Sentences on typed flags that override a number of which another sentence tells."""
    for flag, letter, matter in (("glr", "G", RATE_G), ("dlr", "D", RATE_D)):
        if flag in flags:
            yield About(matter, f"{letter} learns by {describe(options[f'{letter}_opt_kwargs'])}: the rate by --{flag}")
    if "lr_tail" in flags:
        fall = f"fall to 0 over the last {flags['lr_tail']:g} of the run" if flags["lr_tail"] else "stay as they are"
        yield About(TAIL, f"learning rates {fall}: --lr-tail={flags['lr_tail']:g}")
    widths = [flag for flag in ("cbase", "cmax") if flag in flags]
    if widths:
        base, most = (options.D_kwargs.get(name) for name in ("channel_base", "channel_max"))
        text = f"channels min({base} / r, {most}) at resolution r: " if base and most else "channels as --cfg says, but for "
        yield About(CHANNELS, text + " and ".join(f"--{flag}={flags[flag]}" for flag in widths))


def describe(opt):
    """One optimizer as text: 'Adam, rate 0.0004, betas 0.5 and 0.9'."""
    betas = f", betas {' and '.join(f'{beta:g}' for beta in opt['betas'])}" if "betas" in opt else ""
    return f"{opt['class_name'].rpartition('.')[2]}, rate {opt['lr']:g}{betas}"
