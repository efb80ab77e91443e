"""Too few images, and images of another kind, for a number: refused before anything is computed, or told."""

from types import SimpleNamespace

import pytest

from dnnlib.errors import UserError
from metrics import metric_main, progress, requirements
from metrics.metric import Takes
from training.dataset import ImageFolderDataset


@pytest.mark.parametrize("side, flag", [("num_gen", "--num-gen"), ("num_real", "--num-real")])
def test_what_every_metric_needs_is_refused_below_and_taken_from_there(side, flag):
    from metrics import counts

    for name in metric_main.list_valid_metrics():
        row = metric_main.row_of(name)
        if row.fewest.count == 1 or (side == "num_real" and not row.compares_with_reals):
            continue
        numbers = dict(num_gen=None, num_real=None)
        counts.check_asked_for([row], **{**numbers, side: row.fewest.count})
        with pytest.raises(UserError, match=f"{flag}={row.fewest.count - 1} is too few for {name}: .*{'generated' if side == 'num_gen' else 'real'}"):
            counts.check_asked_for([row], **{**numbers, side: row.fewest.count - 1})


@pytest.mark.parametrize("name", ["fid10k_full", "kid10k_full", "pr10k3_full", "is50k", "madr_prdc", "madr_vendi", "madr_authenticity", "madr_ndb"])
def test_one_generated_or_one_real_image_gives_no_number(name, options, tiny_zip):
    row = metric_main.row_of(name)
    cases = [dict(num_gen=1)]
    if row.compares_with_reals:
        cases.append(dict(dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=1))))
    for case in cases:
        with pytest.raises(Exception, match=f"{name}: .*\\(got 1\\)") as caught:
            row(options(space="pixels", **case))
        assert caught.value.is_user_error


@pytest.mark.parametrize(
    "opts, side, remedy",
    [
        (dict(), "generated", "use more, see --num-gen"),
        (dict(G=SimpleNamespace(batches=None)), "generated", "put more pictures into --fakes"),
        (dict(G=SimpleNamespace(batches=None)), "real", "put more pictures into --reals"),
        (dict(sides={"generated": None}), "generated", "make the file of --fakes from more pictures"),
        (dict(sides={"generated": None}), "real", "put more pictures into --reals"),
        (dict(given=()), "generated", "put more features into --fake-features"),
    ],
)
def test_too_few_of_a_side_are_answered_with_what_can_be_done(opts, side, remedy):
    from metrics import counts

    opts = SimpleNamespace(**{**dict(G=None, sides={}, given=None, asking=metric_main.row_of("fid50k_full")), **opts})
    with pytest.raises(Exception, match=f"\\(got 1\\); {remedy}\\.$"):
        counts.check(opts, side, 1)


def test_two_images_are_enough_for_a_covariance_and_fewer_than_features_are_told(options, tiny_zip, capsys):
    progress._told.clear()
    data = dict(class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=2))
    for _ in range(2):
        metric_main.row_of("fid10k_full")(options(num_gen=2, dataset_kwargs=dict(data)))
    err = capsys.readouterr().err
    assert err.count("Warning: fid10k_full has 2 real and 2 generated images for covariances of") == 1


def test_training_with_metrics_asks_before_it_begins(tiny_zip):
    """Of all stored images, not of the subset: that is what the metrics look at."""
    requirements.check_data(["fid50k_full"], ImageFolderDataset(path=tiny_zip(num_images=30), max_size=1))
    with pytest.raises(Exception, match="fid50k_full: a covariance needs at least two real images \\(got 1\\)"):
        requirements.check_data(["is50k", "fid50k_full"], ImageFolderDataset(path=tiny_zip(num_images=1), xflip=True))


def test_a_network_and_data_of_other_channels_are_refused(options, tmp_path):
    import PIL.Image

    for i in range(8):
        PIL.Image.new("L", (16, 16), i).save(tmp_path / f"{i}.png")
    grey = dict(class_name="training.dataset.ImageFolderDataset", path=str(tmp_path))
    for name in ("fid10k_full", "madr_prdc"):
        with pytest.raises(UserError, match=r"have 1 channel \(grey\), the generated ones 3 channels \(RGB\)"):
            metric_main.row_of(name)(options(dataset_kwargs=dict(grey), space="pixels"))


def test_metrics_of_registered_functions_ask_for_the_network():
    assert metric_main.row_of("ppl2_wend").takes is Takes.NETWORK and metric_main.row_of("madr_cycling").takes is Takes.NETWORK
    assert [metric_main.row_of(name).takes for name in ("fid50k_full", "kid50k_full", "is50k")] == [Takes.STATISTICS, Takes.FEATURES, Takes.IMAGES]
