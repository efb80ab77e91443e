"""The loss of a run with --gan, --method or another backbone: adversarial terms and parts, assembled from their rows.

Each phase makes a step.Step and adds up the terms, each averaged over its own rows. Path lengths and style mixing are StyleGAN2's
and stay as training/loss.py has them. A run without those flags has training.loss.StyleGAN2Loss and none of this.
"""

import dnnlib
from dnnlib.errors import UserError
from torch_utils import distributed, training_stats
from training import half_precision
from training.gan import adversarial, methods, networks
from training.gan.judge import Judge
from training.gan.step import Step
from training.loss import PHASES, StyleGAN2Loss


class GANLoss(StyleGAN2Loss):
    """gan: name of a recipe. methods: [dict(name, all parameters)], its own among them. The rest is that of StyleGAN2Loss."""

    def __init__(self, device, G_mapping, G_synthesis, D, augment_pipe=None, gan=methods.DEFAULT_RECIPE, methods=(), **kwargs):
        super().__init__(device, G_mapping, G_synthesis, D, augment_pipe, **kwargs)
        self.parts = list(_parts(methods))
        self.terms = adversarial.TERMS[_row(gan).terms]
        for part in self.parts:
            self.terms = part.change_terms(self.terms)
        pack = 1
        for part in self.parts:
            pack *= part.pack
        self.judge = Judge(D, augment_pipe, [part.view for part in self.parts if _overrides(part, "view")], pack)
        self.cur_nimg = 0
        self._round = 0

    # --- the host protocol --------------------------------------------------------------------------------------------

    def attach(self, context):
        super().attach(context)
        self._learning = dict(G=context["G"], D=context["D"])
        for part in self.parts:
            part.attach(context)

    def begin_phase(self, phase, cur_nimg):
        self.cur_nimg, self._round = cur_nimg, 0
        for part in self.parts:
            part.begin_phase(phase, cur_nimg)

    def end_phase(self, phase):
        learner = PHASES[phase][0]
        for part in self.parts:
            part.after_step(phase, self._learning[learner])
        if learner == "D":  # once a step, so that it does not depend on the number of passes, and so of processes
            networks.follow_weights(self.D)

    def telemetry(self):
        return {name: value for part in self.parts for name, value in part.telemetry().items()}

    # --- networks -----------------------------------------------------------------------------------------------------

    def run_D(self, img, c, sync):
        """Images [N, C, H, W] and labels [N, c_dim] to logits [N / pack, 1]."""
        return self.judge(img, c)

    def run_G_aside(self, z, c):
        """As run_G() -> images alone; the running mean of the mapping's output does not notice."""
        ws = self.G_mapping(z, c, skip_w_avg_update=True)
        if self.style_mixing_prob > 0:
            ws = self.mix_styles(ws, c, z.shape[1])
        return self.G_synthesis(ws)

    # --- phases -------------------------------------------------------------------------------------------------------

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        learner, main, regularise = PHASES[phase]
        in_term = [part for part in self.parts if (regularise if part.lazy else main)]
        leaves = {kind for part in in_term for kind in part.leaves} if learner == "D" else ()
        microbatch = self._round * distributed.get_world_size() + distributed.get_rank()
        step = Step(self, phase, learner, microbatch, real_img, real_c, gen_z, gen_c, sync, leaves)
        # Parts may differentiate D's gradient, by which every image that D sees in the step is judged; and may subtract images of G that
        # differ less than bfloat16 rounds them.
        in_full = [self.D] if in_term else []
        in_full += [self.G_synthesis] if any(part.compares_near_images for part in in_term) else []
        with half_precision.full_precision(*in_full):
            if learner == "D":
                self.discriminator_step(step, main, in_term, gain)
            elif main:
                self.generator_step(step, gain)
        if learner == "G" and regularise and self.pl_weight != 0:
            self.generator_regularise(gen_z, gen_c, sync, gain)
        self._round += 1
        if sync:
            self._round = 0
            self.finish_phase()

    def generator_step(self, step, gain):
        """The adversarial term of G and what the parts add to it."""
        self._report_scores("fake", step.fake_logits)
        rows = self.terms.generator(step.fake_logits, step.real_logits if self.terms.relativistic else None)
        for part in self.parts:
            rows = part.generator_rows(step, rows)
        training_stats.report("Loss/G/loss", rows)
        means = [rows.mean()]
        for part in self.parts:
            means += self._mean_of(f"Loss/G/{part.name}", part.generator_term(step))
        sum(means).mul(gain).backward()

    def discriminator_step(self, step, main, in_term, gain):
        """The adversarial terms of D (main) and the terms of the parts `in_term`; nothing where both are absent."""
        means = []
        if main:
            self._report_scores("fake", step.fake_logits)
            self._report_scores("real", step.real_logits)
            fake_rows = self.terms.fake(step.fake_logits)
            real_rows = self.terms.real(step.real_logits, step.fake_logits)
            training_stats.report("Loss/D/loss", fake_rows.detach() + real_rows.detach())
            means += [fake_rows.mean(), real_rows.mean()]
        for part in in_term:
            means += self._mean_of(f"Loss/D/{part.name}", part.discriminator_term(step))
        if means:
            sum(means).mul(gain).backward()

    def _report_scores(self, kind, logits):
        """Logits, and on which side of D's boundary they lie: the sign that augmentation adapts to. Without a boundary the bare sign."""
        training_stats.report(f"Loss/scores/{kind}", logits)
        training_stats.report(f"Loss/signs/{kind}", (logits - (self.terms.boundary or 0)).sign())

    @staticmethod
    def _mean_of(name, term):
        """[the mean of a term over its own elements]; [] for a part that has none."""
        if term is None:
            return []
        training_stats.report(name, term)
        return [term.mean()]

    # --- state --------------------------------------------------------------------------------------------------------

    def state_dict(self):
        return dict(super().state_dict(), methods={part.name: part.state_dict() for part in self.parts})

    def load_state_dict(self, state):
        kept, own = sorted(state.get("methods", {})), sorted(part.name for part in self.parts)
        if kept != own:
            raise UserError(
                f"the training state is of a run with the methods {', '.join(kept) or 'none'}, this one has {', '.join(own) or 'none'}; "
                "go on with --method as the run began, or start a new one with --resume=NETWORK.pkl"
            )
        super().load_state_dict(state)
        for part in self.parts:
            part.load_state_dict(state["methods"][part.name])


def _row(gan):
    return methods.RECIPES[gan]


def _parts(entries):
    """The parts of the methods that have one, each with its name."""
    for entry in entries:
        values = {key: value for key, value in entry.items() if key != "name"}
        class_name = methods.METHODS[entry["name"]].part
        if class_name is not None:
            part = dnnlib.util.construct_class_by_name(class_name=class_name, **values)
            part.name = entry["name"]
            yield part


def _overrides(part, name):
    from training.gan.part import Part

    return getattr(type(part), name) is not getattr(Part, name)
