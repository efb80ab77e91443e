"""Feature matching: G makes the mean features of its images those of the reals (Salimans et al. 2016, 1606.03498, section 3.1).

Letters in shapes: N images, G groups of images that D judges together (G = N unless D judges packs), F features.
"""

from training.gan import features
from training.gan.extras import G_PHASES
from training.gan.part import Part


def matching(features_real_GF, features_fake_GF):
    """|E f(x) - E f(G(z))|^2, means over the groups, the square summed over features. -> []."""
    return (features_real_GF.mean(0) - features_fake_GF.mean(0)).square().sum()


class FeatureMatching(Part):
    """weight |E f(x) - E f(G(z))|^2, f: what D's last layer reads (1606.03498, section 3.1). One value per microbatch, whose means E are.

    adversarial: weight of G's adversarial term; 0, as in the paper: the term takes its place. D learns as it does without. Reals and
    fakes are augmented as they are for D.
    """

    def __init__(self, weight=1.0, adversarial=0.0):
        self.weight, self.adversarial = weight, adversarial
        self._read, self._hooks = [], []  # (logits, features) of each pass of D in G's running step

    def attach(self, context):
        self.D = context["D"]
        features.last_layer(self.D)  # refuses a D whose features are not known, before the first step

    def begin_phase(self, phase, cur_nimg):
        """Read along with every pass of D in G's steps, whoever asks for it and with whichever weights."""
        if phase not in G_PHASES:
            return
        inputs = []
        self._hooks = [
            features.last_layer(self.D).register_forward_pre_hook(lambda _layer, given: inputs.append(given[0])),
            self.D.register_forward_hook(lambda _D, _given, logits: self._read.append((logits, inputs.pop()))),
        ]

    def after_step(self, phase, module):
        for hook in self._hooks:
            hook.remove()
        self._read, self._hooks = [], []

    def generator_rows(self, step, rows):
        return rows * self.adversarial

    def generator_term(self, step):
        term = matching(self._features_of(step.real_logits), self._features_of(step.fake_logits))
        self._read = []
        return self.weight * term

    def _features_of(self, logits):
        return next(read for of, read in self._read if of is logits)
