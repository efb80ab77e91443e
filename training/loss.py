"""What G and D are trained towards: StyleGAN2's losses, one overridable method per term, and the interface of every loss.

A baseline subclasses StyleGAN2Loss and replaces a term; the training loop calls the methods of Loss and nothing else.
Must not know optimizers, processes beyond one mean over ranks, or the loop.
Sources: StyleGAN2 (Karras et al. 2020, 1912.04958), R1 (Mescheder et al. 2018, 1801.04406).
"""

import math

import torch
import torch.nn.functional as F
from torch.autograd.profiler import record_function

from torch_utils import distributed, training_stats
from torch_utils.ops import conv2d_gradfix, plugins
from training import half_precision

# phase name -> (network that learns, adversarial term, regulariser)
PHASES = {
    "Gmain": ("G", True, False),
    "Greg": ("G", False, True),
    "Gboth": ("G", True, True),
    "Dmain": ("D", True, False),
    "Dreg": ("D", False, True),
    "Dboth": ("D", True, True),
}

# Methods instead of which StyleGAN2Loss may judge fakes and reals by one pass of D, and up to how many pixels of a microbatch.
_AT_ONCE_REPLACES = ("run_D", "discriminator_fake", "discriminator_real")
AT_ONCE_UP_TO_PIXELS = 2**17


class Loss:
    """The host protocol: what the training loop asks of every loss, in every process.

    accumulate_gradients() is the only method that a loss must define; the others do nothing unless overridden. The order of a run:
    attach, load_state_dict (only when a run goes on), then for each phase of a step that is due begin_phase, accumulate_gradients
    once per microbatch, end_phase; telemetry after each tick; state_dict with each training state; close.

    A loss of another code base needs no subclass: as_loss() gives it what it lacks.
    """

    def attach(self, context: dict) -> None:
        """Called once, before the first step and before load_state_dict(), when everything else of the run is built.

        context: G, D, G_ema (modules); optimizers ({'G', 'D'}, to be read alone); rank, num_gpus, device; run_dir; training_set (the object),
        training_set_kwargs; random_seed; batch_size, batch_gpu; keeps_state: True where the caller stores state_dict() itself and hands it back
        when the run goes on.
        May read files and data and talk to the other processes, all of which are here. Must leave the networks as they are.
        """

    def begin_phase(self, phase: str, cur_nimg: int) -> None:
        """Called before the first microbatch of a phase. phase: a key of PHASES. cur_nimg: images shown to D before this step.

        May change settings that hold for the phase; may draw no random numbers from PyTorch's global generators.
        """

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        """Add this microbatch's gradients to the .grad of the learning network. Called once per microbatch of a phase.

        phase: a key of PHASES. real_img: [N, C, H, W] in [-1, 1]. real_c, gen_c: [N, c_dim]. gen_z: [N, z_dim].
        sync: True for the last microbatch of this process in this step's phase. gain: factor on every loss term.
        """
        raise NotImplementedError(f"{type(self).__name__} must define accumulate_gradients")

    def end_phase(self, phase: str) -> None:
        """Called after the phase's optimizer step. May look at the weights that it made; a loss that bounds the weights of the network that
        has learned, or moves buffers that follow them, does so here, alike in every process. All else is left as it is."""

    def telemetry(self) -> dict:
        """Called at the end of each tick: {name: float} for the end of the tick line.

        Numbers for stats.jsonl go to training_stats.report() while they arise.
        """
        return {}

    def state_dict(self) -> dict:
        """Plain tensors and numbers that a resumed run needs. Called between two steps, whenever a training state is saved."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take up what state_dict() gave. Called once, after attach(), and only when a run goes on that kept some state."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but the checkpoint holds {sorted(state)}")

    def close(self) -> None:
        """Called once when the run ends, also after an error or a stop request. Release files and processes."""


class ForeignLoss(Loss):
    """A loss of another code base, with accumulate_gradients() and perhaps more, as a Loss. Other attributes are those of the loss."""

    def __init__(self, foreign):
        self.foreign = foreign
        for name in protocol():
            if callable(getattr(foreign, name, None)):
                setattr(self, name, getattr(foreign, name))

    def __getattr__(self, name):
        if name == "foreign":  # not set yet: while being copied or unpickled
            raise AttributeError(name)
        return getattr(self.foreign, name)


def protocol():
    """The names of the methods of Loss."""
    return [name for name in vars(Loss) if not name.startswith("_")]


def as_loss(made):
    """What a class named in the options has made, with every method that the loop calls."""
    return made if all(callable(getattr(made, name, None)) for name in protocol()) else ForeignLoss(made)


class StyleGAN2Loss(Loss):
    """Non-saturating logistic loss, R1, path-length regularisation, style mixing."""

    judges_at_once = True  # False: D never takes fakes and reals in one pass, for those who watch its calls now and then

    def __init__(
        self, device, G_mapping, G_synthesis, D, augment_pipe=None, style_mixing_prob=0.9, r1_gamma=10, pl_batch_shrink=2, pl_decay=0.01, pl_weight=2
    ):
        self.device = torch.device(device)
        self.G_mapping, self.G_synthesis, self.D = G_mapping, G_synthesis, D
        self.augment_pipe = augment_pipe
        self.style_mixing_prob, self.r1_gamma = style_mixing_prob, r1_gamma
        self.pl_batch_shrink, self.pl_decay, self.pl_weight = pl_batch_shrink, pl_decay, pl_weight
        self.pl_mean = torch.zeros([], device=self.device)
        self._pl_means_of_step = []  # one mean length per microbatch of the running phase

    # --- networks -----------------------------------------------------------------------------------------------

    def run_G(self, z, c, sync):
        """Latents to images. Returns (img [N, C, H, W], ws [N, num_ws, w_dim]). `sync` is for forks that wrap G in DDP."""
        ws = self.G_mapping(z, c)
        if self.style_mixing_prob > 0:
            ws = self.mix_styles(ws, c, z.shape[1])
        return self.G_synthesis(ws), ws

    def mix_styles(self, ws, c, z_dim):
        """Style mixing regularisation (StyleGAN, 1812.04948, section 3.1): later layers take a second latent's style.

        Each sample of the batch draws for itself whether, and from which layer on. ws: [N, num_ws, w_dim]; a generator that takes one
        latent for the whole image has nothing to mix.
        """
        N, num_ws, _ = ws.shape
        if num_ws == 1:
            return ws
        crossover = torch.randint(1, num_ws, [N], device=ws.device)
        mixes = torch.rand([N], device=ws.device) < self.style_mixing_prob
        other_ws = self.G_mapping(torch.randn([N, z_dim], device=ws.device), c, skip_w_avg_update=True)
        layer = torch.arange(num_ws, device=ws.device)
        takes_other = mixes[:, None] & (layer[None, :] >= crossover[:, None])
        return torch.where(takes_other[:, :, None], other_ws, ws)

    def run_D(self, img, c, sync):
        """Images [N, C, H, W] (augmented first, if there is a pipe) to logits [N, 1]."""
        if self.augment_pipe is not None:
            img = self.augment_pipe(img)
        return self.D(img, c)

    # --- terms: each returns one value per sample, or None for 'not used' ------------------------------------------

    def generator_term(self, fake_logits):
        """-log sigmoid(D(G(z))): non-saturating logistic loss."""
        return F.softplus(-fake_logits)

    def discriminator_fake_term(self, fake_logits):
        """-log(1 - sigmoid(D(G(z))))."""
        return F.softplus(fake_logits)

    def discriminator_real_term(self, real_logits):
        """-log sigmoid(D(x))."""
        return F.softplus(-real_logits)

    def gradient_penalty(self, real_img, real_logits):
        """R1: gamma/2 * |grad_x D(x)|^2 (1801.04406, eq. 9). real_img: the leaf that real_logits was computed from."""
        with conv2d_gradfix.no_weight_gradients():
            [grad] = torch.autograd.grad(outputs=[real_logits.sum()], inputs=[real_img], create_graph=True)
        penalty = grad.square().sum([1, 2, 3])
        training_stats.report("Loss/r1_penalty", penalty)
        return penalty * (self.r1_gamma / 2)

    def path_length_penalty(self, gen_img, gen_ws):
        """(|J_w^T y| - a)^2 with y ~ N(0, I)/sqrt(H*W), a = running mean of the lengths (1912.04958, eq. 4).

        a is the value at the beginning of the step, constant for the gradient and the same for all microbatches and
        processes of the step; `finish_phase` moves it.
        """
        noise = torch.randn_like(gen_img) / math.sqrt(gen_img.shape[2] * gen_img.shape[3])
        with conv2d_gradfix.no_weight_gradients():
            [grad] = torch.autograd.grad(outputs=[(gen_img * noise).sum()], inputs=[gen_ws], create_graph=True)
        lengths = grad.square().sum(2).mean(1).sqrt()
        self._pl_means_of_step.append(lengths.detach().mean())
        penalty = (lengths - self.pl_mean).square()
        training_stats.report("Loss/pl_penalty", penalty)
        return penalty * self.pl_weight

    # --- phases -----------------------------------------------------------------------------------------------------

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        network, main, regularise = PHASES[phase]
        if network == "G":
            if main:
                self.generator_main(gen_z, gen_c, sync, gain)
            if regularise and self.pl_weight != 0:
                self.generator_regularise(gen_z, gen_c, sync, gain)
        else:
            penalise = regularise and self.r1_gamma != 0
            if main and not penalise and self._judges_at_once(gen_z, real_img):
                self.discriminator_fake_and_real(gen_z, gen_c, real_img, real_c, gain)
            else:
                if main:
                    self.discriminator_fake(gen_z, gen_c, gain)
                if main or penalise:
                    self.discriminator_real(real_img, real_c, sync, gain, main, penalise)
        if sync:
            self.finish_phase()

    def generator_main(self, gen_z, gen_c, sync, gain):
        with record_function("G: adversarial term"):
            gen_img, _ = self.run_G(gen_z, gen_c, sync=sync)
            fake_logits = self.run_D(gen_img, gen_c, sync=False)
            self._report_scores("fake", fake_logits)
            loss = self.generator_term(fake_logits)
            training_stats.report("Loss/G/loss", loss)
        with record_function("G: adversarial gradient"):
            loss.mean().mul(gain).backward()

    def generator_regularise(self, gen_z, gen_c, sync, gain):
        with record_function("G: path length"):
            # A part of the batch suffices for this slowly moving regulariser and halves its cost (1912.04958, app. B).
            N = max(gen_z.shape[0] // self.pl_batch_shrink, 1)
            with half_precision.full_precision(self.G_synthesis):
                gen_img, gen_ws = self.run_G(gen_z[:N], gen_c[:N], sync=sync)
            loss = self.path_length_penalty(gen_img, gen_ws)
            training_stats.report("Loss/G/reg", loss)
        with record_function("G: path length gradient"):
            loss.mean().mul(gain).backward()

    def discriminator_fake(self, gen_z, gen_c, gain):
        with record_function("D: fakes"):
            with torch.no_grad():
                gen_img, _ = self.run_G(gen_z, gen_c, sync=False)
            fake_logits = self.run_D(gen_img, gen_c, sync=False)
            self._report_scores("fake", fake_logits)
            self._fake_loss = self.discriminator_fake_term(fake_logits)
        with record_function("D: fakes gradient"):
            self._fake_loss.mean().mul(gain).backward()
        self._fake_loss = self._fake_loss.detach()

    def discriminator_real(self, real_img, real_c, sync, gain, main, penalise):
        loss = 0
        with record_function("D: reals and R1"):
            real_img = real_img.detach().requires_grad_(penalise)
            with half_precision.full_precision(*[self.D] if penalise else []):
                real_logits = self.run_D(real_img, real_c, sync=sync)
            self._report_scores("real", real_logits)
            if main:
                real_loss = self.discriminator_real_term(real_logits)
                training_stats.report("Loss/D/loss", self._fake_loss + real_loss.detach())
                loss = loss + real_loss.reshape(len(real_img), -1).mean(1)
            if penalise:
                penalty = self.gradient_penalty(real_img, real_logits)
                training_stats.report("Loss/D/reg", penalty)
                loss = loss + penalty
        with record_function("D: reals and R1 gradient"):
            loss.mean().mul(gain).backward()

    def discriminator_fake_and_real(self, gen_z, gen_c, real_img, real_c, gain):
        """discriminator_fake() and discriminator_real() by one pass of D: the same numbers up to rounding, and the same random draws."""
        with record_function("D: fakes and reals"):
            with torch.no_grad():
                gen_img, _ = self.run_G(gen_z, gen_c, sync=False)
            images = [gen_img, real_img.detach()]
            if self.augment_pipe is not None:
                images = [self.augment_pipe(img) for img in images]
            fake_logits, real_logits = self.D.judge_together(images[0], gen_c, images[1], real_c)
            self._report_scores("fake", fake_logits)
            self._report_scores("real", real_logits)
            fake_loss, real_loss = self.discriminator_fake_term(fake_logits), self.discriminator_real_term(real_logits)
            training_stats.report("Loss/D/loss", fake_loss.detach() + real_loss.detach())
        with record_function("D: fakes and reals gradient"):
            (fake_loss.mean() + real_loss.mean()).mul(gain).backward()

    def _judges_at_once(self, gen_z, real_img):
        """Whether D takes fakes and reals in one pass. Only with a CPU's kernels, so that the plain path stays what it is, and for small
        images: it saves what every operator costs besides its numbers, and holds twice as many activations.

        Whoever replaces one of the methods below, or watches D's calls, gets the two passes.
        """
        ours = self.judges_at_once and all(
            getattr(type(self), name) is getattr(StyleGAN2Loss, name) and name not in vars(self) for name in _AT_ONCE_REPLACES
        )
        watched = self.D._forward_hooks or self.D._forward_pre_hooks or "forward" in vars(self.D)
        small = len(gen_z) == len(real_img) and real_img.shape[2] * real_img.shape[3] * len(real_img) <= AT_ONCE_UP_TO_PIXELS
        if not ours or watched or not small or self.device.type != "cpu" or not plugins.in_use("cpu"):
            return False
        can_judge = getattr(self.D, "can_judge_together", None)  # networks of before, and other ones, lack it
        return can_judge is not None and can_judge(len(real_img))

    def finish_phase(self):
        """After the last microbatch: move the path-length mean, by the mean over all microbatches and processes."""
        if self._pl_means_of_step:
            mean = distributed.all_reduce_mean_(torch.stack(self._pl_means_of_step).mean().to(torch.float32))
            # A mean that is not finite once would stay so for ever, and the regulariser with it.
            self.pl_mean.copy_(torch.where(torch.isfinite(mean), self.pl_mean.lerp(mean, self.pl_decay), self.pl_mean))
            self._pl_means_of_step.clear()

    @staticmethod
    def _report_scores(kind, logits):
        training_stats.report(f"Loss/scores/{kind}", logits)
        training_stats.report(f"Loss/signs/{kind}", logits.sign())

    # --- state ------------------------------------------------------------------------------------------------------

    def state_dict(self):
        return {"pl_mean": self.pl_mean.detach().cpu().clone()}

    def load_state_dict(self, state):
        self.pl_mean.copy_(state["pl_mean"])
