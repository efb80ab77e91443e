"""MADRLoss on a toy host: what reaches the generator, what must stay untouched, processes, resuming."""

import copy
import io
import os

import numpy as np
import pytest
import torch

from madr_plugin.host import tap
from madr_plugin.host.generator_access import GeneratorAccess
from madr_plugin.loss import MADRLoss
from madr_plugin.strength.balance import GradientBalance
from madr_spaces.errors import MADRError
from tests import warm_start
from tests.madr.toy_host import Host, Images, base_loss, madr_loss


def warmed(host, steps=3):
    """The balance needs one measured step before any term acts."""
    for _ in range(steps):
        host.step()
    return host


def generator_gradients(host, num_microbatches=1):
    host.set_learning("Gmain")
    host.G_opt.zero_grad(set_to_none=True)
    for k in range(num_microbatches):
        real, real_c, z, c = host.microbatch(0, k)
        host.loss.accumulate_gradients("Gmain", real, real_c, z, c, sync=(k == num_microbatches - 1), gain=1 / num_microbatches)
    return [parameter.grad.clone() for parameter in host.G_parameters]


class NoAdversary:
    """A base loss whose gradient at the image is zero: whatever reaches G comes from MADR."""

    def __init__(self, device, G_mapping, G_synthesis, D, augment_pipe=None):
        self.G_mapping, self.G_synthesis = G_mapping, G_synthesis

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        if phase == "Gmain":
            (self.G_synthesis(self.G_mapping(gen_z, gen_c)) * 0).sum().backward()


@pytest.mark.parametrize(
    "madr",
    [
        dict(preset="witness", balance="fixed"),
        dict(preset="paper", extractor="pca", update_interval=1, start_fill=0.1),
        dict(term="none", replay_weight=1.0, balance="fixed", replay_interval=1, dead_zone=0.0),
        dict(preset="default", balance="fixed"),
        dict(preset="enhanced", extractor="random", update_interval=1, start_fill=0.1, start_step=0),
    ],
    ids=["witness", "paper", "replay", "default", "enhanced"],
)
def test_coverage_loss_moves_the_generator(madr, monkeypatch):
    host = Host(madr_loss(madr))
    warmed(host, 8)
    host.loss.base = NoAdversary(None, host.mapping, host.synthesis, None)
    gradients = generator_gradients(host)
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients)


def test_tap_equals_adding_the_term_to_the_loss():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 30), torch.nn.Tanh(), torch.nn.Linear(30, 27)).double()
    z = torch.randn(5, 4).double()
    adversarial = lambda img: torch.nn.functional.softplus(-img.sum([1, 2, 3])).mean()
    term = lambda img: (img[:, 0] * img[:, 1]).square().mean() * 7
    img = net(z).reshape(5, 3, 3, 3)
    (adversarial(img) + 0.3 * term(img)).backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    img = net(z).reshape(5, 3, 3, 3)
    seen = []
    x = img.detach().requires_grad_()
    [gradient] = torch.autograd.grad(term(x), x)
    tap.add_gradient(img, gradient, 0.3, seen.append)
    adversarial(img).backward()
    assert all(torch.allclose(p.grad, e, rtol=1e-12) for p, e in zip(net.parameters(), expected))
    [host_gradient] = seen  # the host's part alone
    x = img.detach().requires_grad_()
    assert torch.allclose(host_gradient, torch.autograd.grad(adversarial(x), x)[0])


@pytest.mark.parametrize(
    "madr",
    [dict(weight=0.0, replay_weight=0.0, term="witness"), dict(preset="paper", extractor="pca", start_fill=1.0, capacity=100000)],
    ids=["zero-weight", "published-before-start"],
)
def test_a_silent_plugin_is_the_baseline_bit_for_bit(madr):
    with_plugin, without = Host(madr_loss(madr)), Host(base_loss())
    for _ in range(4):
        with_plugin.step(), without.step()
    assert all(torch.equal(a, b) for a, b in zip(with_plugin.weights(), without.weights()))
    assert torch.equal(with_plugin.mapping.w_avg, without.mapping.w_avg)


def test_the_hosts_randomness_and_buffers_are_left_alone():
    """After a generator phase with witness and replay the global generator stands where the bare loss leaves it."""
    states, averages = [], []
    for make in (madr_loss(), base_loss()):
        host = Host(make)
        host.step(), host.step()
        host.mapping.load_state_dict({name: torch.full_like(value, 0.1) for name, value in host.mapping.state_dict().items()})
        generator_gradients(host)
        states.append(torch.get_rng_state()), averages.append(host.mapping.w_avg.clone())
    assert torch.equal(*states) and torch.equal(*averages)


def test_discriminator_phase_is_the_bases():
    host, bare = Host(madr_loss()), Host(base_loss())
    for h in (host, bare):
        h.set_learning("Dboth")
        real, real_c, z, c = h.microbatch(1, 0)
        h.loss.accumulate_gradients("Dboth", real, real_c, z, c, sync=True, gain=1)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(host.D.parameters(), bare.D.parameters()))


def test_balance_gives_the_term_the_stated_share_of_the_gradient():
    host = warmed(Host(madr_loss(dict(preset="witness", weight=0.5, balance="present", shrink=0))), 30)
    values = host.loss.telemetry()
    assert values["gratio"] == pytest.approx(0.5, rel=1e-3)


def test_peak_balance_lets_a_vanishing_term_vanish():
    balance = GradientBalance("peak", {"term": 2.0}, "cpu")
    assert float(balance.factor("term")) == 0  # nothing measured yet
    for size in [1.0] * 200:
        balance.update(dict(host=torch.tensor(3.0), term=torch.tensor(size)))
    assert float(balance.factor("term")) == pytest.approx(6)
    for _ in range(400):
        balance.update(dict(host=torch.tensor(3.0), term=torch.tensor(0.01)))
    assert float(balance.factor("term")) == pytest.approx(6 / 0.9995**400, rel=1e-2)
    assert float(balance.ratio("term")) < 0.03
    before = float(balance.factor("term"))
    balance.update(dict(host=torch.tensor(float("inf")), term=torch.tensor(float("nan"))))
    assert float(balance.factor("term")) == pytest.approx(before, rel=1e-3)


def test_lazy_interval_multiplies_the_weight():
    host = warmed(Host(madr_loss(dict(preset="witness", balance="fixed", shrink=0, weight=1.0, interval=3))), 3)
    reference = Host(madr_loss(dict(preset="witness", balance="fixed", shrink=0, weight=3.0)))
    copy_weights(host, reference)
    reference.loss.engine.step = host.loss.engine.step  # 3: due
    due, tripled = generator_gradients(host), generator_gradients(reference)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(due, tripled))
    bare = Host(base_loss())
    copy_weights(host, bare)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(generator_gradients(host), generator_gradients(bare)))  # step 4: not due


def copy_weights(source, target):
    for name in ("mapping", "synthesis", "D"):
        getattr(target, name).load_state_dict(getattr(source, name).state_dict())
    target.cur_nimg = source.cur_nimg


def test_sub_batch_uses_the_first_images_only():
    host = warmed(Host(madr_loss(dict(batch=3))), 4)
    assert host.loss.engine.memory.offered == 4 * 2 * 3


@pytest.mark.parametrize("mixing", [0.0, 0.9])
def test_remembered_latents_make_the_same_image_again(mixing):
    host = Host(base_loss(style_mixing_prob=mixing))
    with torch.no_grad():
        host.synthesis.noise_strength.zero_()
    access = GeneratorAccess(host.mapping, host.synthesis)
    seen = []
    with access.first_image(lambda image, latents: seen.append((image.detach().clone(), latents))):
        generator_gradients(host)
    [(image, latents)] = seen
    assert latents["latents"].shape[1] == (2 if mixing else 1)
    assert (latents["layers"] >= 0).all() and (not mixing or (latents["layers"] < 3).any())
    with access.buffers_kept():
        again = access.remake(latents["latents"], latents["layers"], latents["labels"])
    assert torch.allclose(image, again, atol=1e-6)


def test_mixing_in_place_is_recognised_too():
    """Upstream writes the second latent's layers into the first mapping's output."""
    host = Host(base_loss())
    access, seen = GeneratorAccess(host.mapping, host.synthesis), []
    z, c = torch.randn([4, 8]), torch.zeros([4, 0])
    with access.first_image(lambda image, latents: seen.append(latents)):
        ws = host.mapping(z, c)
        ws[:, 2:] = host.mapping(torch.randn([4, 8]), c, skip_w_avg_update=True)[:, 2:]
        host.synthesis(ws)
    assert seen[0]["layers"].tolist() == [2] * 4 and torch.equal(seen[0]["latents"][:, 0], z)


def test_replay_follows_the_class_of_the_real():
    host = warmed(Host(madr_loss(dict(replay_interval=1)), c_dim=5), 6)
    engine = host.loss.engine
    real = engine.reference.features_ND[:40]
    entry, found = engine.replaying.nearest_entries(real, engine.reference.labels_N[:40])
    assert found.all() and torch.equal(engine.memory.filled("labels")[entry].argmax(1), engine.reference.labels_N[:40])


def test_refresh_renews_features_with_the_present_generator():
    host = warmed(Host(madr_loss(dict(refresh=200, memory="reservoir", capacity=16, update_interval=100))), 1)
    with torch.no_grad():
        host.synthesis.noise_strength.zero_()
    before = host.loss.engine.memory.filled("features").clone()
    generator_gradients(host)  # the generator has moved one step since the entries were made
    entries = host.loss.engine.memory
    image = host.loss.generator_access.remake(*(entries.filled(name) for name in ("latents", "layers", "labels")))
    assert not torch.equal(before, entries.filled("features"))
    assert torch.allclose(entries.filled("features"), host.loss.engine.extractor(image), atol=1e-4)


def test_dead_zone_leaves_reached_reals_alone():
    host = warmed(Host(madr_loss(dict(dead_zone=3.0))), 6)
    engine = host.loss.engine
    rows = torch.arange(20)
    real = engine.reference.features_ND[rows]
    assert engine.replaying.still_far(real, rows, real).sum() == 0
    assert engine.replaying.still_far(real + 100, rows, real).sum() == 20


class Resampler(torch.nn.Module):
    """G(z) = s * X[row of z] + m, by channel: at s = 1, m = 0 exactly the distribution of the training set."""

    def __init__(self, images):
        super().__init__()
        self.scale, self.shift = torch.nn.Parameter(torch.ones([2])), torch.nn.Parameter(torch.zeros([2]))
        self.images = torch.from_numpy(images).float() / 127.5 - 1

    def forward(self, z, c):
        rows = (torch.special.ndtr(z[:, 0].double()) * len(self.images)).long().clamp(0, len(self.images) - 1)
        return self.images[rows] * self.scale[:, None, None] + self.shift[:, None, None]


class Points(Images):
    """Images of one pixel with two channels: points of a plane."""

    def __init__(self, count=2000):
        super().__init__(count=16)
        points = np.random.RandomState(0).randn(count, 2) * [0.25, 0.15]
        self.images = ((points + 1) * 127.5).round().clip(0, 255).astype(np.uint8)[:, :, None, None]
        self.labels, self.image_shape = np.zeros([count, 0], np.float32), [2, 1, 1]


class NoAdversaryG(NoAdversary):
    def __init__(self, device, G, D, augment_pipe=None):
        self.G_mapping, self.G_synthesis = lambda z, c: z, lambda z: G(z, torch.zeros([len(z), 0]))


def equilibrium_scores(steps, **madr):
    """|mean| / standard error of the gradient of (s, m) over `steps` at p_g = p_data; the first steps fill the memory."""
    data = Points()
    G = Resampler(data.images)
    loss = MADRLoss(
        torch.device("cpu"),
        G=G,
        D=None,
        base_class_name=f"{__name__}.NoAdversaryG",
        madr=dict(madr, balance="fixed", extractor="pca", capacity=256, deficit_window=512, random_seed=1),
    )
    loss.attach(dict(training_set=data, random_seed=1))
    generator, gradients = torch.Generator().manual_seed(0), []
    for step in range(steps + 40):
        z, c = torch.randn([32, 4], generator=generator), torch.zeros([32, 0])
        G.zero_grad()
        loss.accumulate_gradients("Gmain", None, None, z, c, sync=True, gain=1)
        if step >= 40:
            gradients.append(torch.cat([G.scale.grad, G.shift.grad]))
    gradients = torch.stack(gradients)
    return (gradients.mean(0) / (gradients.std(0) / steps**0.5)).abs()


def test_at_equilibrium_witness_and_replay_stand_still_and_the_published_term_shrinks_the_generator():
    # Without --madr-shrink, which would silence the terms just where they are looked at.
    assert equilibrium_scores(300, preset="replay", shrink=0).max() < 4
    assert equilibrium_scores(300, preset="paper", update_interval=1, start_fill=0.1)[:2].min() > 10


# --- state ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, attached_first",
    [
        (dict(refresh=2, controller="integral", control_kimg=1.0), True),
        (dict(), False),
        (dict(preset="paper", estimator="incremental", update_interval=1), True),
        (dict(preset="enhanced", memory="importance", update_interval=1), False),
    ],
    ids=["default-all", "default-late", "paper", "enhanced"],
)
def test_resume_is_bitwise(options, attached_first):
    options = dict(options, extractor="pca")
    whole = warmed(Host(madr_loss(options)), 6)
    first = warmed(Host(madr_loss(options)), 3)
    file = io.BytesIO()
    torch.save(first.loss.state_dict(), file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    second = Host(madr_loss(options))
    copy_weights(first, second)
    for name in ("G_opt", "D_opt"):
        getattr(second, name).load_state_dict(copy.deepcopy(getattr(first, name).state_dict()))
    if not attached_first:
        second.loss.engine = None
    second.loss.load_state_dict(saved)
    second.loss.prepare()
    warmed(second, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), second.weights()))
    assert_same(whole.loss.state_dict(), second.loss.state_dict())


def assert_same(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif torch.is_tensor(a):
        assert a.dtype == b.dtype and torch.equal(a, b)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            assert_same(one, other)
    else:
        assert a == b


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(capacity=32), "--madr-capacity"),
        (dict(deficit_window=128), "--madr-deficit-window|other reference features"),
        (dict(extractor="random"), "other reference features"),
    ],
)
def test_resuming_under_other_options_is_refused(change, words):
    first = warmed(Host(madr_loss()), 2)
    second = Host(madr_loss(change))
    with pytest.raises(MADRError, match=words):
        second.loss.load_state_dict(first.loss.state_dict())


def test_the_memory_takes_samples_in_global_microbatch_order():
    host = warmed(Host(madr_loss(dict(memory="fifo"))), 1)
    z = [host_z for k in range(2) for host_z in _latents_of_first_step(k)]
    assert torch.equal(host.loss.engine.memory.filled("latents")[:, 0], torch.stack(z))


def _latents_of_first_step(k):
    torch.manual_seed(k)
    return torch.randn([8, 8])


def test_a_loop_without_sync_closes_the_step_at_the_next_phase():
    with_sync, without = Host(madr_loss()), Host(madr_loss())
    original = without.loss.accumulate_gradients
    without.loss.accumulate_gradients = lambda phase, *inputs, sync, gain: original(phase, *inputs, sync=False, gain=gain)
    for host in (with_sync, without):
        host.step(), host.step()
    assert_same(with_sync.loss.state_dict()["madr"], without.loss.state_dict()["madr"])


def test_telemetry_is_finite_numbers():
    values = warmed(Host(madr_loss()), 4).loss.telemetry()
    assert {"coverage", "lambda", "gratio", "memory"} <= set(values)
    assert all(isinstance(value, float) and value == value and abs(value) < 1e9 for value in values.values())


def test_attributes_of_the_base_are_reachable():
    assert Host(madr_loss()).loss.r1_gamma == 0.1
    with pytest.raises(AttributeError):
        Host(madr_loss()).loss.no_such_thing


# --- processes ----------------------------------------------------------------------------------------------------------------

MORE = {
    "default": dict(term="witness+moments", moments_horizon="auto", replay_weight=1.0),
    "witness": dict(tilt=1, tilt_form="weight", tilt_guard=0.0, cells=5, view="shift"),
    "moments": dict(replay_weight=1.0, replay_from="champions", champion_kimg=0.05, debt="potentials", debt_rate=1.0),
    "moments-logits": dict(tilt=1, tilt_sensor="logits", tilt_guard=0.0, cells=5),
    "witness-fine": dict(tilt=1, tilt_sensor="fine", tilt_rarest=0.1, tilt_guard=0.0, cells=5),
}


def in_ddp(make):
    """The loss gets G's parts inside DistributedDataParallel, as StyleGAN2-ADA hands them over; gradients are averaged in the host's backward."""

    def make_in_ddp(host):
        parts = host.mapping, host.synthesis
        host.mapping, host.synthesis = (torch.nn.parallel.DistributedDataParallel(part, broadcast_buffers=False) for part in parts)
        loss = make(host)
        host.mapping, host.synthesis = parts
        host.in_ddp = True
        return loss

    return make_in_ddp


def _train(rank, num_gpus, port_file, out, presets):
    torch.set_num_threads(1)
    if num_gpus > 1:
        os.environ["DNNLIB_CACHE_DIR"] = f"{out}-cache"  # not what the single process has extracted: the two share that work
        torch.distributed.init_process_group("gloo", init_method=f"file://{port_file}", rank=rank, world_size=num_gpus)
    for preset in presets:
        make = madr_loss(dict(dict(preset=preset.partition("-")[0], extractor="pca", update_interval=1, replay_interval=1), **MORE.get(preset, {})))
        host = Host(in_ddp(make) if preset == "default" and num_gpus > 1 else make)
        if host.loss.config.tilt:
            if preset == "witness-fine":
                host.loss.engine.tilt_sensor.cells.gates_C.mul_(100)
            host.loss.engine.reference.radii_C.mul_(100)  # wide enough for images of an untrained generator, or the tilt would rest
        for _ in range(6):
            host.step(num_microbatches=2, rank=rank, num_gpus=num_gpus)
        torch.save(dict(weights=host.weights(), state=host.loss.state_dict()), f"{out}-{preset}-{num_gpus}-{rank}.pt")
    if num_gpus > 1:
        torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    out, presets = str(tmp_path / "run"), ("default", "paper", "witness", "moments", "witness-fine", "moments-logits")
    _train(0, 1, None, out, presets)
    warm_start.run_all(_train, [(rank, 2, str(tmp_path / "rendezvous"), out, presets) for rank in range(2)])
    for preset in presets:
        one, first, second = (torch.load(f"{out}-{preset}-{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
        assert_same(first, second)  # ranks agree to the bit
        assert one["state"]["madr"]["reference"] == first["state"]["madr"]["reference"]  # sharded extraction gives the same features
        for a, b in zip(one["weights"], first["weights"]):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        a, b = one["state"]["madr"]["memory"], first["state"]["madr"]["memory"]
        assert a["count"] == b["count"] and torch.equal(a["tensors"]["latents"], b["tensors"]["latents"])
        assert torch.allclose(a["tensors"]["features"], b["tensors"]["features"], atol=1e-3)
        a, b = one["state"]["madr"]["forgetting"]["groups"], first["state"]["madr"]["forgetting"]["groups"]
        assert a.keys() == b.keys() and all(torch.allclose(a[key]["images"], b[key]["images"], atol=1e-3) for key in a)
        if preset == "moments-logits":
            a, b = one["state"]["madr"]["tilt_sensor"], first["state"]["madr"]["tilt_sensor"]
            assert a["position"] == b["position"] == 6 * 16 and torch.allclose(a["second_N"], b["second_N"], rtol=1e-3, atol=1e-5)
        if preset == "witness-fine":
            a, b = one["state"]["madr"]["tilt_sensor"], first["state"]["madr"]["tilt_sensor"]
            assert (
                a["cells_of"] == b["cells_of"] and a["count"] == b["count"] and (a["cells"] >= 0).sum() > 50 and torch.equal(a["cells"], b["cells"])
            )
        if preset == "default":
            a, b = one["state"]["madr"]["objective"]["moments"], first["state"]["madr"]["objective"]["moments"]
            assert float(a["weight_G"]) > 0 and torch.allclose(a["second_GDD"], b["second_GDD"], atol=1e-3)
        if preset == "moments":
            a, b = one["state"]["madr"]["champions"], first["state"]["madr"]["champions"]
            assert float(a["aged"]) > 0 and torch.allclose(a["tensors"]["squared"], b["tensors"]["squared"], rtol=1e-2, atol=1e-3)
            a_C, b_C = (found["state"]["madr"]["objective"]["witness"]["potentials"] for found in (one, first))
            assert float(a_C.abs().max()) > 0 and torch.allclose(a_C, b_C, atol=0.1)  # one image on a border moves a cell by 1/16
            assert float((a["tensors"]["latents"] == b["tensors"]["latents"]).float().mean()) > 0.95  # rounding may decide between two as near


def test_ages_count_all_generated_images_also_those_that_a_sub_batch_leaves_out():
    host = Host(madr_loss(dict(batch=4)))
    for _ in range(3):
        host.step(num_microbatches=2)
    engine = host.loss.engine
    assert engine.nimg == 3 * 16 and engine.memory.offered == 3 * 8
    assert engine.memory.filled("born").unique().tolist() == [0, 16, 32]
