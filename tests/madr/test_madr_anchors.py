"""Weighted anchors in place of the reals: what they keep, what they lose, and that everything respects their weights."""

import copy
import json
import sys

import pytest
import torch

from madr_plugin import config, objectives
from madr_plugin.maths import coverage, kernels, terms
from madr_plugin.reals import anchors, reference
from madr_plugin.tilt import tilted_reals
from madr_spaces import registry
from madr_spaces.distances import squared_distances
from madr_spaces.errors import MADRError
from madr_spaces.seeds import generator_for
from tests.madr.test_madr_loss import assert_same, copy_weights
from tests.madr.toy_host import Host, Images, madr_loss

pytest.importorskip("faiss")
NO_CLASS = torch.full([600], -1)
kernel = kernels.MixtureKernel(2.0)


def features(count=600, width=4, seed=0):
    return torch.randn([count, width], generator=torch.Generator().manual_seed(seed))


def errors(real_ND, made):
    return (
        anchors.quantisation_error(real_ND, made["anchors"], made["anchor_of_real"]),
        anchors.kernel_error(real_ND, made["anchors"], made["anchor_of_real"], kernel)[0],
    )


def make_reference(dataset, said=None, **options):
    chosen = config.resolve(dict(deficit_window=64, **options))
    extractor = registry.build(chosen.extractor, dataset.image_shape, chosen.width, 0)
    return reference.build(dataset, extractor, chosen, 0, torch.device("cpu"), [].append if said is None else said.append)


def test_as_many_anchors_as_reals_lose_nothing():
    real = features()
    made = anchors.compress(real, NO_CLASS, 600, seed=0)
    assert errors(real, made) == (0, 0) and torch.equal(made["anchors"][made["anchor_of_real"]], real) and (made["mass"] == 1).all()


def test_the_error_falls_with_their_number_and_their_mean_is_the_reals():
    real = features()
    losses = []
    for count in (8, 40, 200, 600):
        made = anchors.compress(real, NO_CLASS, count, seed=0)
        losses.append(errors(real, made))
        assert float(made["mass"].sum()) == 600 and len(made["mass"]) <= count
        assert torch.allclose((made["anchors"] * made["mass"][:, None]).sum(0) / 600, real.mean(0), atol=1e-5)
        again = anchors.compress(real, NO_CLASS, count, seed=0)
        assert torch.equal(made["anchors"], again["anchors"]) and torch.equal(made["anchor_of_real"], again["anchor_of_real"])
    for former, later in zip(losses, losses[1:]):
        assert later[0] < former[0] and later[1] < former[1]


def test_kernel_error_is_its_definition():
    real = features(60)
    made = anchors.compress(real, NO_CLASS[:60], 10, seed=0)
    image = made["anchors"][made["anchor_of_real"]]
    k = lambda a, b: float(kernel(squared_distances(a[None].double(), b[None].double())))
    pairs = [(i, j) for i in range(60) for j in range(60) if i != j]
    squared = sum(k(real[i], real[j]) - 2 * k(real[i], image[j]) + k(image[i], image[j]) for i, j in pairs) / len(pairs)
    assert anchors.kernel_error(real, made["anchors"], made["anchor_of_real"], kernel)[0] == pytest.approx(squared**0.5, rel=1e-3)


def test_each_class_has_anchors_of_its_own():
    labels = (torch.arange(600) >= 597).long() + 2  # 597 of class 2, three of class 3
    made = anchors.compress(features(), labels, 50, seed=0)
    assert torch.equal(made["anchor_class"][made["anchor_of_real"]], labels)
    for index, count in ((2, 597), (3, 3)):
        assert float(made["mass"][made["anchor_class"] == index].sum()) == count


def duplicated(counts=(1, 5, 2, 9, 3, 1)):
    """(distinct points with their counts, the same points repeated)."""
    point = features(len(counts), 3, seed=4)
    return point, torch.tensor(counts, dtype=torch.float32), point.repeat_interleave(torch.tensor(counts), dim=0)


def test_for_duplicated_points_weights_say_the_same_as_all_of_them():
    """Witness, published weights and loss, recall, effective number, tilt: anchors with masses against the full set."""
    point, mass, full = duplicated()
    fake, memory = features(7, 3, seed=5), features(20, 3, seed=6)
    assert torch.allclose(terms.witness_loss(fake, point, kernel, mass / mass.sum()), terms.witness_loss(fake, full, kernel), atol=1e-6)
    weight, weight_full = (terms.paper_weights(coverage.kernel_score(real, memory, 1.0), 5.0, m) for real, m in ((point, mass), (full, None)))
    assert torch.allclose(terms.paper_loss(fake, point, weight, 1.0), terms.paper_loss(fake, full, weight_full, 1.0), atol=1e-6)
    assert torch.allclose(terms.effective_number(weight, mass), terms.effective_number(weight_full), rtol=1e-5)
    assert torch.allclose(coverage.recall_within(point, memory, 0.9, mass), coverage.recall_within(full, memory, 0.9))
    v = torch.tensor([1.0, 4, 1, 2, 1, 3])
    repeat = lambda values: values.repeat_interleave(mass.long())
    classes = torch.tensor([0, 0, 0, 1, 1, 1])
    assert torch.allclose(
        repeat(tilted_reals.normalised_within_classes(v, classes, mass)), tilted_reals.normalised_within_classes(repeat(v), repeat(classes))
    )


def test_the_reference_draws_anchors_by_their_mass():
    made = make_reference(Images(seed=31), anchors=20)
    assert len(made.features_ND) <= 20 and float(made.mass_N.sum()) == 200 and len(made.image_cells_N) == 200
    drawn = torch.bincount(made.draw(20000, generator_for("draw")), minlength=len(made.mass_N)) / 20000
    assert torch.allclose(drawn, made.mass_N / 200, atol=0.012)
    weight = torch.where(torch.arange(len(made.mass_N)) < 2, 1.0, 0.0)
    share = (made.draw(8000, generator_for("draw"), weight) == 0).float().mean()
    assert float(share) == pytest.approx(float(made.mass_N[0] / made.mass_N[:2].sum()), abs=0.02)


def test_what_is_measured_on_the_reals_is_the_same_with_anchors():
    plain, said = make_reference(Images(seed=31)), []
    made = make_reference(Images(seed=31), said, anchors=20)
    assert plain.mass_N is None and made.scale == plain.scale
    for name in ("centroids_CD", "radii_C", "shares_C"):
        assert torch.equal(getattr(made, name), getattr(plain, name))
    assert torch.equal(made.image_cells_N, plain.cell_of_real_N)
    distance = torch.cdist(made.features_ND[:3], plain.features_ND).sort(1).values
    assert torch.allclose(made.dead_zone_radius(torch.arange(3), 3, 200), distance[:, 2], atol=1e-3)  # to reals: none of them is the anchor itself
    assert "200 reals stood in for by" in said[-1] and "of their variance lost" in said[-1]
    again_said = []
    again = make_reference(Images(seed=31), again_said, anchors=20)  # from the cache, with its error
    assert torch.equal(again.features_ND, made.features_ND) and torch.equal(again.mass_N, made.mass_N) and again_said[-1] == said[-1]
    assert again.fingerprint == made.fingerprint != plain.fingerprint


def test_enough_anchors_change_nothing():
    plain, made = make_reference(Images(seed=31)), make_reference(Images(seed=31), anchors=200)
    assert made.mass_N is None and made.fingerprint == plain.fingerprint and torch.equal(made.features_ND, plain.features_ND)


def test_few_anchors_are_all_used_with_their_weights():
    """No draw, hence the same loss whatever the generator; in expectation the drawn one."""
    made = make_reference(Images(seed=31), anchors=20)
    fake = features(6, made.features_ND.shape[1], seed=3)
    witness = {reals: objectives.WitnessObjective(config.resolve(dict(reals=reals, anchors=20)), made, 0) for reals in (10, 64)}
    losses = [witness[64].loss(fake, generator_for("one", number)) for number in range(2)]
    assert torch.equal(*losses)
    drawn = torch.stack([witness[10].loss(fake, generator_for("many", number)) for number in range(400)])
    assert abs(float(drawn.mean() - losses[0])) < 4 * float(drawn.std()) / 20


@pytest.mark.parametrize(
    "madr, c_dim",
    [
        (dict(), 0),
        (dict(tilt=1, tilt_guard=0.0, memory="importance"), 2),
        (dict(preset="paper", extractor="pca", update_interval=1, start_fill=0.1), 0),
    ],
    ids=["default", "tilt-with-labels", "paper"],
)
def test_training_with_anchors_resumes_to_the_bit(madr, c_dim):
    madr = dict(madr, anchors=30)
    whole, first = Host(madr_loss(madr), c_dim=c_dim), Host(madr_loss(madr), c_dim=c_dim)
    for _ in range(3):
        whole.step(), first.step()
    second = Host(madr_loss(madr), c_dim=c_dim)
    copy_weights(first, second)
    for name in ("G_opt", "D_opt"):
        getattr(second, name).load_state_dict(copy.deepcopy(getattr(first, name).state_dict()))
    second.loss.load_state_dict(first.loss.state_dict())
    for _ in range(3):
        whole.step(), second.step()
    assert len(whole.loss.engine.reference.features_ND) <= 31
    assert_same(whole.loss.state_dict(), second.loss.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), second.weights()))


def test_importance_counts_an_anchor_as_its_reals():
    host = Host(madr_loss(dict(memory="importance", anchors=20)))
    engine = host.loss.engine
    fake = features(5, engine.reference.features_ND.shape[1], seed=3)
    full = engine.reference.features_ND.repeat_interleave(engine.reference.mass_N.long(), dim=0)
    assert torch.allclose(engine._importance(fake), torch.cdist(fake, full).topk(10, dim=1, largest=False).values.mean(1), rtol=1e-3)


def test_without_faiss_a_sentence_says_so_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    unread = Images(seed=21)
    unread.__class__ = type("Unread", (Images,), {"__getitem__": lambda self, index: pytest.fail("images were read")})
    with pytest.raises(MADRError, match="--madr-anchors.*faiss-cpu.*--madr-anchors=0"):
        make_reference(unread, anchors=20)


def test_too_few_anchors_are_refused():
    with pytest.raises(MADRError, match="--madr-anchors must be at least 16"):
        config.resolve(dict(anchors=5))


def test_the_readme_shows_what_the_benchmark_wrote(repo):
    readme = (repo / "madr_plugin" / "README.md").read_text()
    rows = json.loads((repo / "benchmarks" / "results" / "anchors.json").read_text())["rows"]
    for row in rows:
        assert f"| {row['anchors']} | {row['variance_lost']:.1%} | {row['mmd']:.3f} | {row['cpu_seconds']:.1f} s |" in readme
    assert f"deviate by {rows[0]['mmd_of_a_draw']:.3f}" in readme
