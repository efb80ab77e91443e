"""Networks that begin from a pickle's, with what a method must not take from there.

Must not know how pickles are opened.
"""

from dnnlib.errors import UserError
from training import snapshots
from training.gan import networks


def load_matching(data, targets, resume_pkl, partial):
    """Fill {G, D, G_ema} from the networks of a pickle, as snapshots.load_matching(); returns a line telling what was copied."""
    own_latents = _latents_of_another_mixture(data["G"], targets["G"], resume_pkl, partial)
    told = snapshots.load_matching(data, targets, resume_pkl, partial)
    for key in ("G", "G_ema"):
        for name, buffer in own_latents.items():
            targets[key].get_buffer(name).copy_(buffer)
    if partial:  # weights of a D without spectral normalisation came alone: divided by what others had, they would be as large as anything
        networks.follow_weights(targets["D"], networks.SPECTRAL_SETTLING_STEPS)
    return told


def _latents_of_another_mixture(source, target, resume_pkl, partial):
    """{buffer: value} that a generator of --method=gm-gan keeps, where the pickle's was trained on other latents: copied, they would silently
    take the place of what the run's options say. Raises UserError unless `partial`."""
    theirs, ours = (dict(getattr(network, "init_kwargs", {})) for network in (source, target))
    differing = [name for name in ("kind", "radius", "std") if theirs.get(name) != ours.get(name)]
    if "num_means" not in theirs or "num_means" not in ours or not differing:
        return {}
    if not partial:
        typed = ",".join(f"{name}={theirs.get(name)}" for name in differing)
        raise UserError(
            f"--resume={resume_pkl} was trained on another mixture of latents: use --method=gm-gan:{typed} to go on with it, or --resume-partial to "
            "keep that of this run"
        )
    return {name: buffer.clone() for name, buffer in target.named_buffers() if name in ("mapping.means", "mapping.std")}
