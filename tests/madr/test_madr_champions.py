"""The table of champions: its rule against brute force, its floor, its rest, its gradient, its place in a step, its state and its refusals."""

import copy
import math

import pytest
import torch

from madr_plugin import config
from madr_plugin.augment_pipe import flatten, unflatten
from madr_plugin.maths import champions as maths, terms
from madr_plugin.memory.champions import DECAY, ChampionTable
from madr_spaces.errors import MADRError
from tests.madr.test_madr_loss import assert_same
from tests.madr.toy_host import Host, Images, madr_loss

OPTIONS = dict(preset="witness", replay_weight=1.0, replay_from="champions", replay_interval=2, champion_kimg=0.2)


class Reals:
    """What a table asks of a reference."""

    def __init__(self, features_ND, class_N=None):
        self.features_ND = features_ND
        self.labels_N = torch.full([len(features_ND)], -1) if class_N is None else class_N


def points(count, seed=0, width=3):
    return torch.randn([count, width], generator=torch.Generator().manual_seed(seed))


def table_of(reals, **knobs):
    return ChampionTable(reals, config.resolve(dict(OPTIONS, **knobs)), torch.device("cpu"))


def images(features_BD, layers=None, classes=None, num_classes=0):
    """A step's samples whose latents are their own features."""
    count = len(features_BD)
    labels = torch.zeros([count, num_classes]) if classes is None else torch.eye(num_classes)[classes]
    return dict(
        features=features_BD,
        latents=features_BD[:, None].clone(),
        layers=torch.ones([count], dtype=torch.int64) if layers is None else layers,
        labels=labels,
    )


# --- the floor -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [False, True])
def test_the_floor_is_the_distance_of_the_nearest_other_real_of_the_class(labelled):
    real, class_N = points(40), torch.arange(40) % 3 if labelled else torch.full([40], -1)
    expected = [min(float((real[r] - real[q]).norm()) for q in range(40) if q != r and class_N[q] == class_N[r]) for r in range(40)]
    different = sorted(expected)[int(maths.DUPLICATES * 39)]
    assert torch.allclose(maths.held_out_radii(real, class_N, block=7)[:, 0], torch.tensor(expected).clamp(min=different))
    fourth = [sorted(float((real[r] - real[q]).norm()) for q in range(40) if q != r and class_N[q] == class_N[r])[3] for r in range(40)]
    assert torch.allclose(maths.held_out_radii(real, class_N, (1, 4))[:, 1], torch.tensor(fourth))


def test_copies_among_the_reals_are_no_licence_to_copy_and_a_class_of_one_looks_at_all():
    real = torch.cat([points(30), points(30)[:2]])
    floor = maths.held_out_radii(real, torch.full([32], -1))[:, 0]
    assert float(floor.min()) > 0 and float(floor[0]) == float(floor[30]) == float(floor.min())
    class_N = torch.zeros([30], dtype=torch.int64)
    class_N[4] = 1
    assert float(maths.held_out_radii(points(30), class_N)[4, 0]) == pytest.approx(float((points(30)[4] - points(30)).norm(dim=1).sort().values[1]))
    with pytest.raises(ValueError, match="alike"):
        maths.held_out_radii(torch.ones([5, 2]), torch.full([5], -1))
    with pytest.raises(MADRError, match="remove duplicate images"):
        table_of(Reals(torch.ones([5, 2])))


# --- the rule ------------------------------------------------------------------------------------------------------------


def brute_force(real, radii, batches, remade, halving_nimg, dead_zone=3.0):
    """The rule by loops: [(d^2, measured, tau, latent)] per real."""
    rows = [[math.inf, 0, math.inf, None] for _ in real]
    nimg, moved, aged = 0, 0.0, 0.0
    for batch, again in zip(batches, remade):
        drift = lambda: max(0.0, moved / max(aged, 1.0))
        for r, squared in again:
            moved, aged = moved * DECAY + squared - rows[r][0], aged * DECAY + nimg - rows[r][1]
            rows[r][:2] = squared, nimg
        for r, x in enumerate(real):
            d = [float((f - x).square().sum()) for f in batch]
            best = min(range(len(d)), key=d.__getitem__)
            if d[best] < rows[r][0] + drift() * (nimg - rows[r][1]):
                if rows[r][3] is None:
                    rows[r][2] = math.sqrt(d[best])
                rows[r] = [d[best], nimg, rows[r][2], batch[best]]
        nimg += len(batch)
        rank = dead_zone * len(real) / nimg
        floor = [radii[r][min(k for k in (1, 2, 4, 8, 16) if k >= rank)] for r in range(len(real))]
        for r, row in enumerate(rows):
            if math.sqrt(row[0] + drift() * (nimg - row[1])) <= row[2]:
                row[2] = max(floor[r], row[2] * 2 ** (-len(batch) / halving_nimg))
    return rows


def test_rows_thresholds_and_ages_follow_the_rule():
    real, batches = points(25), [0.5 * points(6, seed=seed) for seed in range(1, 9)]
    table = table_of(Reals(real), champion_kimg=0.05)
    remade = [[] if step % 3 != 2 else [(step, 0.4 + step), (step + 4, 0.1)] for step in range(len(batches))]
    for batch, again in zip(batches, remade):
        told = (torch.tensor([-1, *[r for r, _ in again]]), torch.tensor([math.nan, *[squared for _, squared in again]])) if again else None
        table.take_in(images(batch), len(batch), told)
    kept, ranks = table.tensors, (1, 2, 4, 8, 16)
    between = [sorted(float((x - y).norm()) for q, y in enumerate(real) if q != r) for r, x in enumerate(real)]
    copies = sorted(distances[0] for distances in between)[int(maths.DUPLICATES * 24)]
    radii = [{k: max(distances[k - 1], copies) for k in ranks} for distances in between]
    assert float(table.drift) > 0
    for r, (squared, measured, threshold, latent) in enumerate(brute_force(real, radii, batches, remade, 50)):
        assert float(kept["squared"][r]) == pytest.approx(squared, rel=1e-4) and int(kept["measured"][r]) == measured
        assert float(kept["threshold"][r]) == pytest.approx(threshold, rel=1e-4) and torch.equal(kept["latents"][r, 0], latent)


def test_only_images_that_can_be_made_again_and_are_of_the_reals_class_become_champions():
    class_N = torch.arange(20) % 2
    table = table_of(Reals(points(20), class_N))
    fake = points(4, seed=3)
    fake[1] = math.nan
    table.take_in(images(fake, torch.tensor([1, 1, -1, 3]), torch.tensor([0, 0, 1, 0]), num_classes=2), 4)
    has = torch.isfinite(table.tensors["squared"])
    assert torch.equal(has, class_N == 0)  # no image of class 1 can be made again
    assert all(any(torch.equal(latent[0], fake[b]) for b in (0, 3)) for latent in table.tensors["latents"][has])
    assert table.draw(8, torch.Generator().manual_seed(0)).tolist() == []  # too few images to miss any


def test_reals_are_drawn_in_proportion_to_how_far_beyond_their_threshold_they_are():
    table = table_of(Reals(points(4)), deficit_max=3.0)
    table.take_in(images(points(4, seed=1)), 4)
    table.tensors["squared"] = torch.tensor([1.0, 4.0, 100.0, 0.25])
    table.tensors["threshold"] = torch.ones([4])
    table.load(table.live_state())
    drawn = torch.bincount(table.draw(50_000, torch.Generator().manual_seed(0)), minlength=4) / 50_000
    assert torch.allclose(drawn, torch.tensor([0.0, 0.4, 0.6, 0.0]), atol=0.01) and float(table.far_share()) == 0.5


def test_a_batch_with_one_latent_fills_the_places_of_two():
    table = table_of(Reals(points(6)))
    both = images(points(3, seed=1))
    both["latents"] = both["latents"].repeat(1, 2, 1)
    table.take_in(both, 3)
    table.take_in(images(points(6)), 6)
    assert torch.equal(table.tensors["latents"][:, 0], points(6)) and torch.equal(table.tensors["latents"][:, 1], points(6))


# --- the pull ------------------------------------------------------------------------------------------------------------


def test_gradcheck_float64_of_the_pull_with_some_rows_near_enough():
    real = points(5).double()
    table = table_of(Reals(points(5)))
    table.take_in(images(points(4, seed=1)), 4)
    table.tensors["threshold"] = torch.tensor([0.1, 9.0, 0.1, 9.0, 0.1])
    fake, rows = (real + 0.5).requires_grad_(), torch.arange(5)

    def loss(x):
        return terms.imle_loss(x, real, 1.3, table.still_far((x.detach() - real).square().sum(1), rows).double())

    assert torch.autograd.gradcheck(loss, [fake])
    [gradient] = torch.autograd.grad(loss(fake), fake)
    assert torch.equal(gradient.norm(dim=1) > 0, torch.tensor([True, False, True, False, True]))


def simulate(real, draw, steps, batch=16, rate=0.0):
    """A generator that is its own latents: (table, sum of the pulls' gradients, sum of their sizes). rate: how far a pulled latent moves."""
    table, total, size = table_of(Reals(real), champion_kimg=0.2), torch.zeros(real.shape[1]), 0.0
    for step in range(steps):
        remade = None
        if step and step % 4 == 0:
            rows = table.draw(8, torch.Generator().manual_seed(step))
            if len(rows):
                latents = table.latents_of(rows)[0][:, 0]
                squared = (latents - real[rows]).square().sum(1)
                gradient = 2 * (latents - real[rows]) * table.still_far(squared, rows)[:, None]
                if step > steps / 2:
                    total, size = total + gradient.sum(0), size + float(gradient.norm(dim=1).sum())
                table.tensors["latents"][rows, 0] = latents - rate * gradient
                remade = rows, squared
        table.take_in(images(draw(batch, step)), batch, remade)
    return table, total, size


def test_at_equilibrium_champions_rest_but_for_a_few_percent():
    real = points(400)
    table, total, size = simulate(real, lambda count, step: points(count, seed=10_000 + step), 600)
    assert float(table.far_share()) < 0.1  # 24 images made for each real
    for steps in (25, 100):  # fewer images than reals, too, are as near as so many can be expected
        assert float(simulate(real, lambda count, step: points(count, seed=10_000 + step), steps)[0].far_share()) < 0.25
    # The mean is not zero: a few outlying reals are pulled to for ever. Of the strength in collapse, 1, next to nothing is left of it.
    assert float(table.far_share() * total.norm()) / size < 0.03
    in_collapse, _, _ = simulate(real, lambda count, step: points(1)[0] + 0.1 * points(count, seed=10_000 + step), 600)
    assert float(in_collapse.far_share()) > 0.9


def test_pulls_end_where_another_real_would_be_and_copy_no_real():
    real = points(60)
    table, _, _ = simulate(real, lambda count, step: 0.1 * points(count, seed=10_000 + step), 2500, rate=0.05)
    nearest = table.tensors["squared"].sqrt() / table.radii_NK[:, 0]
    assert 0.7 < float(nearest.median()) < 1.1 and float((nearest < 0.5).float().mean()) < 0.1
    assert bool((table.tensors["threshold"] >= table.radii_NK[:, 0]).all())


# --- in a step -----------------------------------------------------------------------------------------------------------


def host_with(c_dim=0, **options):
    host = Host(madr_loss(dict(OPTIONS, **options)), c_dim=c_dim)
    with torch.no_grad():
        host.synthesis.noise_strength.zero_()
    return host


def warmed(host, steps):
    for _ in range(steps):
        host.step()
    return host


def test_a_champion_makes_its_image_again_and_a_generator_that_stands_still_has_no_drift():
    host = host_with(extractor="pca")
    for optimizer in (host.G_opt, host.D_opt):
        optimizer.param_groups[0]["lr"] = 0.0
    host.synthesis.noise_strength.requires_grad_(False)
    table = warmed(host, 5).loss.engine.champions
    rows = torch.arange(0, 200, 17)
    with torch.no_grad():
        image = host.loss.generator_access.remake(*table.latents_of(rows))
        features = host.loss.engine.features(image, torch.Generator())
    assert torch.allclose((features - table.reals_ND[rows]).square().sum(1), table.tensors["squared"][rows], rtol=1e-3)
    table.tensors["threshold"].mul_(0.5)
    warmed(host, 4)
    assert float(table.aged) > 0 and float(table.drift) < 1e-6 * float(table.tensors["squared"].mean())


def test_a_generator_that_moves_shows_drift_and_champions_come_nearer():
    host = host_with()
    table = warmed(host, 4).loss.engine.champions
    before = table.tensors["squared"].sqrt().median()
    warmed(host, 150)
    told = host.loss.engine.telemetry()
    assert float(told["champions"]) == 1 and float(told["champions_far"]) > 0 and 0 <= float(told["champion_age_kimg"]) < 2.5
    assert float(table.tensors["squared"].sqrt().median()) < 0.8 * float(before)
    assert float(host.loss.engine.strength.share("replay")) == pytest.approx(float(table.far_share()))


def test_the_pull_reaches_every_parameter_of_the_generator():
    host = warmed(host_with(), 10)
    engine = host.loss.engine
    engine.champions.tensors["threshold"].mul_(0.1)
    host.set_learning("Gmain")
    host.G_opt.zero_grad(set_to_none=True)
    found = engine.replay(host.loss.generator_access, 8, 0, 1.0)
    moved = [parameter.grad for name, parameter in host.synthesis.named_parameters() if name != "noise_strength"]
    assert all(gradient is not None and float(gradient.norm()) > 0 for gradient in moved)
    assert found["champion_rows"].tolist() == [r for r in found["champion_rows"].tolist() if r >= 0] and len(found["champion_squared"]) == 4


@pytest.mark.slow
def test_champions_bring_held_out_images_nearer_than_the_replay_from_recent_latents():
    held_out, distances = torch.from_numpy(Images(count=1000).images[500:]) / 127.5 - 1, {}
    for source in ("memory", "champions"):
        knobs = dict(OPTIONS, replay_from=source, replay_interval=4, champion_kimg=0.5, capacity=2048, deficit_window=256, reals=128, random_seed=102)
        host = warmed(Host(madr_loss(knobs), seed=102), 500)
        engine, generator = host.loss.engine, torch.Generator()
        with torch.no_grad():
            z = torch.randn([2000, 8], generator=torch.Generator().manual_seed(0))
            image = host.synthesis(host.mapping(z, torch.zeros([2000, 0]), skip_w_avg_update=True)).clamp(-1, 1)
            distances[source] = float(torch.cdist(engine.features(held_out, generator), engine.features(image, generator)).amin(1).mean())
    print(distances)
    assert distances["champions"] < 0.8 * distances["memory"]


@pytest.mark.parametrize("options", [{}, dict(c_dim=2), dict(batch=4), dict(term="none", weight=0.0), dict(term="witness+moments")], ids=str)
def test_resumed_is_uninterrupted(options):
    whole, first = warmed(host_with(**options), 8), warmed(host_with(**options), 4)
    second, saved = host_with(**options), copy.deepcopy(first.loss.state_dict())
    for name in ("mapping", "synthesis", "D", "G_opt", "D_opt"):
        getattr(second, name).load_state_dict(getattr(first, name).state_dict())
    second.loss.load_state_dict(saved)
    second.cur_nimg = first.cur_nimg
    warmed(second, 4)
    assert all(torch.equal(one, other) for one, other in zip(whole.weights(), second.weights()))
    assert_same(whole.loss.state_dict(), second.loss.state_dict())
    table = whole.loss.engine.champions
    other = ChampionTable(whole.loss.engine.reference, whole.loss.config, torch.device("cpu"))
    other.load(unflatten(flatten(table.live_state())))  # as in a fork's snapshot
    assert_same(table.live_state(), other.live_state())


def test_a_run_from_the_memory_goes_on_with_champions_and_back():
    host = warmed(Host(madr_loss(dict(preset="replay"))), 3)
    later = host_with()
    later.loss.load_state_dict(host.loss.state_dict())
    warmed(later, 3)
    assert not later.loss.engine.champions.is_empty
    back = Host(madr_loss(dict(preset="replay")))
    back.loss.load_state_dict(later.loss.state_dict())
    warmed(back, 1)


# --- bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(replay_weight=0.0), "--madr-replay-weight=0 turns it off"),
        (dict(anchors=64), "--madr-replay-from=memory"),
        (dict(champion_kimg=0.0), "--madr-champion-kimg must lie between"),
        (dict(replay_from="table"), "--madr-replay-from must be one of memory, champions"),
    ],
)
def test_knobs_that_make_no_sense(options, said):
    with pytest.raises(MADRError, match=said):
        config.resolve(dict(OPTIONS, **options))


def test_a_table_above_the_limit_is_refused_with_what_helps_and_its_size_is_told(capsys):
    table = table_of(Reals(points(2000)), champion_mib=1)
    assert table.mib(100, 0) == pytest.approx(2000 * (4 * (100 + 7) + 24) / 2**20)
    with pytest.raises(
        MADRError, match=r"2000 reals would take 8\.\d MiB, .*--madr-champion-mib=1 .*raise it to 9, lower --madr-reference-cap to 23\d, or use"
    ):
        table.check_size(1024, 64)
    table.check_size(64, 0)
    with pytest.raises(MADRError, match="would take"):  # where the width of z shows with the first images only
        table.take_in(dict(images(points(4)), latents=torch.zeros([4, 2, 512])), 4)
    assert table.is_empty
    host = host_with()
    assert host.loss.engine.notes(None) == []
    assert host.loss.engine.notes(512) == ["the champions of 200 reals will take up to 0.8 MiB"]
    host.loss.engine.champions.limit_mib = 0.6  # between one latent and two: refused before the run, not in its first step
    with pytest.raises(MADRError, match=r"would take 0\.8 MiB"):
        host.loss.engine.notes(512)
    assert host.loss.engine.notes(512, latents_per_image=1) == ["the champions of 200 reals will take up to 0.4 MiB"]
    assert host.loss.generator_access.latents_per_image == 2
    table = warmed(host, 1).loss.engine.champions
    used = sum(value.numel() * value.element_size() for value in [*table.tensors.values(), table.radii_NK]) / 2**20
    assert used == pytest.approx(table.mib(16, 0))


def test_a_state_of_other_reals_is_refused_before_anything_is_taken_up():
    host = warmed(host_with(), 1)
    state = copy.deepcopy(host.loss.state_dict())
    tensors = state["madr"]["champions"]["tensors"]
    tensors["squared"] = tensors["squared"][:-1]
    other = host_with()
    with pytest.raises(MADRError, match="199 reals, the reference has 200"):
        other.loss.load_state_dict(state)
    assert other.loss.engine.step == 0
