"""The term on a generator without a GAN: what it teaches, that it rests, resumes exactly, and what it refuses."""

import copy
import re

import pytest
import torch

import madr_plugin
from experiments import spiral
from madr_plugin import attached, attached_reference
from madr_spaces.errors import MADRError
from tests.madr.toy_host import Images


def quiet(*_args, **_kwargs):
    pass


def mixture(count, seed=0):
    """Two clumps of points in 4 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    side = torch.randint(2, [count, 1], generator=generator) * 4.0 - 2
    return side * torch.ones([1, 4]) + 0.3 * torch.randn([count, 4], generator=generator)


def network(seed=0, inputs=3, outputs=4):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(inputs, 32), torch.nn.ReLU(), torch.nn.Linear(32, outputs))


def learn(G, term, steps, batch=16, first=0, inputs=3, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(G.parameters(), 3e-3)
    for step in range(first, first + steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 if step < 400 else 3e-4  # the end says where it goes, not how far one batch throws it
        z = torch.randn([batch, inputs], generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad(set_to_none=True)
        term(G(z)).backward()
        optimizer.step()
        term.step()
    return optimizer


@pytest.mark.parametrize("knobs", [{}, dict(term="witness"), dict(term="moments"), dict(moments_horizon="0")], ids=str)
def test_a_generator_learns_both_clumps_by_the_term_alone(knobs):
    G = network()
    term = madr_plugin.attach(G, mixture(2000), announce=quiet, **knobs)
    learn(G, term, 600, batch=32)
    drawn = G(torch.randn([1000, 3], generator=torch.Generator().manual_seed(9)))
    reals = mixture(1000, 5)
    assert torch.allclose(drawn.mean(0), reals.mean(0), atol=0.5) and torch.allclose(drawn.std(0), reals.std(0), atol=0.5)
    assert 0.25 < float((drawn.mean(1) > 0).float().mean()) < 0.75


def test_at_equilibrium_it_rests_and_in_collapse_it_acts_in_full():
    class Draws(torch.nn.Module):
        """Draws from the reals' own distribution, or one point."""

        def __init__(self):
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(4))

        def forward(self, points):
            return points + self.shift

    strengths = {}
    for name, points in (("equal", lambda step: mixture(16, 100 + step)), ("collapsed", lambda step: torch.full([16, 4], 2.0))):
        G = Draws()
        term = madr_plugin.attach(G, mixture(4000), announce=quiet)
        for step in range(120):
            term(G(points(step))).backward()
            term.step()
        strengths[name] = term.measured["strength"] / term.config.weight
    assert strengths["equal"] < 0.35 and strengths["collapsed"] > 0.9


def test_the_gradient_is_that_of_its_parts_at_the_features():
    G = network()
    term = madr_plugin.attach(G, mixture(500), announce=quiet, term="witness", shrink=0, weight=3)
    points = G(torch.randn([8, 3], generator=torch.Generator().manual_seed(1)))
    [gradient] = torch.autograd.grad(term(points), points, retain_graph=True)
    assert float(gradient.norm(dim=1).mean() * len(points)) == pytest.approx(3, rel=1e-4)  # mean size at the features: the weight
    part = term.objective.objectives["witness"]
    generator = attached.generator_for(0, 0, 0, "term")
    [expected] = torch.autograd.grad(part.loss(term.extractor(points[:, :, None, None]), generator), points)
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("part", ["witness", "moments"])
def test_what_the_reference_never_does_is_felt_all_the_same(part):
    """Reals in a plane: points beside it are pulled back to it."""
    reals = mixture(500) * torch.tensor([1.0, 1.0, 0.0, 0.0])
    term = madr_plugin.attach(network(), reals, announce=quiet, term=part, **(dict(shrink=0) if part == "witness" else dict(moments_shrink=0)))
    points = (reals[:16] + torch.tensor([0.0, 0.0, 1.0, 0.0])).requires_grad_()
    [gradient] = torch.autograd.grad(term(points), points)
    assert float(gradient[:, 2].mean()) > 0.1 * float(gradient.norm(dim=1).mean())


def test_several_batches_a_step_are_one_step():
    G = network()
    terms = [madr_plugin.attach(G, mixture(500), announce=quiet, term="moments") for _ in range(2)]
    batches = [G(torch.randn([8, 3], generator=torch.Generator().manual_seed(seed))) for seed in range(2)]
    for batch in batches:
        terms[0](batch)
    terms[0].step()
    terms[1](torch.cat(batches))
    terms[1].step()
    first, second = (term.state_dict()["objective"]["moments"] for term in terms)
    assert all(torch.allclose(first[name], second[name]) for name in ("weight_G", "first_GD", "second_GDD") if name in first)
    assert terms[0].objective.objectives["moments"].images_per_step == 16


def test_a_resumed_run_is_the_same_to_the_last_bit():
    def start():
        G = network()
        return G, madr_plugin.attach(G, mixture(500), announce=quiet)

    whole, term = start()
    optimizer = learn(whole, term, 6)
    saved = copy.deepcopy((whole.state_dict(), optimizer.state_dict(), term.state_dict()))
    learn(whole, term, 6, first=6, optimizer=optimizer)
    resumed, again = start()
    resumed.load_state_dict(saved[0])
    adam = torch.optim.Adam(resumed.parameters(), 3e-3)
    adam.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    learn(resumed, again, 6, first=6, optimizer=adam)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_images_of_a_folder_and_of_a_tensor(tiny_zip):
    path = tiny_zip(num_images=40, resolution=16)
    G = torch.nn.Sequential(torch.nn.Linear(3, 3 * 16 * 16), torch.nn.Tanh(), torch.nn.Unflatten(1, [3, 16, 16]))
    from training.dataset import ImageFolderDataset

    images = torch.stack([torch.from_numpy(ImageFolderDataset(path)[index][0].copy()) for index in range(40)])
    found = []
    for reference in (path, images, images.to(torch.float32) / 127.5 - 1):
        term = madr_plugin.attach(G, reference, announce=quiet, width=8)
        batch = G(torch.randn([4, 3], generator=torch.Generator().manual_seed(1)))
        found.append(torch.autograd.grad(term(batch), batch)[0])
    assert torch.allclose(found[0], found[1], atol=1e-6) and torch.allclose(found[1], found[2], atol=1e-6) and found[0].abs().max() > 0


def test_refusals(tmp_path):
    G, points = network(), mixture(100)

    def refused(match, *args, **kwargs):
        with pytest.raises(MADRError, match=match):
            madr_plugin.attach(*args, announce=quiet, **kwargs)

    refused("no parameter of the generator learns; call generator.requires_grad_", copy.deepcopy(G).requires_grad_(False), points)
    refused("must be the torch.nn.Module that is trained .got function", quiet, points)
    refused("must be the torch.nn.Module that is trained .got NoneType", None, points)
    refused("the reference must be a folder or zip of images.*got NoneType", G, None)
    refused("--madr-debt-weight=3.0 has no effect without.*arguments of attach", G, points, term="witness", debt_weight=3.0)
    refused("--madr-moments-horizon=0.3 has no effect", G, points, term="witness", moments_horizon=0.3)
    assert madr_plugin.attach(G, points, announce=quiet, moments_horizon=0.2).config.horizon_kimg == 0.2
    refused("takes the knobs term, weight.* not 'replay_weight'", G, points, replay_weight=1)
    refused("does not exist; give a folder or zip", G, tmp_path / "gone.zip")
    refused("two or more of them", G, points[:1])
    refused("finite", G, torch.full([5, 4], float("nan")))
    refused(re.escape("must lie in [-1, 1] (got 0 to 200)"), G, torch.linspace(0, 200, 5 * 48).reshape(5, 3, 4, 4))
    refused("moments_horizon=auto", G, points, moments_horizon="auto")
    refused("term=paper is not for use without a GAN", G, points, term="paper")
    refused("width is of an extractor of images, and points are their own features", G, points, width=2)
    refused("view is of an extractor of images", G, points, view="flip")
    refused("--madr-shrink=4.0 has no effect without --madr-term=witness", G, points, term="moments", shrink=4.0)
    assert madr_plugin.attach(G, points, announce=quiet, extractor="pca", width=2).extractor.width == 2
    refused("one label vector per image", G, points, labels=torch.zeros([3, 2]))
    term = madr_plugin.attach(G, points, announce=quiet)
    for match, call in (
        ("carry no gradient", lambda: term(G(torch.randn(4, 3)).detach())),
        ("a single one", lambda: term(G(torch.randn(1, 3)))),
        (r"shape \[4, 1, 1\] \(got \[2, 1, 1\]\)", lambda: term(torch.zeros([4, 2], requires_grad=True))),
        ("step.. without a batch", term.step),
        ("another reference", lambda: madr_plugin.attach(G, mixture(100, 3), announce=quiet).load_state_dict(term.state_dict())),
    ):
        with pytest.raises(MADRError, match=match):
            call()
    term(G(torch.randn(4, 3))), term(G(torch.randn(6, 3)))
    with pytest.raises(MADRError, match=re.escape("of one size (got [4, 6])")):
        term.step()


def test_a_forgotten_step_is_told_once(monkeypatch):
    from madr_plugin import attached

    monkeypatch.setattr(attached, "MANY_ROUNDS", 5)
    G, said = network(), []
    term = madr_plugin.attach(G, mixture(100), announce=said.append)
    said.clear()
    for _ in range(9):
        term(G(torch.randn(4, 3)))
    assert len(said) == 1 and "5 batches since the last step(): nothing is remembered" in said[0]


def test_the_example_of_the_readme_learns(repo, tmp_path, tiny_zip, monkeypatch):
    text = (repo / "madr_plugin" / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(import torch\n.*?madr_plugin\.attach.*?)```", text, re.DOTALL)
    assert len(example.strip().splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    import shutil

    shutil.copy(tiny_zip(num_images=40, resolution=32), tmp_path / "digits.zip")
    names = {}
    exec(compile(example.replace("range(3000)", "range(3)"), "README", "exec"), names)
    assert names["term"].steps == 3 and float(names["term"].measured["strength"]) > 0


def test_the_spiral_is_measured_by_its_definition():
    at_anchors = (spiral.curve(spiral.NUM_ANCHORS) @ spiral.embedding(0)).to(torch.float32)
    assert spiral.measure(at_anchors, 0) == dict(recall=1.0, distance=pytest.approx(0, abs=1e-3))
    half = spiral.measure(at_anchors[:30], 0)
    assert 0.5 <= half["recall"] < 0.6
    assert spiral.measure(spiral.reals(0), 0)["distance"] == pytest.approx(0.0337, abs=0.003)  # the normal's median times the noise
    assert set(spiral.train("witness+moments", 8, 0, 3)) == {"recall", "distance"}


def test_labels_are_asked_for_where_classes_are_compared():
    points, G = mixture(200), network()
    labels = torch.nn.functional.one_hot((points[:, 0] > 0).long())
    with pytest.raises(MADRError, match=r"vectors \[N, c\]"):
        madr_plugin.attach(G, points, labels=labels.argmax(1), announce=quiet)
    term = madr_plugin.attach(G, points, labels=labels, announce=quiet)
    images = G(torch.randn([16, 3]))
    with pytest.raises(MADRError, match="come without; call term\\(images, labels\\)"):
        term(images)
    assert bool(term(images, labels[:16]).isfinite())
    for wrong in (labels[:16].argmax(1), labels[:12], torch.eye(5)[torch.arange(16) % 5]):  # numbers, too few, of more classes
        with pytest.raises(MADRError, match=re.escape("shape [16, 2] for these images (got ")):
            term(images, wrong)
    with pytest.raises(MADRError, match="come with labels, and the reference has none"):
        madr_plugin.attach(G, points, announce=quiet)(images, labels[:16])


def test_labels_beside_a_reference_that_is_no_tensor_are_refused(tiny_zip):
    G = torch.nn.Sequential(network(outputs=192), torch.nn.Unflatten(1, [3, 8, 8]))
    labels = torch.eye(2)[torch.arange(200) % 2]
    for reference in (Images(), tiny_zip(num_images=40, resolution=8)):
        with pytest.raises(MADRError, match="labels are those of a tensor"):
            madr_plugin.attach(G, reference, labels=labels, announce=quiet)


def test_points_that_rounding_would_move_are_refused():
    fine = attached_reference.TensorSet(mixture(100) * 1e-4).values
    assert torch.equal(fine, mixture(100) * 1e-4)
    with pytest.raises(MADRError, match="spread by 2e-06, and less than 1e-05 is lost in rounding; scale them"):
        madr_plugin.attach(network(), mixture(100) * 1e-6, announce=quiet)


def test_references_that_would_be_read_wrongly_are_refused(tmp_path):
    G, pixels = network(outputs=48), torch.rand([8, 3, 4, 4]) * 2 - 1

    class Floats(Images):
        def __getitem__(self, index):
            return pixels[index % 8].numpy(), super().__getitem__(index)[1]

    of_floats = Floats(8)
    of_floats.image_shape = [3, 4, 4]
    (tmp_path / "no.zip").write_bytes(b"no zip")
    for reference, labels, match in (
        ([[1.0, 2.0], [3.0]], None, "every row of one shape"),
        (pixels.permute(0, 2, 3, 1).repeat(1, 2, 2, 1), None, "channels first"),
        (torch.zeros([8, 4], dtype=torch.uint8), None, "must be floating-point"),
        (mixture(8), [["a"]] * 8, "labels of the reference must be one tensor"),
        (mixture(8), torch.full([8, 2], torch.nan), "labels of the reference must be finite"),
        (of_floats, None, "give a tensor of its images in"),
        (str(tmp_path / "no.zip"), None, r"attach\(\): "),
    ):
        with pytest.raises(MADRError, match=match):
            madr_plugin.attach(G, reference, labels=labels, announce=quiet)
    with pytest.raises(MADRError, match="cells has no effect without debt"):
        madr_plugin.attach(network(), mixture(64), cells=5, announce=quiet)
    with pytest.raises(MADRError, match="device nope cannot be used"):
        madr_plugin.attach(network(), mixture(64), device="nope", announce=quiet)
    listed = madr_plugin.attach(network(), list(mixture(64)), extractor=None, announce=quiet)
    assert torch.equal(listed.reference.features_ND, madr_plugin.attach(network(), mixture(64), announce=quiet).reference.features_ND)


def test_what_is_no_batch_or_no_state_is_refused():
    G = network()
    term = madr_plugin.attach(G, mixture(64), announce=quiet)
    drawn = G(torch.randn([4, 3]))
    with pytest.raises(MADRError, match="must be one tensor .got tuple"):
        term((drawn, None))
    with torch.no_grad(), pytest.raises(MADRError, match="outside torch.no_grad"):
        term(drawn)
    for state in (None, {}, G.state_dict()):
        with pytest.raises(MADRError, match="no state of MADR's term"):
            term.load_state_dict(state)


def test_a_state_of_other_knobs_is_told():
    told, G = [], network()
    first = madr_plugin.attach(G, mixture(200), announce=quiet)
    learn(G, first, 2)
    madr_plugin.attach(G, mixture(200), term="witness", announce=told.append).load_state_dict(first.state_dict())
    assert any("the state also holds what the term 'moments' remembered" in line and "given up" in line for line in told)


def test_automatic_precision_of_the_host_leaves_the_term_alone():
    gradients = []
    for on in (False, True):
        G = network()
        term = madr_plugin.attach(G, mixture(200) + 3, announce=quiet)
        drawn = G(torch.randn([16, 3], generator=torch.Generator().manual_seed(0)))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            gradients += torch.autograd.grad(term(drawn), drawn)
    assert torch.equal(*gradients)
