"""What single rows set of the options, and what contradicts them."""

import pytest

import train
from dnnlib.errors import UserError
from training import resume_options


def test_packs(dry_run):
    own, _ = dry_run()
    options, printed = dry_run("--method=PacGAN: m = 4", "--cond=1")
    assert options["D_kwargs"]["img_channels"] == 12 and options["D_kwargs"]["c_dim"] == 8
    assert options["batch_size"] == 4 * own["batch_size"] == options["batch_gpu"] and options["run_dir"].endswith("-cond-tiny-pacgan-m4")
    assert "batch size 64, for as many packs per step as there would be images" in printed
    options, _ = dry_run("--method=pacgan:m=4", "--batch=16", "--gpus=2")
    assert (options["batch_size"], options["batch_gpu"]) == (16, 8)


@pytest.mark.parametrize("flags, words", [
    (["--method=pacgan:m=3", "--batch=16"], ["--method=pacgan:m=3", "16 images at a time", "packs of 3", "--batch=12 --batch-gpu=12 or --batch=24 --batch-gpu=12"]),
    (["--method=pacgan:m=2", "--batch=12"], ["6 packs of 2 images at a time", "--mbstd-group=2 or 3 or 6 or --batch=8 --batch-gpu=8 or --batch=16 --batch-gpu=8"]),
    (["--method=pacgan:m=1"], ["m must be a whole number from 2 to 64"]),
    (["--method=diffaugment", "--aug=ada"], ["--method=diffaugment", "--aug=ada", "leave one of them out"]),
    (["--gan=wgan", "--aug=ada"], ["--gan=wgan", "--aug=ada", "no boundary", "--aug=fixed --p=0.3", "--aug=noaug"]),
    (["--gan=rpgan+r1+r2", "--target=0.5"], ["--gan=rpgan+r1+r2 and --target=0.5", "--aug=fixed --p=0.3"]),
    (["--method=diffaugment", "--target=0.5"], ["--method=diffaugment", "--target"]),
    (["--method=ttur", "--glr=0.1"], ["--method=ttur", "--glr=0.1", "leave one of them out"]),
    (["--method=label-smoothing", "--gan=wgan-gp"], ["--method=label-smoothing", "--gan=wgan-gp", "--gan=minimax or non-saturating or r1 or"]),
    (["--method=icr", "--method=bcr"], ["bcr is given by --method=icr already"]),
    (["--method=bcr:shift=16"], ["--method=bcr:shift=16", "16 pixels"]),
    (["--method=gm-gan", "--backbone=dcgan:z_dim=1"], ["on a circle", "kind=uniform", "--backbone=dcgan:z_dim=2 or more"]),
    (["--method=gm-gan:kind=square"], ["kind must be one of circle, uniform"]),
])  # fmt: skip
def test_contradictions(refusal, flags, words):
    said = " ".join(refusal(*flags).split())
    assert all(word in said for word in words), said


def test_a_row_for_two_has_the_parameters_of_both(dry_run):
    options, _ = dry_run("--method=icr:sigma=0.1,shift=0,real=5")
    entries = {entry["name"]: entry for entry in options["loss_kwargs"]["methods"]}
    assert entries["bcr"] == dict(name="bcr", real=5.0, fake=10.0, shift=0) and entries["zcr"] == dict(name="zcr", dis=5.0, gen=0.5, sigma=0.1)


def test_rates_and_steps(dry_run):
    options, _ = dry_run("--method=ttur:d=0.001", "--method=n-critic:n=3", "--gan=lsgan")
    assert (options["G_opt_kwargs"]["lr"], options["D_opt_kwargs"]["lr"], options["n_critic"]) == (1e-4, 1e-3, 3)
    options, _ = dry_run("--method=n-critic:n=1", "--gan=wgan-gp")
    assert "n_critic" not in options


def test_diffaugment_takes_the_place_of_aug(dry_run):
    options, _ = dry_run("--method=diffaugment")
    assert not {"augment_kwargs", "ada_target", "ada_kimg", "augment_p"} & set(options)


@pytest.mark.parametrize("gan", ["wgan", "wgan-gp", "rpgan", "rpgan+r1+r2"])
def test_logits_without_a_boundary_steer_no_augmentation(dry_run, gan):
    options, printed = dry_run(f"--gan={gan}")
    assert not {"augment_kwargs", "ada_target", "augment_p"} & set(options) and f"no adaptive augmentation: --gan={gan}" in printed
    told = " ".join(printed.split())
    assert "D will learn them by heart; use --aug=fixed --p=0.3" in told and "use --aug=ada" not in told and "p follows D" not in told
    options, printed = dry_run(f"--gan={gan}", "--aug=fixed", "--p=0.25")
    assert options["augment_p"] == 0.25 and options["augment_kwargs"] and "no adaptive" not in printed


@pytest.mark.parametrize("gan", ["lsgan", "hinge", "r1"])
def test_others_keep_adaptive_augmentation(dry_run, gan):
    assert dry_run(f"--gan={gan}")[0]["ada_target"] == 0.6


def test_a_run_begun_with_ada_goes_on_with_it(data16):
    """Before, --gan=wgan had ADA by default; its command line still goes on with such a run."""
    saved = begun(gan="wgan", aug="noaug")
    assert clashes(saved, gan="wgan", aug="noaug") == []
    adaptive = begun()
    for name in ("augment_kwargs", "ada_target"):
        saved[name] = adaptive[name]
    assert clashes(saved) == clashes(saved, gan="wgan") == clashes(saved, gan="wgan", aug="ada") == clashes(saved, target=0.6) == []
    assert "aug" in clashes(saved, aug="noaug") and "target" in clashes(saved, target=0.5)


def test_latents(dry_run):
    options, _ = dry_run("--method=gm-gan:kind=uniform,means=7")
    G = options["G_kwargs"]
    assert G["class_name"] == "training.gan.latents.MixtureGenerator" and G["base_class_name"] == "training.networks.Generator"
    assert (G["kind"], G["num_means"], G["radius"], G["std"], G["z_dim"]) == ("uniform", 7, 0.1, 0.15, 64)
    assert options["loss_kwargs"]["methods"][-1] == dict(name="gm-gan", kind="uniform", means=7, radius=0.1, std=0.15)


def begun(**flags):
    """Options of a run that was begun with these flags, as --resume reads them."""
    return train.build(dict(data="data16.zip", cfg="tiny", **flags)).options


def clashes(saved, **typed):
    flags = dict(typed, data="data16.zip")
    return [flag for flags_of, *_ in resume_options._clashes(saved, flags, set(flags), train.build, ["madr"]) for flag in flags_of]


def test_a_run_goes_on_with_its_own_methods_alone(data16):
    flags = dict(gan="wgan-gp", method=("pacgan:m=2", "gradient-penalty:weight=5"))
    saved = begun(**flags)
    assert clashes(saved) == clashes(saved, **flags) == clashes(saved, cfg="tiny") == clashes(saved, gan="wgan-gp") == []
    assert {"gan"} <= set(clashes(saved, gan="wgan")) and set(clashes(saved, method=("pacgan:m=4",))) == {"method"}
    assert set(clashes(saved, glr=1.0)) == {"glr"} and set(clashes(begun(), method=("clip",))) == {"method"}
    assert clashes(begun(**flags, madr=1), **flags, madr=1) == [] and "gan" in clashes(begun(madr=1), gan="hinge")
    assert set(clashes(begun(gan="rpgan+r1+r2", gamma=2.0), gamma=3.0)) == {"gamma"}


def test_minibatch_discrimination_is_of_the_images_that_a_run_began_with(data16, dry_run):
    """As many as D judges at once, in packs or not; a run that goes on in smaller pieces keeps them, and one of before has none."""
    method = "--method=minibatch-discrimination"
    for flags, images in (
        ([], 16),
        (["--batch-gpu=4"], 4),
        (["--method=pacgan:m=2"], 16),
        (["--method=pacgan:m=2", "--batch=16", "--backbone=dcgan"], 8),
    ):
        assert dry_run(method, *flags)[0]["D_kwargs"]["minibatch_images"] == images
        assert dry_run(*reversed(flags), method)[0]["D_kwargs"]["minibatch_images"] == images
    saved = begun(method=["minibatch-discrimination"])
    flags = dict(data="data16.zip", cfg="tiny", method=["minibatch-discrimination"])
    for saved.batch_gpu, saved.D_kwargs.minibatch_images in ((4, 16), (16, None)):
        assert not resume_options._clashes(saved, flags, set(flags), train.build, ["madr"])


def test_the_refusal_shows_both(data16, monkeypatch, tmp_path):
    (tmp_path / "out").mkdir()
    rows = resume_options._clashes(begun(gan="hinge"), dict(data="data16.zip", gan="lsgan"), {"data", "gan"}, train.build, ["madr"])
    said = str(resume_options._refusal("latest", "out", rows))
    assert "--gan" in said and "hinge" in said and "lsgan" in said and "Leave these flags out to go on with the saved values" in said
    with pytest.raises(UserError):
        raise resume_options._refusal("latest", "out", rows)
