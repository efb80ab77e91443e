"""The Frechet distance of remembered moments: its value and slopes, what is remembered, its rest at equilibrium, its place in a step."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from madr_plugin import config, objectives
from madr_plugin.maths import moments
from madr_plugin.memory.moments import MomentsMemory
from madr_plugin.reals import real_moments, reference as references
from madr_plugin.strength.signal_share import SignalShare
from madr_spaces import registry
from madr_spaces.errors import MADRError
from tests.madr.toy_host import Host, Images, madr_loss

WIDTH = 6
ONE_GROUP = torch.zeros([64], dtype=torch.int64)


def drawn(count, seed=0, shift=0.0, width=WIDTH):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn([width, width], generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn([count, width], generator=generator, dtype=torch.float64) @ mixing + shift


@pytest.fixture(scope="module")
def target():
    return moments.target_of(*moments.moments_of(drawn(4000)))


@pytest.mark.parametrize("count", [200, 4])  # the second: a covariance of rank 3 in 6 dimensions
def test_it_is_the_textbook_distance(target, count):
    fake, real, ridge = drawn(count, seed=1, shift=0.5), drawn(4000), float(target.ridge)
    covariances = [np.cov(part.numpy().T, bias=True) + ridge * np.eye(WIDTH) for part in (fake, real)]
    means = [part.numpy().mean(0) for part in (fake, real)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert float(moments.frechet_distance(*moments.moments_of(fake), target)) == pytest.approx(expected, rel=1e-6)


def test_reals_are_at_no_distance_from_themselves_also_where_they_do_not_vary():
    real = drawn(500)
    real[:, 2] = 3.0
    target = moments.target_of(*moments.moments_of(real))
    assert abs(float(moments.frechet_distance(*moments.moments_of(real), target))) < 1e-9 * float(target.trace)
    fake = drawn(8, seed=4).requires_grad_()
    [gradient] = torch.autograd.grad(moments.frechet_distance(*moments.moments_of(fake), target), fake)
    assert torch.isfinite(gradient).all()
    with pytest.raises(ValueError, match="do not vary"):
        moments.target_of(*moments.moments_of(torch.ones([9, 3])))


def test_first_and_second_derivatives(target):
    fake = drawn(12, seed=2, shift=0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: moments.frechet_distance(*moments.moments_of(x), target), [fake], eps=1e-5)
    assert torch.autograd.gradgradcheck(lambda x: moments.frechet_distance(*moments.moments_of(x), target), [fake], eps=1e-5, atol=1e-4)


def test_weighted_moments_are_those_of_repeated_rows():
    rows = drawn(3)
    weighted = moments.moments_of(rows, torch.tensor([1.0, 2.0, 1.0]))
    repeated = moments.moments_of(rows[[0, 1, 1, 2]])
    assert all(torch.allclose(one, other) for one, other in zip(weighted, repeated))


# --- what is remembered --------------------------------------------------------------------------------------------


def test_what_is_remembered_is_the_weighted_mean_of_all_steps():
    memory, steps, decay = MomentsMemory(1, WIDTH, "cpu"), [drawn(8, seed=seed) for seed in range(5)], 0.7
    for step in steps[:-1]:
        memory.update(step, ONE_GROUP[:8], decay)
    mean, second, effective = memory.blended(steps[-1], ONE_GROUP[:8], decay)[0]
    weights = torch.tensor([decay**age for age in (4, 3, 2, 1, 0)], dtype=torch.float64).repeat_interleave(8)
    expected = moments.moments_of(torch.cat(steps), weights)
    assert torch.allclose(mean, expected[0]) and torch.allclose(second, expected[1])
    assert float(effective) == pytest.approx(float(weights.sum() ** 2 / weights.square().sum()))


def test_in_the_long_run_it_stands_for_as_many_images_as_an_average_of_that_decay():
    memory = MomentsMemory(1, WIDTH, "cpu")
    for step in range(400):
        memory.update(drawn(16, seed=step), ONE_GROUP[:16], 0.95)
    assert float(memory.weight_G.square() / memory.square_G) == pytest.approx(16 * 1.95 / 0.05, rel=1e-3)


def test_without_a_horizon_it_is_the_batch_alone():
    memory = MomentsMemory(1, WIDTH, "cpu")
    memory.update(drawn(8, seed=1), ONE_GROUP[:8], 0.0)
    mean, second, effective = memory.blended(drawn(8, seed=2), ONE_GROUP[:8], 0.0)[0]
    assert torch.allclose(mean, drawn(8, seed=2).mean(0)) and float(effective) == pytest.approx(8)


def test_what_is_not_finite_is_not_remembered():
    memory, twin, batch = MomentsMemory(1, WIDTH, "cpu"), MomentsMemory(1, WIDTH, "cpu"), drawn(8)
    memory.update(torch.cat([batch, torch.full([1, WIDTH], math.nan), torch.full([1, WIDTH], math.inf)]), ONE_GROUP[:10], 0.9)
    twin.update(batch, ONE_GROUP[:8], 0.9)
    memory.update(torch.full([4, WIDTH], math.nan), ONE_GROUP[:4], 0.9)
    assert all(torch.equal(getattr(memory, name), getattr(twin, name)) for name in memory.NAMES)


def test_classes_are_remembered_apart_and_an_absent_one_stays_as_it_was():
    memory, first, second = MomentsMemory(2, WIDTH, "cpu"), drawn(6, seed=1), drawn(6, seed=2, shift=5.0)
    memory.update(torch.cat([first, second]), torch.tensor([0] * 6 + [1] * 6), 0.5)
    memory.update(drawn(4, seed=3), torch.tensor([0, 0, 0, -1]), 0.5)
    means = memory.first_GD / memory.weight_G[:, None]
    assert torch.allclose(means[1], second.mean(0))
    weights = torch.tensor([0.25 / 12] * 6 + [0.5 / 4] * 3, dtype=torch.float64)[:, None]
    assert torch.allclose(means[0], (weights * torch.cat([first, drawn(4, seed=3)[:3]])).sum(0) / weights.sum())


def test_state_is_exact_and_another_width_is_refused():
    memory, again = MomentsMemory(1, WIDTH, "cpu"), MomentsMemory(1, WIDTH, "cpu")
    memory.update(drawn(8), ONE_GROUP[:8], 0.9)
    again.load(memory.live_state(), "cpu")
    for one in (memory, again):
        one.update(drawn(8, seed=5), ONE_GROUP[:8], 0.9)
    assert all(torch.equal(getattr(memory, name), getattr(again, name)) for name in memory.NAMES)
    with pytest.raises(ValueError, match="6 features, these of 1 and 7"):
        MomentsMemory(1, 7, "cpu").load(memory.live_state(), "cpu")


# --- rest at equilibrium -------------------------------------------------------------------------------------------


def run_of(target, draw, steps=1500, batch=16, decay=0.95):
    """-> (SignalShare of the run, mean gradient on a batch's features, mean size of one)."""
    memory, share, null = MomentsMemory(1, WIDTH, "cpu"), SignalShare("cpu", 1.0), None
    total, size = 0.0, 0.0
    for step in range(steps):
        fake = draw(batch, step).requires_grad_()
        mean, second, effective = memory.blended(fake, ONE_GROUP[:batch], decay)[0]
        distance = moments.frechet_distance(mean, second, target)
        [gradient] = torch.autograd.grad(distance, fake)
        if step == 200:
            null = moments.null_distance(
                lambda count, generator: drawn(4000)[torch.randint(4000, [count], generator=generator)],
                round(float(effective)),
                target,
                torch.Generator().manual_seed(1),
                repeats=32,
            )
        if step >= 200:
            share.update(distance.detach(), null)
            total, size = total + gradient.sum(0), size + gradient.sum(0).norm()
        memory.update(fake.detach(), ONE_GROUP[:batch], decay)
    return share, total / (steps - 200), size / (steps - 200)


def test_where_generated_and_real_agree_the_mean_gradient_vanishes_and_little_counts_as_signal(target):
    share, mean, size = run_of(
        target, lambda count, step: drawn(4000)[torch.randint(4000, [count], generator=torch.Generator().manual_seed(step))], steps=2000, decay=0.8
    )
    assert float(mean.norm()) < 0.15 * float(size)
    assert float(share.factor()) < 0.35  # the distance of a running memory wanders about its null


def test_in_collapse_nearly_everything_is_signal(target):
    share, mean, size = run_of(target, lambda count, step: 0.05 * drawn(count, seed=1000 + step), steps=300)
    assert float(share.factor()) > 0.95


def test_the_null_of_many_images_is_drawn_in_blocks(target):
    reals, asked = drawn(4000), []

    def draw(count, generator):
        asked.append(count)
        return reals[torch.randint(4000, [count], generator=generator)]

    null = moments.null_distance(draw, 20_000, target, torch.Generator().manual_seed(3), repeats=2)
    generator = torch.Generator().manual_seed(3)
    at_once = [moments.frechet_distance(*moments.moments_of(draw(20_000, generator)), target) for _ in range(2)]
    assert max(asked[:-2]) < 10_000 and sum(asked[:-2]) == 40_000
    torch.testing.assert_close(null, sum(at_once) / 2, rtol=1e-9, atol=0)


def test_the_null_is_what_an_average_of_that_decay_shows(target):
    memory, seen = MomentsMemory(1, WIDTH, "cpu"), []
    for step in range(1200):
        batch = drawn(16, seed=5000 + step)
        mean, second, effective = memory.blended(batch, ONE_GROUP[:16], 0.9)[0]
        if step > 100:
            seen.append(float(moments.frechet_distance(mean, second, target)))
        memory.update(batch, ONE_GROUP[:16], 0.9)
    null = moments.null_distance(
        lambda count, generator: drawn(count, seed=int(torch.randint(10**6, [1], generator=generator))),
        round(float(effective)),
        target,
        torch.Generator().manual_seed(2),
        repeats=64,
    )
    assert float(null) == pytest.approx(np.mean(seen), rel=0.15)


# --- in a step -------------------------------------------------------------------------------------------------------


def host_with(c_dim=0, **options):
    return Host(madr_loss(dict(dict(preset="witness", term="witness+moments", capacity=64), **options)), c_dim=c_dim)


def make_reference(dataset, **options):
    chosen = config.resolve(dict(deficit_window=64, **options))
    extractor = registry.build(chosen.extractor, dataset.image_shape, chosen.width, 0)
    return references.build(dataset, extractor, chosen, 0, torch.device("cpu"), [].append)


def test_between_two_sizes_the_null_is_as_simulated_there():
    noise = Images()
    noise.images = np.random.RandomState(1).randint(0, 256, noise.images.shape).astype(np.uint8)  # many directions alike: simulations differ little
    knobs = config.resolve(dict(preset="witness", term="witness+moments"))
    objective = objectives.build(knobs, make_reference(noise), 0).objectives["moments"]
    draw, target = lambda count, generator: objective.reals.draw(0, count, generator), objective.reals.targets[0]
    for count in (3, 11, 45, 181, 362, 724):
        simulated = moments.null_distance(draw, count, target, torch.Generator().manual_seed(count), repeats=32)
        assert float(objective.null_distance(0, float(count))) == pytest.approx(float(simulated), rel=0.07)
    either_side = [float(objective.null_distance(0, count)) for count in (63.999, 64.0, 64.001)]
    assert either_side == pytest.approx([either_side[1]] * 3, rel=1e-3)


def test_the_mixture_brings_both_parts_to_one_size_and_weighs_them_by_their_signal():
    reference = make_reference(Images())
    knobs = config.resolve(dict(preset="witness", term="witness+moments", reals=32))
    mixed, fake = objectives.build(knobs, reference, 0), reference.features_ND[:8] * 0.5
    generator = lambda: torch.Generator().manual_seed(1)
    parts = {name: part.gradient(fake, generator(), objectives.Seen())[0] for name, part in mixed.objectives.items()}
    units = {name: part / part.norm(dim=1).mean() for name, part in parts.items()}
    even, measured = mixed.gradient(fake, generator(), objectives.Seen())
    assert torch.allclose(even, (units["witness"] + units["moments"]) / 2, atol=1e-6)
    shares = dict(witness=torch.tensor(0.25), moments=torch.tensor(0.75))
    weighed, _ = mixed.gradient(fake, generator(), objectives.Seen(shares=shares))
    assert torch.allclose(weighed, 0.25 * units["witness"] + 0.75 * units["moments"], atol=1e-6)
    assert float(measured["size_moments"]) == pytest.approx(float(parts["moments"].norm(dim=1).mean()))


def test_its_strength_is_the_larger_share_and_both_are_told():
    host = host_with()
    for _ in range(5):
        host.step()
    engine, told = host.loss.engine, host.loss.engine.telemetry()
    shares = engine.strength.shares()
    assert set(shares) == {"witness", "moments"} and float(shares["moments"]) > 0
    assert float(engine.strength.share("term")) == max(float(shares["witness"]), float(shares["moments"]))
    assert float(told["signal_moments"]) == float(shares["moments"]) and float(told["frechet"]) > 0


def test_the_distance_falls_in_training():
    host, seen = host_with(), []
    for _ in range(60):
        host.step()
        seen.append(float(host.loss.engine.telemetry()["frechet"]))
    assert np.mean(seen[-5:]) < 0.7 * np.mean(seen[:5])


@pytest.mark.parametrize(
    "options", [{}, dict(c_dim=2), dict(moments_horizon="auto"), dict(moments_horizon="0"), dict(moments_fresh=24), dict(term="moments")], ids=str
)
def test_resumed_is_uninterrupted(options):
    whole, first = host_with(**options), host_with(**options)
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    second = host_with(**options)
    for name in ("mapping", "synthesis", "D", "G_opt", "D_opt"):
        getattr(second, name).load_state_dict(getattr(first, name).state_dict())
    second.loss.load_state_dict(first.loss.state_dict())
    second.cur_nimg = first.cur_nimg
    for _ in range(3):
        second.step()
    assert all(torch.equal(one, other) for one, other in zip(whole.weights(), second.weights()))


def test_a_run_of_the_witness_goes_on_with_moments_and_back():
    host = Host(madr_loss(dict(preset="witness", capacity=64)))
    for _ in range(3):
        host.step()
    later = host_with()
    later.loss.load_state_dict(host.loss.state_dict())
    later.step()
    assert float(later.loss.engine.objective.objectives["moments"].memory.weight_G) > 0
    back = Host(madr_loss(dict(preset="witness", capacity=64)))
    back.loss.load_state_dict(later.loss.state_dict())
    back.step()


def test_moments_of_many_classes():
    reference = make_reference(Images(count=400, num_classes=2), width=16)
    objective = objectives.MomentsObjective(config.resolve(dict(preset="witness", term="moments", width=16)), reference, 0)
    assert len(objective.reals.targets) == 2 and "per class" in " ".join(objective.notes())
    fake, class_B = reference.features_ND[:8], reference.labels_N[:8]
    own, _ = objective.gradient(fake, None, objectives.Seen(class_B=class_B))
    swapped, _ = objective.gradient(fake, None, objectives.Seen(class_B=1 - class_B))
    assert own.norm() < swapped.norm()
    unknown, measured = objective.gradient(fake, None, objectives.Seen(class_B=torch.full([8], 7)))
    assert unknown is None and all(bool(value.isnan()) for value in measured.values()) and measured.keys() == {"distance", "null_distance"}


def test_a_microbatch_of_unknown_classes_and_one_that_is_not_finite_do_not_end_the_run(monkeypatch):
    host = Host(madr_loss(dict(preset="default", width=8)), c_dim=2)
    host.step()
    memory = host.loss.engine.objective.objectives["moments"].memory
    assert len(memory.weight_G) == 2
    before = memory.first_GD.clone()
    with monkeypatch.context() as patched:
        real = host.loss.engine.objective.objectives["moments"].reals
        patched.setattr(real, "groups", lambda class_B: torch.full_like(class_B, -1))
        host.step()
    assert torch.equal(memory.first_GD, before * (1 - 16 / 800))  # nothing new: what there was counts for less
    synthesis = host.synthesis.forward
    host.synthesis.forward = lambda ws: torch.where((torch.arange(len(ws)) == 0)[:, None, None, None], torch.nan, synthesis(ws))
    weights = [parameter.detach().clone() for parameter in host.G_parameters]
    host.step()
    assert all(bool(value.isfinite().all()) for value in (memory.first_GD, memory.second_GDD))
    for parameter, value in zip(host.G_parameters, weights):  # as the loop keeps them sound
        parameter.data.copy_(value)
    host.synthesis.forward = synthesis
    host.step()
    assert float(host.loss.engine.strength.share("term")) >= 0 and math.isfinite(float(host.loss.telemetry()["lambda"]))


@pytest.mark.parametrize("counts, own", [((200, 199, 1), [0]), ((200, 197, 3), [0]), ((200, 150, 40, 10), [0, 1])], ids=str)
def test_classes_of_few_images_get_a_larger_one_to_share_moments_with(counts, own):
    labels_N = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    of_class, group_N = real_moments._groups(labels_N, 8)
    sizes = group_N.bincount()
    assert int(sizes.min()) >= real_moments.REALS_PER_COMPONENT * 8
    alone = [index for index in range(len(counts)) if int((of_class == of_class[index + 1]).sum()) == 1]
    assert alone == own


def test_one_set_of_moments_takes_images_of_a_class_that_the_reals_lack():
    memory = MomentsMemory(1, WIDTH, "cpu")
    memory.update(drawn(16), torch.full([16], -1), 0.0)
    assert float(memory.weight_G) == pytest.approx(1.0)


def test_few_reals_have_few_components_and_it_is_said():
    reference = make_reference(Images(count=80), width=64)
    objective = objectives.MomentsObjective(config.resolve(dict(preset="witness", term="moments")), reference, 0)
    assert objective.reals.width == 20 and "20 leading components" in objective.notes()[0]
    gradient, _ = objective.gradient(reference.features_ND[:8], None)
    assert gradient.shape == reference.features_ND[:8].shape and torch.isfinite(gradient).all()


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(moments_horizon="soon"), "--madr-moments-horizon"),
        (dict(moments_horizon="-1"), "0 or more"),
        (dict(moments_horizon="nan"), "0 or more"),
        (dict(moments_fresh=8, term="witness"), "--madr-term=witness\\+moments"),
    ],
)
def test_knobs_that_make_no_sense(options, said):
    with pytest.raises(MADRError, match=said):
        config.resolve(dict(dict(preset="witness", term="witness+moments"), **options))


def test_a_horizon_of_less_than_two_steps_is_refused_with_the_least_that_serves():
    host = host_with(moments_horizon="0.02")
    with pytest.raises(MADRError, match=r"shorter than two steps of 16 images; give at least 0\.032"):
        host.step()


def test_the_command_line_refuses_a_horizon_that_does_not_fit_the_run():
    from madr_plugin import options

    flags = dict(madr=1, madr_term="witness+moments")
    run = dict(batch_size=16, total_kimg=2.0, loss_kwargs=dict(class_name="x.Loss"), training_set_kwargs={})
    for horizon, said in (("3", "longer than the run of 2"), ("0.03", "shorter than two steps of 16 images")):
        with pytest.raises(MADRError, match=said):
            options.apply(dict(run), dict(flags, madr_moments_horizon=horizon))
    options.apply(dict(run), dict(flags, madr_moments_horizon="0.032"))
    with pytest.raises(MADRError, match="shorter than two steps of 512 images"):  # the usual one, typed
        options.apply(dict(run, batch_size=512), dict(flags, madr_moments_horizon="0.8"))
    options.apply(dict(run, batch_size=512), dict(flags))


def test_the_command_line_refuses_a_window_that_the_run_would_never_fill():
    from madr_plugin import options

    flags = dict(madr=1, madr_tilt=1, madr_tilt_sensor="fine")
    run = dict(batch_size=16, total_kimg=2.0, loss_kwargs=dict(class_name="x.Loss"), training_set_kwargs={})
    with pytest.raises(MADRError, match="2001 images are more than the whole run of 2 kimg.*such as 200, or auto"):
        options.apply(dict(run), dict(flags, madr_tilt_window="2001"))
    options.apply(dict(run), dict(flags, madr_tilt_window="2000"))


def test_a_step_as_long_as_the_horizon_is_told_once():
    host = host_with()
    moments = host.loss.engine.objective.objectives["moments"]
    host.step()
    assert list(host.loss.engine.sentences()) == []
    moments.images_per_step = 800
    [said] = [sentence for sentence in host.loss.engine.sentences() if "as long as" in sentence]
    assert "a step of 800 images is as long as --madr-moments-horizon=0.8 kimg" in said and "3.2 or more remembers" in said
    assert list(host.loss.engine.sentences()) == []


def test_the_horizon_follows_the_drift_of_remembered_images():
    """Fast learning shortens it, a generator that stands still lengthens it; the state of a resumed run holds it."""
    horizons = {}
    for rate in (0.0, 0.05):
        host = host_with(moments_horizon="auto")
        objective = host.loss.engine.objective.objectives["moments"]
        objective.horizon = 0.2
        for group in host.G_opt.param_groups:
            group["lr"] = rate
        for _ in range(50):
            host.step()
        horizons[rate], drift = objective.horizon, float(host.loss.engine.telemetry()["drift"])
        assert (drift < 0.02) if rate == 0 else (drift > 0.1)
        again = host_with(moments_horizon="auto")
        again.loss.load_state_dict(host.loss.state_dict())
        assert again.loss.engine.objective.objectives["moments"].horizon == objective.horizon
    assert horizons[0.05] < 0.2 < horizons[0.0]


def test_a_state_of_another_width_is_refused_before_anything_is_taken_up():
    host = host_with()
    host.step()
    state = host.loss.state_dict()
    part = state["madr"]["objective"]["moments"]
    part["first_GD"] = part["first_GD"][:, :-1]
    other = host_with()
    with pytest.raises(MADRError, match="resume with the former --madr-extractor"):
        other.loss.load_state_dict(state)
    assert other.loss.engine.step == 0
