"""What a method may do inside the loss: a class of hooks that do nothing unless a method overrides them.

A Part is stateless or nearly so; one with networks, pools or histories is an Extra (extras.py). `step` is a step.Step. Terms are
tensors of any shape, averaged over their own elements.
"""


class Part:
    """One method of a run. Made with the parameters of its row as keywords, in every process.

    lazy: whether discriminator_term() belongs to the phase of penalties, which may come on every 16th step only, with 16 times the weight.
    leaves: of 'reals' and 'fakes', by which images of D's step its term differentiates. pack: images that D judges as one.
    compares_near_images: whether its terms compare G's images of nearly the same latents, so that G is to draw them in full precision.
    """

    lazy = False
    leaves: tuple = ()
    pack = 1
    compares_near_images = False

    # --- before and around steps ------------------------------------------------------------------------------------

    def change_terms(self, terms):
        """The adversarial terms that are used instead. Called once. terms: adversarial.Terms."""
        return terms

    def attach(self, context):
        """Called once before training, before load_state_dict(). context: see training.loss.Loss.attach."""

    def begin_phase(self, phase, cur_nimg):
        """Called before the first microbatch of a phase."""

    def after_step(self, phase, module):
        """Called after the phase's optimizer step, in every process. module: the network that has learned."""

    # --- what D sees ------------------------------------------------------------------------------------------------

    def view(self, images):
        """What D sees of images, real or fake, in G's steps and in its own. [N, C, H, W] -> [N, C, H, W], differentiable."""
        return images

    def reals_for_D(self, step, images, labels):
        """The reals of D's step -> (images, labels), as many."""
        return images, labels

    def fakes_for_D(self, step, images, labels):
        """The fakes of D's step, without graph -> (images, labels), as many."""
        return images, labels

    def labels_for_D(self, step, kind, images, labels):
        """What D is told of images beside them. kind: 'reals' or 'fakes'. [N, c_dim] -> [N, any]."""
        return labels

    def judge_for_G(self, step, judge):
        """The judge.Judge that G learns from in this step."""
        return judge

    # --- terms ------------------------------------------------------------------------------------------------------

    def generator_rows(self, step, rows):
        """Which rows of G's adversarial term count, and how much. [groups, 1] -> [any, 1]."""
        return rows

    def generator_term(self, step):
        """What G descends besides, or None."""
        return None

    def discriminator_term(self, step):
        """What D descends besides, or None."""
        return None

    # --- the end ----------------------------------------------------------------------------------------------------

    def telemetry(self):
        """{name: float} for the tick line."""
        return {}

    def state_dict(self):
        """Plain tensors and numbers that a resumed run needs; the same in every process."""
        return {}

    def load_state_dict(self, state):
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but the checkpoint holds {sorted(state)}")
