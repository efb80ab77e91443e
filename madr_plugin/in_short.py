"""Shows the default of MADR whole, slowly: what it adds to the gradient of a generator's parameters in a step.

Look at the batch through frozen features phi. Push its features apart where they crowd and towards real ones that they
leave out (the witness). Remember mean and covariance of what was generated lately, blend the batch in, and push the two towards
those of the reals (the moments). Bring both pushes to one size, weigh each by how far it is more than sampling noise, and apply
them as strongly as twice the adversarial gradient acts at G's parameters. The tilt, which shows D and the witness more of the
reals that are left out, is another matter (tilt/), and rests here. A test holds the engine to this.

In `s`, what is remembered, "null NAME" is what a part measures where generated and real agree, and "P NAME" what it has measured.
"""

import math

import torch

grad = torch.autograd.grad


def witness(f, reals, num_reals, generator):
    """Unbiased MMD^2 between the batch and fresh reals."""

    def kernel(a, b):
        squared = (a[:, None] - b[None]).square().sum(2)
        return sum(torch.exp(-squared / (2 * (reals.scale / 2**j) ** 2)) for j in range(4)) / 4

    B, x = len(f), reals.features_ND[torch.randint(len(reals.features_ND), [num_reals], generator=generator)]
    return (kernel(f, f).sum() - B) / (B * (B - 1)) - 2 * kernel(f, x).mean()


def power(loss, f):
    """|B dL/df_i|^2, the batch's mean."""
    return (len(f) * grad(loss, f, retain_graph=True)[0]).square().sum(1).mean()


def blended(f, ridge, share=1.0, memory=(0, 0)):
    """The batch blended with what is remembered -> (mean, covariance with a ridge)."""
    mean, second = memory[0] + share * f.sum(0) / len(f), memory[1] + share * f.T @ f / len(f)
    return mean, second - mean[:, None] * mean + ridge * torch.eye(f.shape[1], dtype=f.dtype)


def frechet(mean, C, s):
    """The squared distance of two normal distributions: these moments', and the reals'."""
    roots = torch.linalg.eigvalsh(s["root"] @ C @ s["root"]).clamp(min=s["ridge"] ** 2 / 4).sqrt()
    return (mean - s["mean"]).square().sum() + C.trace() + s["trace"] - 2 * roots.sum()


def frechet_of_reals(images, X, s, random):
    """What that distance is between so many reals and all of them: simulated at powers of two, a power law between them."""

    def simulated(doublings):
        generator = random("moments-null", doublings)
        draws = (X[torch.randint(len(X), [2**doublings], generator=generator)] for _ in range(16))
        return sum(frechet(*blended(f, s["ridge"]), s) for f in draws) / 16

    lower, share = divmod(math.log2(images), 1)
    return simulated(int(lower)) ** (1 - share) * simulated(int(lower) + 1) ** share


def begun(reals, B, num_reals, random):
    """What is known before the first step: the reals' moments, and the witness's power where the batch, too, is drawn from the reals."""
    X, generator = reals.features_ND, random("null")
    mean, C = blended(X, 0)
    ridge = 1e-3 * C.diagonal().mean()
    values, vectors = torch.linalg.eigh(C + ridge * torch.eye(len(C), dtype=C.dtype))
    s = dict(step=0, mean=mean, ridge=ridge, root=(vectors * values.sqrt()) @ vectors.T, trace=values.sum())
    drawn = (X[torch.randint(len(X), [B], generator=generator)].requires_grad_() for _ in range(64))
    s["null witness"] = sum(power(witness(f, reals, num_reals, generator), f) for f in drawn) / 64
    return dict(s, first=0, second=0, weight=0.0, square=0.0, b=0.0)


def added_gradient(G, z, phi, reals, adversarial, state, random, num_reals=512, horizon=800, weight=2.0):
    """Compute what MADR adds to the gradient of each parameter of G in one step -> list; `state` ({} at first) holds what it remembers.

    G: latents [B, Z] -> images. phi: images -> features, float64. adversarial: images -> G's own loss. reals: their features_ND
    and their median distance `scale`. random: purpose -> torch.Generator. horizon: images over which what is remembered falls to 1/e.
    """
    state.update({} if state else begun(reals, len(z), num_reals, random))
    s, B, theta, later, image, b = state, len(z), list(G.parameters()), {}, G(z), state["b"]

    def mean_of(name, value, decay=0.98):
        later[name] = decay * s[name] + (1 - decay) * value if name in s else value

    def measure(name, g):  # its running size, and now and then what a unit of it becomes at each parameter
        size = g.flatten(1).norm(dim=1).mean()
        if size > 0:
            mean_of(name, size)
            if s["step"] < 8 or s["step"] % 32 == 0:
                mean_of("at " + name, torch.stack([part.norm() for part in grad(image, theta, g, retain_graph=True)]) / size, 0.8)

    def share(name):  # how much of a part is more than sampling noise
        return (1 - s.get("null " + name, 1.0) / s["P " + name]).clamp(min=0) if "P " + name in s else torch.ones([])

    f = phi(x := image.detach().requires_grad_())
    whole = b * s["weight"] + 1 - b
    moments = blended(f, s["ridge"], (1 - b) / whole, (b * s["first"] / whole, b * s["second"] / whole))
    L = dict(witness=witness(f, reals, num_reals, random("term")), moments=frechet(*moments, s))
    pushes = {name: grad(loss, f, retain_graph=True)[0] for name, loss in L.items()}
    sizes, shares = {name: push.norm(dim=1).mean() for name, push in pushes.items()}, {name: share(name) for name in L}
    push = sum(shares[name] * push / s.get("size " + name, sizes[name]) for name, push in pushes.items()) / sum(shares.values())
    g, g_adv = grad(f, x, push, retain_graph=True)[0], grad(adversarial(image), image, retain_graph=True)[0]
    strength = 0.0
    if {"term", "at term", "adversarial"} <= s.keys():  # |g_adv| / (|g| R), as measured up to the step before
        entries = torch.tensor([float(p.numel()) for p in theta])
        R = ((s["at term"] / s["at adversarial"]).log() * entries / entries.sum()).sum().exp()
        strength = weight * s["adversarial"] / (s["term"] * R) * max(shares.values())
    measure("adversarial", g_adv), measure("term", g)
    mean_of("P witness", power(L["witness"], f))
    effective = float(whole**2 / (b**2 * s["square"] + (1 - b) ** 2 / B))
    mean_of("P moments", L["moments"].detach() / frechet_of_reals(effective, reals.features_ND, s, random))
    [mean_of("size " + name, size) for name, size in sizes.items()]
    s.update(later, step=s["step"] + 1, b=(b := 1 - B / horizon), **remembered(s, f.detach(), b))
    return list(grad(image, theta, strength * g))


def remembered(s, f, b):
    """The running sums after a step: each image's weight falls by b a step."""
    new = dict(first=f.mean(0), second=f.T @ f / len(f), weight=1.0)
    return {**{name: b * s[name] + (1 - b) * value for name, value in new.items()}, "square": b**2 * s["square"] + (1 - b) ** 2 / len(f)}
