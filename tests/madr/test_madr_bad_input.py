"""Mistakes and what is said of each: one sentence with the flag or the cause and the remedy, never a traceback."""

import hashlib
import json

import numpy as np
import pytest
import torch

from madr_plugin import config, loss, options
from madr_plugin.reals import reference
from madr_spaces import neighbours, registry
from madr_spaces.errors import MADRError
from madr_spaces.seeded_conv import RandomSpace
from tests.madr.toy_host import Host, Images, madr_loss


def make_reference(dataset, extractor=None, **options):
    chosen = config.resolve(dict(deficit_window=64, **options))
    extractor = extractor or registry.build(chosen.extractor, dataset.image_shape, chosen.width, 0)
    return reference.build(dataset, extractor, chosen, 0, torch.device("cpu"), announce=len)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(preset="best"), r"--madr-preset must be one of default, moments, witness, replay, paper, enhanced \(got 'best'\)"),
        (dict(extractor="vgg"), r"--madr-extractor must be one of pca, .* \(got 'vgg'\)"),
        (dict(capacity=1), r"--madr-capacity must lie between 2 and .* \(got 1\)"),
        (dict(interval=0), r"--madr-interval must lie between 1 and .* \(got 0\)"),
        (dict(weights_sha256="abc"), "--madr-weights-sha256 must be 64 hexadecimal digits"),
        (dict(capacity="many"), "--madr-capacity must be a int"),
        (dict(term="paper", capacity=3), "--madr-capacity must be at least 4"),
    ],
)
def test_options(options, words):
    with pytest.raises(MADRError, match=words):
        config.resolve(options)


@pytest.fixture
def own_file(tmp_path):
    """A .safetensors file of two tensors that is no encoder of ours."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(dict(weight=torch.zeros([3, 3])), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_weights_that_are_missing_or_of_another_hash(tmp_path, own_file):
    for name, words in (("own", "cannot be read as an encoder.*own_extractor"), ("timm:test_vit", "does not exist; give the path")):
        with pytest.raises(MADRError, match=f"--madr-weights=.*{words}"):
            registry.build(name, (3, 32, 32), weights=str(tmp_path / "absent.safetensors"))
    with pytest.raises(MADRError, match="no such file"):
        registry.build(f"file:{tmp_path}/absent.pt", (3, 32, 32))
    with pytest.raises(MADRError, match="--madr-weights=own.safetensors"):
        registry.build("own", (3, 32, 32))
    wrong, right = "0" * 64, hashlib.sha256(own_file.read_bytes()).hexdigest()
    for name, weights in (("own", own_file), ("timm:test_vit", own_file), (f"file:{own_file}", ""), ("ensemble:pca+timm:test_vit", own_file)):
        if name.startswith("file:"):
            script = tmp_path / "net.pt"
            torch.jit.save(torch.jit.trace(torch.nn.Flatten(), torch.zeros([2, 3, 32, 32])), script)
            name, found = f"file:{script}", hashlib.sha256(script.read_bytes()).hexdigest()
            assert registry.build(name, (3, 32, 32), sha256=found.upper()).sha256 == found
        else:
            found = right
        with pytest.raises(MADRError, match=f"has SHA-256 {found}, not the {wrong} of --madr-weights-sha256"):
            registry.build(name, (3, 32, 32), weights=str(weights), sha256=wrong)
    with pytest.raises(MADRError, match="was not written by madr_plugin.own_extractor"):
        registry.build("own", (3, 32, 32), weights=str(own_file), sha256=right)


def test_weights_of_another_shape():
    pytest.importorskip("timm")
    import timm

    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    with pytest.raises(MADRError, match="--madr-weights=.* does not fit --madr-extractor=timm:test_vit .*give the weights of that very model"):
        _with_file(state, lambda path: registry.build("timm:test_vit", (3, 32, 32), weights=path))
    state = timm.create_model("test_vit", pretrained=False).state_dict()
    name = next(name for name, value in state.items() if value.ndim == 2)
    with pytest.raises(MADRError, match=f"1 of other shape, e.g. {name}"):
        _with_file(dict(state, **{name: state[name][:-1]}), lambda path: registry.build("timm:test_vit", (3, 32, 32), weights=path))


def _with_file(state, use):
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(state, file.name)
        return use(file.name)


def test_weights_where_none_belong():
    for more, flag in ((dict(weights="x.pth"), "--madr-weights has"), (dict(sha256="0" * 64), "--madr-weights-sha256 has")):
        with pytest.raises(MADRError, match=f"{flag} no effect with --madr-extractor=pca"):
            registry.build("pca", (3, 32, 32), **more)
    for more, flag in ((dict(weights="x.pth"), "--madr-weights has"), (dict(input_size=64), "--madr-input-size has")):
        with pytest.raises(MADRError, match=f"{flag} no effect with --madr-extractor=file:net.pt"):
            registry.build("file:net.pt", (3, 32, 32), **more)
    with pytest.raises(MADRError, match="lists more files than --madr-extractor=ensemble:pca.random takes; leave out x.pth"):
        registry.build("ensemble:pca+random", (3, 32, 32), weights="x.pth")


def test_safetensors_files_say_what_they_are_or_are_refused(own_file, tmp_path):
    with pytest.raises(MADRError, match="does not say of which network: use --madr-extractor=timm:<model> --madr-weights="):
        registry.build(f"file:{own_file}", (3, 32, 32))
    with pytest.raises(MADRError, match="no such file"):
        registry.build(f"file:{tmp_path}/absent.safetensors", (3, 32, 32))
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(MADRError, match="cannot be read as .safetensors"):
        registry.build(f"file:{tmp_path}/broken.safetensors", (3, 32, 32))


def test_safetensors_files_with_their_architecture_or_of_our_own_encoder(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    from madr_spaces import own

    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "vit.safetensors", metadata=dict(architecture="test_vit"))
    images = torch.rand([2, 3, 32, 32], generator=torch.Generator().manual_seed(0)) * 2 - 1
    named, direct = (
        registry.build(name, (3, 32, 32), input_size=64, weights=weights)
        for name, weights in ((f"file:{tmp_path}/vit.safetensors", ""), ("timm:test_vit", str(tmp_path / "vit.safetensors")))
    )
    assert torch.equal(named(images), direct(images)) and named.identity() == direct.identity()
    tensors = dict(
        own.initial_weights(3, 8, torch.Generator().manual_seed(0)),
        scale=torch.ones([]),
        **{f"pca.{name}": value for name, value in registry.build("pca", (3, 32, 32), width=4).named_buffers()},
    )
    about = dict(format=own.FORMAT, image_shape=[3, 32, 32], pca_width=4, data_fingerprint="none")
    save_file(tensors, tmp_path / "own.safetensors", metadata=dict(madr=json.dumps(about)))
    one, other = (
        registry.build(name, (3, 32, 32), weights=weights)
        for name, weights in ((f"file:{tmp_path}/own.safetensors", ""), ("own", str(tmp_path / "own.safetensors")))
    )
    assert torch.equal(one(images), other(images)) and isinstance(one, own.OwnSpace)


def test_reference_smaller_than_the_neighbourhood():
    with pytest.raises(MADRError, match="needs at least 16 training images as reference .got 10.; add images or use --madr=0"):
        make_reference(Images(count=10))
    with pytest.raises(MADRError, match="A neighbourhood of 5 needs more than 5 real images .got 3.; use more images"):
        neighbours.prdc(torch.zeros([3, 2]), torch.zeros([9, 2]))


class Fixed(RandomSpace):
    """Features of a fixed value."""

    def __init__(self, value):
        super().__init__((3, 8, 8), 4, 0)
        self.value, self.images_to_fit = value, 0

    def forward(self, images):
        return images.flatten(1)[:, :4] * 0 + self.value

    def identity(self):
        return dict(name="fixed", value=str(self.value))


@pytest.mark.parametrize(
    "value, words",
    [
        (float("nan"), "--madr-extractor=fixed gives non-finite features on the training images; choose another extractor"),
        (2.0, "--madr-extractor=fixed gives the same features for all training images; choose another extractor"),
        (1e6, "same features|half precision"),
    ],
)
def test_features_that_no_loss_can_use(value, words):
    with pytest.raises(MADRError, match=words):
        make_reference(Images(seed=41), Fixed(value))


class Distant(Fixed):
    """Differences of hundredths at the distance `value` from zero."""

    def forward(self, images):
        return images.flatten(1)[:, :4] * 0.1 + self.value


def test_features_that_half_precision_would_blur():
    with pytest.raises(MADRError, match="lie so far from zero that half precision loses their differences .*subtract their mean"):
        make_reference(Images(seed=42), Distant(200.0))
    assert len(make_reference(Images(seed=42), Distant(0.5)).features_ND) == 200


def test_notes_on_classes_without_images_and_on_more_classes_than_cells():
    said = []
    dataset = Images(num_classes=7)  # its groups fill five of them
    chosen = config.resolve(dict(cells=3))
    extractor = registry.build("pca", dataset.image_shape, 0, 0)
    reference.build(dataset, extractor, chosen, 0, torch.device("cpu"), announce=said.append)
    assert any("2 of the 7 classes have no image among the 200 of the reference (5, 6)" in line and "add images" in line for line in said)
    assert any("5 classes share 3 cells" in line and "--madr-cells=20 --madr-deficit-window=200" in line for line in said)


def test_a_note_where_cells_are_too_many_for_the_images():
    said, dataset = [], Images(count=60)
    dataset.images = np.random.RandomState(0).randint(0, 256, [60, 3, 8, 8]).astype(np.uint8)
    extractor = registry.build("pca", dataset.image_shape, 0, 0)
    made = reference.build(dataset, extractor, config.resolve({}), 0, torch.device("cpu"), announce=said.append)
    assert made.held_out == 0.5
    assert any("60 real images are few for" in line and "--madr-cells=3 would" in line for line in said)


def test_attributes_of_which_a_few_look_like_classes_are_none():
    dataset = Images(num_classes=3)
    dataset.labels[::7] = [1, 1, 0]
    host = Host(madr_loss(dict(replay_interval=1)), c_dim=3)
    host.images, host.loss.engine = dataset, None
    host.loss.attach(dict(training_set=dataset, random_seed=3))
    for _ in range(4):
        host.step()
    assert set(host.loss.engine.reference.labels_N.tolist()) == {-1} and not host.loss.engine.sensor.has_classes


@pytest.mark.parametrize("options, batch_gpu", [({}, 1), (dict(batch=1), 8)])
def test_a_witness_of_a_single_image_is_refused(options, batch_gpu):
    host = Host(madr_loss(options), batch_gpu=batch_gpu)
    with pytest.raises(MADRError, match="a single image; use --batch-gpu .and --madr-batch. of 2 or more"):
        host.step(num_microbatches=1)


def test_images_smaller_than_the_patch():
    pytest.importorskip("timm")
    with pytest.raises(MADRError, match="--madr-input-size must be a multiple of the patch side 8, at least 16, for --madr-extractor=dino .got 8."):
        registry.build("dino", (3, 8, 8), input_size=8)


def test_transformers_take_the_size_asked_for_or_say_that_they_cannot(tmp_path):
    timm = pytest.importorskip("timm")
    with pytest.raises(
        MADRError, match="--madr-input-size=64 does not fit --madr-extractor=timm:mixer_s16_224: mixer_s16_224 takes images of 224 pixels alone"
    ):
        registry.build("timm:mixer_s16_224", (3, 32, 32), input_size=64)
    name = "deit_tiny_patch16_224"
    torch.save(timm.create_model(name, pretrained=False).state_dict(), tmp_path / "weights.pth")
    extractor = registry.build(f"timm:{name}", (3, 32, 32), input_size=64, weights=str(tmp_path / "weights.pth"))
    assert extractor(torch.zeros([2, 3, 32, 32])).shape == (2, 192)
    with pytest.raises(MADRError, match="multiple of the patch side 16"):
        registry.build(f"timm:{name}", (3, 32, 32), input_size=100)


def test_classes_without_images_are_no_mistake_of_the_run():
    """A class that G is asked for and that no real image has: no deficit, no replay, no tilt, and training goes on."""
    host = Host(madr_loss(dict(tilt=1, tilt_guard=0.0, replay_interval=1)), c_dim=5)
    dataset = Images(num_classes=5)
    keep = np.flatnonzero(dataset.group != 4)
    dataset.images, dataset.labels, dataset.group = dataset.images[keep], dataset.labels[keep], dataset.group[keep]
    host.loss.engine = None
    host.loss.attach(dict(training_set=dataset, random_seed=3))
    for _ in range(5):
        host.step()  # its own images still hold class 4
    engine = host.loss.engine
    assert 4 not in engine.reference.labels_N.unique().tolist() and (engine.memory.filled("labels").argmax(1) == 4).any()
    assert all(torch.isfinite(weight).all() for weight in host.weights())
    assert all(np.isfinite(value) for value in host.loss.telemetry().values())


def test_a_generator_that_is_never_called_and_a_loss_without_one():
    class Unrelated:
        def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
            pass

    host = Host(madr_loss())
    host.loss.base = Unrelated()
    real, real_c, z, c = host.microbatch(0, 0)
    with pytest.raises(MADRError, match="saw no generated image .*use --madr=0 with this fork"):
        host.loss.accumulate_gradients("Gmain", real, real_c, z, c, sync=True, gain=1)


def test_an_apple_gpu_is_refused_before_a_run_folder_is_made():
    with pytest.raises(MADRError, match="float64, which Apple GPUs do not have; use --device=cpu"):
        options.check_device(dict(loss_kwargs=dict(madr=dict(preset="default"))), "mps")
    options.check_device(dict(loss_kwargs={}), "mps"), options.check_device(dict(loss_kwargs=dict(madr={"preset": "default"})), "cuda")
    with pytest.raises(MADRError, match="float64, which Apple GPUs do not have"):
        loss.MADRLoss(torch.device("mps"), torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), base_class_name="training.loss.StyleGAN2Loss", madr={})
