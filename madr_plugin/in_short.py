"""Shows the default of MADR whole, slowly: what it adds to the gradient of a generator's parameters in a step.

Look at the batch through frozen features phi. Push its features apart where they crowd and towards real ones that they
leave out (the witness). Do so as strongly as the adversarial gradient acts at G's parameters, times how far the push is
more than the sampling noise of a batch. Every eighth step (the replay) take reals that recent images leave out, find the
remembered latents whose images came nearest, and pull these images further, unless they are as near already as they
would be at equilibrium. Remember the batch's latents; forget old ones at random. A test holds the engine to this.
"""

import torch


def squared(a, b):
    return (a[:, None] - b[None]).square().sum(2)


def remember(s, z, f, reals, chances, capacity, window, half_life):
    d_B, cell_B = squared(f, reals.centroids_CD).min(1)
    s["cells"] = (s["cells"] + torch.where(d_B <= reals.radii_C[cell_B].square(), cell_B, -1).tolist())[-window:]
    for latent, feature, chance, place in zip(z, f, *chances.tolist()):
        slot = len(s["latents"]) if len(s["latents"]) < capacity else int(place * capacity)
        if slot == len(s["latents"]) or chance < capacity * 0.6931 / half_life:  # ln 2
            s["latents"][slot : slot + 1], s["features"][slot : slot + 1] = [latent], [feature]


def added_gradient(G, z, phi, reals, adversarial, state, random, num_reals=512, capacity=2048, window=1024, half_life=13300, interval=8):
    """Compute what MADR adds to the gradient of each parameter of G in one step -> list; `state` ({} at first) holds what it remembers.

    G: latents [B, Z] -> images. phi: images -> features. adversarial: images -> G's own loss. reals: their features_ND, the median distance
    `scale`, and k-means cells (centroids_CD, radii_C, shares_C, cell_of_real_N). random: purpose -> torch.Generator.
    """
    s, X, B, theta, grad = state, reals.features_ND, len(z), list(G.parameters()), torch.autograd.grad

    def kernel(a, b):
        return sum(torch.exp(-squared(a, b) / (2 * (reals.scale / 2**j) ** 2)) for j in range(4)) / 4

    def witness(f, generator):  # unbiased MMD^2 between the batch and fresh reals
        x = X[torch.randint(len(X), [num_reals], generator=generator)]
        return (kernel(f, f).sum() - B) / (B * (B - 1)) - 2 * kernel(f, x).mean()

    def power(loss, f):  # |B dL/df_i|^2, the batch's mean
        return (B * grad(loss, f, retain_graph=True)[0]).square().sum(1).mean()

    def measure(name, image, g, occasion):  # its running size, and now and then what a unit of it becomes at each parameter
        new = {name: g.flatten(1).norm(dim=1).mean()}
        if occasion < 8 or occasion % 32 == 0:
            new["at " + name] = torch.stack([part.norm() for part in grad(image, theta, g, retain_graph=True)]) / new[name]
        for key, value in new.items() if new[name] > 0 else ():
            decay = 0.8 if key.startswith("at") else 0.98
            later[key] = decay * s[key] + (1 - decay) * value if key in s else value

    def strength(name):  # |g_adv| / (|g| R) (1 - P_null / P)^4, as measured up to the step before
        if not {name, "at " + name, "adversarial"} <= s.keys():
            return 0.0
        entries = torch.tensor([float(p.numel()) for p in theta])
        R = ((s["at " + name] / s["at adversarial"]).log() * entries / entries.sum()).sum().exp()
        return s["adversarial"] / (s[name] * R) * (1 - s["P_null"] / s["P"]).clamp(min=0) ** 4

    if not s:  # P_null: the power where the batch, too, is drawn from the reals
        g = random("null")
        draws = [(f, witness(f, g)) for f in (X[torch.randint(len(X), [B], generator=g)].requires_grad_() for _ in range(64))]
        s.update(step=0, latents=[], features=[], cells=[], P_null=sum(power(loss, f) for f, loss in draws) / 64)
    later, image = {}, G(z)
    f = phi(x := image.detach().requires_grad_())
    loss = witness(f, random("term"))
    P, g, g_adv = power(loss, f), grad(loss, x)[0], grad(adversarial(image), image, retain_graph=True)[0]
    measure("adversarial", image, g_adv, s["step"]), measure("witness", image, g, s["step"])
    added = list(grad(image, theta, strength("witness") * g))

    if s["step"] % interval == 0 and s["latents"]:  # the replay
        n_C = torch.bincount(torch.tensor([c for c in s["cells"] if c >= 0], dtype=torch.int64), minlength=len(reals.shares_C))
        v_C = (reals.shares_C * n_C.sum() / (n_C + n_C.sqrt() + 1)).clamp(1, 5)  # how deficient a cell is
        v_N = v_C[reals.cell_of_real_N].double().cumsum(0)
        rows = torch.searchsorted(v_N, torch.rand([max(1, round(B / 2))], generator=random("replay"), dtype=torch.float64) * v_N[-1])
        image = G(torch.stack([s["latents"][i] for i in squared(X[rows], torch.stack(s["features"])).argmin(1)]))
        distance = (phi(x := image.detach().requires_grad_()) - X[rows]).square().sum(1)
        k = min(max(1, round(3 * len(X) / len(s["latents"]))), len(X) - 1)  # reals in a ball that should hold 3 remembered images
        zone = squared(X[rows], X).topk(k + 1, largest=False).values[:, -1]
        [g] = grad((distance * (distance.detach() > zone)).mean() / reals.scale**2, x)
        measure("replay", image, g, s["step"] // interval)
        added = [a + b for a, b in zip(added, grad(image, theta, strength("replay") * g))]

    s.update(later, step=s["step"] + 1, P=0.98 * s["P"] + 0.02 * P if "P" in s else P)
    remember(s, z, f.detach(), reals, torch.rand([2, B], generator=random("memory"), dtype=torch.float64), capacity, window, half_life)
    return added
