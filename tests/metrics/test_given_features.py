"""calc_metrics.py on files of features that somebody else computed."""

import json
import zipfile

import numpy as np
import pytest

import calc_metrics
from dnnlib import cli
from madr_spaces import neighbours
from metrics import diversity, metric_main


@pytest.fixture
def call(capfd):
    def run(*arguments):
        code = cli.call(calc_metrics.main, ["--verbose=0", "--device=cpu", *map(str, arguments)])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def files(tmp_path):
    """(path of the reals, path of the generated ones, both arrays)."""
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((60, 5)).astype(np.float32), rng.standard_normal((50, 5))
    np.savez(tmp_path / "real.npz", features=real, labels=np.zeros((60, 2)), more=np.zeros((3, 3)))
    np.save(tmp_path / "fake.npy", fake)
    return tmp_path / "real.npz", tmp_path / "fake.npy", real, fake


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_numbers_are_those_of_the_kernels_and_the_facts_name_the_files(files, call):
    real_path, fake_path, real, fake = files
    code, out, err = call("--real-features", real_path, "--fake-features", fake_path, "--metrics=madr_prdc,madr_coverage_10k", "--madr-ties=ignore")
    assert code == 0, err
    four, coverage = lines(out)
    expected = [*neighbours.precision_recall(real, fake, 3, strict=True), *neighbours.density_coverage(real, fake, 5, strict=True)]
    assert list(four["results"].values()) == pytest.approx(expected, abs=1e-12)
    assert coverage["results"]["madr_coverage_10k"] == pytest.approx(expected[3], abs=1e-12)
    facts = four["facts"]
    assert facts["space"] == "given features" and (facts["num_real"], facts["num_gen"]) == (60, 50) and facts["counts_overridden"]
    assert facts["given"]["generated"]["file"] == "fake.npy" and len(facts["given"]["real"]["sha256"]) == 64
    assert "held_out" not in facts and facts["expected_coverage"] == neighbours.expected_coverage(60, 50, 5)


def test_every_metric_of_features_alone_takes_them_and_counts_can_be_limited(files, call):
    real_path, fake_path, *_ = files
    names = [name for name in metric_main.list_valid_metrics() if metric_main.takes_given_features(name)]
    assert {"madr_prdc", "madr_vendi", "madr_authenticity_10k", "madr_ndb", "madr_smooth_recall"} <= set(names) and "fd_dino50k_full" not in names
    code, out, err = call("--real-features", real_path, "--fake-features", fake_path, "--metrics", ",".join(names), "--num-gen=40", "--num-real=30")
    assert code == 0, err
    found = lines(out)
    assert [line["metric"] for line in found] == names
    assert all(
        (line["facts"]["num_real"], line["facts"]["num_gen"]) == (30, 40) and np.isfinite(list(line["results"].values())).all() for line in found
    )


def test_limited_counts_draw_from_the_whole_file(tmp_path, files, call):
    """A file sorted by class: the first rows would be the first class alone."""
    real_path, *_ = files
    real = np.load(real_path)["features"]
    sorted_rows = np.concatenate([real, real + 1000]).astype(np.float32)
    np.save(tmp_path / "two.npy", sorted_rows)
    found = {}
    for seed in (0, 0, 1):
        code, out, err = call(
            "--real-features", tmp_path / "two.npy", "--fake-features", real_path, "--metrics=madr_coverage", "--num-real=60", f"--seed={seed}"
        )
        assert code == 0, err
        [line] = lines(out)
        assert line["facts"]["num_real"] == 60 and 0.25 < line["results"]["madr_coverage"] < 0.75
        assert found.setdefault(seed, line["results"]) == line["results"]
    rows = diversity._subset(sorted_rows, 60, 0, 0)
    places = [int(np.flatnonzero((sorted_rows == row).all(1))[0]) for row in rows]
    assert places == sorted(places) and len(set(places)) == 60
    assert not np.array_equal(rows, diversity._subset(sorted_rows, 60, 1, 0))  # another seed


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(), ["fid50k_full", "needs images", "madr_prdc"]),
        (dict(metrics="madr_modes5k"), ["madr_modes5k", "needs images"]),
        (dict(fake=None, metrics="madr_prdc"), ["--real-features", "needs --fake-features beside it", "generated"]),
        (dict(fake="/nowhere.npz", metrics="madr_prdc"), ["--fake-features=/nowhere.npz", "does not exist"]),
        (dict(fake="fid", metrics="madr_prdc"), ["mu, sigma", "features themselves"]),
        (dict(fake="several", metrics="madr_prdc"), ["a [9, 5]", "b [9, 5]", "call them 'features'"]),
        (dict(fake="pictures", metrics="madr_prdc"), ["holds nothing", "call them 'features'"]),
        (dict(fake="text", metrics="madr_prdc"), ["no .npy or .npz file"]),
        (dict(fake="objects", metrics="madr_prdc"), ["no .npy or .npz file without pickled objects"]),
        (dict(fake="vector", metrics="madr_prdc"), ["shape [9]", "one row per image"]),
        (dict(fake="narrow", metrics="madr_prdc"), ["5 dimensions", "4"]),
        (dict(fake="nan", metrics="madr_prdc"), ["NaN", "item 2"]),
        (dict(fake="few", metrics="madr_prdc"), ["more than 5 generated", "got 3"]),
        (dict(more=["--madr-extractor=pixels"], metrics="madr_prdc"), ["--madr-extractor", "no effect"]),
        *(
            (dict(more=[flag], metrics="madr_prdc"), [flag.split("=")[0], "no effect"])
            for flag in ("--batch=4", "--mirror=0", "--mirror=1", "--cache=on", "--cache=off", "--trust-pickle")
        ),
        (dict(fake="damaged", metrics="madr_prdc"), ["no .npy or .npz file"]),
        (dict(fake="method", metrics="madr_prdc"), ["no .npy or .npz file", "compression"]),
        (dict(more=["--network=net.pkl"], metrics="madr_prdc"), ["--network", "no effect"]),
    ],
)
def test_faults_are_sentences(change, words, files, call, tmp_path):
    real_path, fake_path, _, fake = files
    with zipfile.ZipFile(tmp_path / "pictures.npz", "w") as archive:
        archive.writestr("a.png", b"no array")
    np.savez(tmp_path / "fid", mu=np.zeros(5), sigma=np.zeros((5, 5)))
    np.savez(tmp_path / "several", a=fake[:9], b=fake[:9])
    (tmp_path / "text").write_text("no features")
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object))
    np.save(tmp_path / "vector.npy", fake[:9, 0])
    np.save(tmp_path / "narrow.npy", fake[:, :4])
    np.save(tmp_path / "nan.npy", np.where(np.arange(50)[:, None] == 2, np.nan, fake))
    np.save(tmp_path / "few.npy", fake[:3])
    np.savez_compressed(tmp_path / "packed", features=fake)
    packed = (tmp_path / "packed.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(packed[:300] + b"\xff" * 100 + packed[400:])
    # Method 99 in the header of the file and in that of the archive's list.
    (tmp_path / "method.npz").write_bytes(packed.replace(b"\x08\x00\x00\x00\x21\x00", b"\x63\x00\x00\x00\x21\x00"))
    chosen = change.get("fake", fake_path)
    arguments = ["--real-features", real_path, *change.get("more", [])]
    if chosen is not None:
        found = sorted(tmp_path.glob(f"{chosen}*")) if isinstance(chosen, str) and not chosen.startswith("/") else [chosen]
        arguments += ["--fake-features", found[0]]
    if "metrics" in change:
        arguments.append(f"--metrics={change['metrics']}")
    code, out, err = call(*arguments)
    assert code == 1 and out == "" and "Traceback" not in err
    assert all(word in err for word in words), err


def test_without_them_a_network_is_still_asked_for(call):
    code, _, err = call("--metrics=madr_prdc")
    assert code == 2 and "--network" in err
