"""Unrolled GAN: G learns from the discriminator that D would be a few steps later, as a function of G's images.

The steps are taken on copies of D's weights; D, its optimizer and its buffers stay as they were. Must not know which loss D descends.
"""

import torch
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from dnnlib.errors import UserError
from training.gan.part import Part


class Unrolled(Part):
    """theta^(j+1) = theta^j - rule(grad f(theta^j, G)), j = 0 ... k-1; G descends its own term under theta^k (Metz et al. 2017,
    1611.02163, section 2.2).

    G's gradient has both terms of section 2.4: through its images, and through theta^k, which depends on them. f: D's adversarial terms,
    each averaged over its rows [groups, 1] of the microbatch, which is the same for all steps; what else D descends is left out, and reals
    are those that the loop brings. rule: surrogate 'adam' (the paper's) is Adam from the present moments of D's optimizer, 'sgd' is rate
    times the gradient. rate 0: that of D's optimizer. share: of the microbatch, its first images estimate f, whose expectation the paper writes;
    below 1 for the cost, which is that of so many images. G's own term is of all of them.
    """

    def __init__(self, k=5, surrogate="adam", rate=0.0, share=1.0):
        self.k, self.surrogate, self.rate, self.share = k, surrogate, rate, share

    def attach(self, context):
        self.optimizer = context["optimizers"]["D"]
        if self.surrogate == "adam" and not isinstance(self.optimizer, torch.optim.Adam):
            raise UserError(
                f"--method=unrolled unrolls Adam, and D learns by {type(self.optimizer).__name__}: use --method=unrolled:surrogate=sgd, or leave "
                "--method=unrolled out"
            )

    def judge_for_G(self, step, judge):
        """The judge of G's step, with D's weights after k steps."""
        D = judge.D
        buffers = {name: buffer.clone() for name, buffer in D.named_buffers()}  # means of a batch normalisation move on copies
        parameters = dict(D.named_parameters())
        seen = self.num_seen(len(step.fakes), judge)

        def of_weights(weights):
            return lambda images, labels: functional_call(D, {**buffers, **dict(zip(parameters, weights))}, (images, labels))

        def objective(weights, fakes):
            unrolled = judge.with_D(of_weights(weights))
            fake_logits = unrolled(fakes[:seen], step.labels_for_D("fakes")[:seen])
            real_logits = unrolled(step.reals[:seen], step.labels_for_D("reals")[:seen])
            terms = step.loss.terms
            return terms.fake(fake_logits).mean() + terms.real(real_logits, fake_logits).mean()

        def weights_of(fakes):
            rule = self.rule(list(parameters.values()))
            return after_steps(lambda weights: objective(weights, fakes), [weight.detach() for weight in parameters.values()], self.k, rule)

        return judge.with_D(of_weights(_AfterSteps.apply(weights_of, step.fakes)))

    def num_seen(self, num_images, judge):
        """How many images of a microbatch D's steps see: whole packs, and whole groups of a minibatch standard deviation."""
        if self.share == 1:
            return num_images
        groups = [module.group_size for module in judge.D.modules() if isinstance(getattr(module, "group_size", None), int)]
        unit = judge.pack * max(groups, default=1)
        return min(max(int(num_images * self.share) // unit * unit, unit), num_images)

    def rule(self, parameters):
        """A fresh function (weights, gradients) -> weights, of one step after the other."""
        [group] = self.optimizer.param_groups
        rate = self.rate or group["lr"]
        if self.surrogate == "sgd":
            return lambda weights, gradients: [weight - rate * gradient for weight, gradient in zip(weights, gradients)]
        states = [self.optimizer.state.get(parameter, {}) for parameter in parameters]
        return Adam(parameters, states, rate, group["betas"], group["eps"])


def after_steps(objective, weights, k, rule):
    """The weights after k steps down the gradient of objective(weights) -> scalar, as a graph. weights: tensors without graph."""
    weights = [weight.requires_grad_() for weight in weights]
    for _ in range(k):
        gradients = torch.autograd.grad(objective(weights), weights, create_graph=True, allow_unused=True)
        # A weight that nothing depends on, as those of an embedding without labels, has the gradient 0.
        weights = rule(weights, [torch.zeros_like(weight) if g is None else g for weight, g in zip(weights, gradients)])
    return weights


class Adam:
    """Steps of Adam (Kingma and Ba 2014, 1412.6980, algorithm 1) as a differentiable function, from the moments that an optimizer holds.

    states: torch.optim.Adam's of each parameter, empty before its first step. They are left as they are.
    """

    # Under a root: the derivative of a root is infinite at 0, where a weight has had no gradient yet. Far below the square of any eps.
    TINY = 1e-30

    def __init__(self, parameters, states, rate, betas, eps):
        self.rate, (self.beta1, self.beta2), self.eps = rate, betas, eps
        self.shapes = [parameter.shape for parameter in parameters]
        self.sizes = [parameter.numel() for parameter in parameters]
        # All weights in one row: a rule of ten operations for each of many small tensors would cost a good part of a step of D.
        own = lambda name: torch.cat([(state[name] if state else torch.zeros_like(p)).flatten() for p, state in zip(parameters, states)])
        self.mean, self.square = own("exp_avg"), own("exp_avg_sq")
        self.steps = torch.tensor([float(state.get("step", 0)) for state in states], dtype=torch.float64)

    def __call__(self, weights, gradients):
        self.steps = self.steps + 1
        gradient = torch.cat([gradient.flatten() for gradient in gradients])
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * gradient
        self.square = self.beta2 * self.square + (1 - self.beta2) * gradient.square()
        root = (self.square / self._corrections(self.beta2)).clamp(min=self.TINY).sqrt()
        moved = self.rate * self.mean / self._corrections(self.beta1) / (root + self.eps)
        return [weight - part.view(shape) for weight, part, shape in zip(weights, moved.split(self.sizes), self.shapes)]

    def _corrections(self, beta):
        """1 - beta^steps: a number where all weights have had as many steps, else one for each."""
        corrections = 1 - beta**self.steps
        if len(set(corrections.tolist())) == 1:
            return float(corrections[0])
        return torch.repeat_interleave(corrections, torch.tensor(self.sizes)).to(self.mean)


class _AfterSteps(torch.autograd.Function):
    """weights_of(images), with a gradient by the images alone.

    The steps have a graph of their own, in which the first one need not be differentiated by the weights that it begins with.
    """

    @staticmethod
    def forward(ctx, weights_of, images):
        with torch.enable_grad():
            ctx.images = images.detach().requires_grad_()
            ctx.weights = weights_of(ctx.images)
        return tuple(weight.detach() for weight in ctx.weights)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        if ctx.weights is None:
            raise RuntimeError("the unrolled steps are differentiated once: their graph is freed as it is walked through")
        weights, ctx.weights = ctx.weights, None
        [gradient] = torch.autograd.grad(weights, [ctx.images], gradients, allow_unused=True)
        return None, gradient
