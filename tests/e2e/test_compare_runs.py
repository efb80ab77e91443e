"""compare_runs.py on run folders made for the purpose: grouping, numbers, refusals, and the same bytes for the same input."""

import copy
import csv
import io
import json
import os
import random
import re

import numpy as np
import pytest
import scipy.stats

import calc_metrics
import compare_runs
from dnnlib import cli
from reporting.run_table import likeness, methods, runs
from training.training_loop import training_loop

NOW = 1_800_000_000
FACTS = dict(
    data=dict(fingerprint="f" * 64, name="toys", num_images=100, xflip=False, max_size=None),
    num_gen=10_000,
    num_real=100,
    seed=0,
    batch=64,
    detector=dict(name="inception", sha256="a" * 64, kwargs=dict(return_features=True)),
    resize_filter="bilinear",
    k=None,
    tie_rule=None,
    truncation_psi=1,
    metrics_version=1,
    torch="2.2",
)
OPTIONS = dict(
    num_gpus=1,
    batch_size=16,
    batch_gpu=16,
    total_kimg=16,
    training_set_kwargs=dict(path="/old/toys.zip", max_size=100, random_seed=0),
    loss_kwargs=dict(class_name="training.loss.StyleGAN2Loss", r1_gamma=1.0),
    metrics=["fid10k_full"],
)
PLUGIN = dict(preset="default", tilt=0.0, random_seed=0, weight=1.0)


def tick(kimg, sec_per_kimg, maintenance=5.0, number=0):
    """total_sec counts the maintenance of all ticks before."""
    values = {
        "Progress/kimg": kimg,
        "Timing/total_sec": kimg * sec_per_kimg + maintenance * number,
        "Timing/maintenance_sec": maintenance if number else 0.0,
    }
    return json.dumps({name: dict(num=1, mean=value, std=0) for name, value in values.items()})


def metric_line(kimg, results, metric="fid10k_full", facts=None, snapshot=None, **changed):
    facts = dict(copy.deepcopy(FACTS if facts is None else facts), **changed)
    results = results if isinstance(results, dict) else {metric: results}
    snapshot = snapshot or f"network-snapshot-{kimg:06d}.pkl"
    return json.dumps(dict(results=results, metric=metric, total_time=1.0, num_gpus=1, snapshot_pkl=snapshot, timestamp=NOW, facts=facts))


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, seed, {kimg: value}, plugin=..., sec_per_kimg=...) -> a run folder with one metric line per kimg."""

    def make(name, seed, values, *, plugin=None, sec_per_kimg=10.0, metric="fid10k_full", lines=None, kimgs=(8, 16), **options):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        options = dict(copy.deepcopy(OPTIONS), random_seed=seed, run_dir=str(run), **options)
        options["training_set_kwargs"]["random_seed"] = seed
        if plugin is not None:
            options["loss_kwargs"]["madr"] = dict(PLUGIN, random_seed=seed, **plugin)
        (run / "training_options.json").write_text(json.dumps(options))
        (run / "stats.jsonl").write_text("".join(tick(kimg, sec_per_kimg, number=number) + "\n" for number, kimg in enumerate(kimgs)))
        text = lines if lines is not None else [metric_line(kimg, value, metric) for kimg, value in values.items()]
        (run / f"metric-{metric}.jsonl").write_text("".join(line + "\n" for line in text))
        return run

    return make


@pytest.fixture
def study(make_run):
    """Two methods, three seeds each, values at kimg 8 and 16."""
    plain = [make_run(f"plain-{seed}", seed, {8: 30.0 + seed, 16: 20.0 + seed}) for seed in range(3)]
    madr = [make_run(f"madr-{seed}", seed, {8: 28.0 + seed, 16: [17.0, 19.0, 18.0][seed]}, plugin={}) for seed in range(3)]
    return plain + madr


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = cli.call(compare_runs.main, [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def rows_of(text):
    """{(result, method): row} of a CSV table."""
    return {(row["result"], row["method"]): row for row in csv.DictReader(io.StringIO(text))}


def table_of(call, *arguments):
    code, out, err = call(*arguments, "--format=csv")
    assert code == 0, err
    return rows_of(out)


# ----------------------------------------------------------------------------------------------------------------
# Numbers.


def test_mean_error_and_paired_difference(study, call):
    rows = table_of(call, *study)
    plain, madr = rows["fid10k_full", "plain"], rows["fid10k_full", "madr"]
    assert (plain["baseline"], plain["difference"], plain["pairs"]) == ("plain", "", "")
    assert float(plain["mean"]) == 21 and float(plain["std_error"]) == pytest.approx(1 / 3**0.5)
    differences = np.array([-3.0, -2.0, -4.0])
    half = scipy.stats.t.ppf(0.975, 2) * differences.std(ddof=1) / 3**0.5
    assert float(madr["difference"]) == -3 and madr["pairs"] == madr["n"] == "3" and madr["interval_level"] == "0.95"
    assert (float(madr["interval_low"]), float(madr["interval_high"])) == pytest.approx((-3 - half, -3 + half))
    assert (madr["seeds"], madr["values"], madr["kimgs"], madr["point"]) == ("0 1 2", "17.0 19.0 18.0", "16 16 16", "kimg 16")


def test_pairs_are_common_seeds_and_one_seed_has_no_interval(study, call, make_run):
    extra = make_run("madr-7", 7, {8: 1.0, 16: 2.0}, plugin={})
    rows = table_of(call, *study[:2], study[4], extra)
    madr = rows["fid10k_full", "madr"]
    assert (madr["n"], madr["pairs"], madr["difference"], madr["interval_low"]) == ("2", "1", "-2.0", "")
    assert "share 1 seeds; not paired: 0, 7" in madr["notes"]
    alone = table_of(call, study[0])["fid10k_full", "plain"]
    assert (alone["n"], alone["std_error"], alone["pairs"]) == ("1", "", "") and "nothing to compare it with" in alone["notes"]


def test_equal_kimg_is_the_largest_common_one(study, call):
    short = study[5] / "metric-fid10k_full.jsonl"
    short.write_text(short.read_text().splitlines()[0] + "\n")
    rows = table_of(call, *study)
    assert rows["fid10k_full", "plain"]["point"] == "kimg 8" and rows["fid10k_full", "madr"]["values"] == "28.0 29.0 30.0"
    asked = table_of(call, *study, "--kimg=16")["fid10k_full", "madr"]
    assert asked["seeds"] == "0 1" and "madr-2 left out of fid10k_full: it has no line at kimg 16 (only 8)" in asked["notes"]


def test_equal_time_takes_what_the_slowest_had_reached(make_run, call):
    """plain ends after 160 s; the other has reached kimg 8 by then, its evaluations not counted."""
    fast = make_run("plain", 0, {8: 30.0, 16: 20.0}, sec_per_kimg=10.0)
    slow = make_run("madr", 0, {8: 25.0, 16: 15.0}, plugin={}, sec_per_kimg=20.0)
    rows = table_of(call, fast, slow, "--at=time")
    assert (rows["fid10k_full", "plain"]["kimgs"], rows["fid10k_full", "madr"]["kimgs"]) == ("16", "8")
    assert rows["fid10k_full", "madr"]["point"] == "160 s of training" and rows["fid10k_full", "madr"]["difference"] == "5.0"
    (slow / "stats.jsonl").write_text(tick(8, 20.0) + "\n" + tick(16, 20.0, number=1) + "\n" + tick(24, 20.0, number=2) + "\n")
    assert table_of(call, fast, slow, "--at=time")["fid10k_full", "madr"]["kimgs"] == "8"
    (slow / "stats.jsonl").write_text("")
    rows = table_of(call, fast, slow, "--at=time")
    assert ("fid10k_full", "madr") not in rows and "the training time of 2 of its 2 lines" in rows["fid10k_full", "plain"]["notes"]


def test_a_snapshot_between_two_ticks_lies_between_their_times(make_run, call):
    """A run that was stopped saves between two ticks."""
    whole = make_run("plain", 0, {8: 30.0, 16: 20.0}, sec_per_kimg=9.0)
    stopped = make_run("madr", 0, {12: 25.0}, plugin={}, sec_per_kimg=10.0)
    rows = table_of(call, whole, stopped, "--at=time")
    assert rows["fid10k_full", "madr"]["point"] == "120 s of training" and rows["fid10k_full", "plain"]["kimgs"] == "8"


@pytest.mark.parametrize("is_apart, at_whole", [(True, 30.0), (False, 36.0)])
def test_each_of_several_snapshots_within_a_kimg_has_the_time_of_its_own_tick(is_apart, at_whole):
    """network-snapshot-000003.pkl, -000003-256 and so on; where they are not named apart, the last one has replaced the others."""
    seconds = [(kimg, 10 * kimg) for kimg in (2.0, 3.0, 3.256, 3.6, 4.2)]
    run = runs.Run("a", "plain", 0, False, dict(snapshots_apart=is_apart), 4.2, 5.0, seconds=seconds)
    assert [run.seconds_at(kimg) for kimg in (3, 3 + 256 / 1000, 3 + 600 / 1000, 4)] == pytest.approx([at_whole, 32.56, 36, 42])
    assert run.seconds_at(3.1) == pytest.approx(31.0)  # between two ticks


def test_a_snapshot_within_a_kimg_is_chosen_by_its_number(make_run, call):
    """As --tick=0.25 --snap=1 names them: 000001.pkl, 000001-118.pkl."""
    lines = [metric_line(1, 30.0), metric_line(1, 20.0, snapshot="network-snapshot-000001-118.pkl"), metric_line(2, 10.0)]
    run = make_run("plain", 0, {}, lines=lines)
    for kimg, point, value in (("1.118", "kimg 1.118", "20.0"), ("1", "kimg 1", "30.0"), ("2.0", "kimg 2", "10.0")):
        row = table_of(call, run, f"--kimg={kimg}")["fid10k_full", "plain"]
        assert (row["point"], row["mean"]) == (point, value)
    code, _, err = call(run, "--kimg=1.1")
    assert code == 1 and "it has no line at kimg 1.1 (only 1, 1.118, 2)" in err


@pytest.mark.parametrize("metric, best", [("fid10k_full", "5.0"), ("madr_coverage", "9.0")])
def test_best_goes_by_the_metrics_own_direction_up_to_the_common_kimg(make_run, call, metric, best):
    plain = make_run("plain", 0, {8: 6.0, 16: 6.0}, metric=metric)
    madr = make_run("madr", 0, {4: 9.0, 8: 5.0, 16: 7.0, 24: 1.0}, plugin={}, metric=metric, total_kimg=24, kimgs=(4, 8, 16, 24))
    assert table_of(call, plain, madr, "--policy=best")[metric, "madr"]["values"] == best
    assert table_of(call, plain, madr)[metric, "madr"]["values"] == "7.0"
    code, out, _ = call(plain, madr, "--policy=best")
    assert code == 0 and f"the snapshot with the {'lowest' if metric.startswith('fid') else 'highest'} {metric}" in out and "flatters" in out


@pytest.mark.parametrize("kimgs, policy, noted", [((4, 8, 16), "best", True), ((4, 8, 16), "last", False), ((8, 16), "best", False)])
def test_unequal_numbers_to_choose_the_best_from_are_noted(make_run, call, kimgs, policy, noted):
    plain = make_run("plain", 0, {8: 6.0, 16: 6.0})
    madr = make_run("madr", 0, {kimg: 5.0 for kimg in kimgs}, plugin={}, kimgs=kimgs)
    code, out, err = call(plain, madr, f"--policy={policy}")
    assert code == 0, err
    assert ("the best comes from unequal numbers of lines" in out) is noted
    if noted:
        assert re.search(r"\(\S*madr\S* 3, \S*plain\S* 2\)", out)


def test_all_results_of_a_best_line_come_from_one_snapshot(make_run, call):
    lines = [
        metric_line(8, dict(madr_modes=10.0, madr_modes_kl=3.0), "madr_modes"),
        metric_line(16, dict(madr_modes=9.0, madr_modes_kl=1.0), "madr_modes"),
    ]
    rows = table_of(call, make_run("plain", 0, {}, metric="madr_modes", lines=lines), "--policy=best")
    assert (rows["madr_modes", "plain"]["mean"], rows["madr_modes_kl", "plain"]["mean"]) == ("10.0", "3.0")


def test_numbers_that_are_none(make_run, call):
    lines = lambda value: [metric_line(16, dict(madr_modes=4.0, madr_modes_kl=value), "madr_modes")]
    plain = make_run("plain", 0, {}, metric="madr_modes", lines=lines(float("inf")))
    odd = make_run("odd", 1, {}, metric="madr_modes", lines=lines("many"))
    madr = make_run("madr", 0, {}, metric="madr_modes", lines=lines(1.0), plugin={})
    rows = table_of(call, plain, odd, madr)
    assert rows["madr_modes_kl", "plain"]["mean"] == "inf" and rows["madr_modes_kl", "madr"]["difference"] == ""
    notes = rows["madr_modes", "plain"]["notes"]
    assert "plain has madr_modes_kl = inf" in notes and "odd left out of madr_modes_kl: its line holds no number" in notes


# ----------------------------------------------------------------------------------------------------------------
# Methods.


def test_methods_differ_by_options_and_not_by_seed_or_place(make_run, call):
    runs = [
        make_run("a", 0, {16: 1.0}),
        make_run("b", 1, {16: 1.0}, training_set_kwargs=dict(path="/new/toys.zip", max_size=100), threads=4),
        make_run("c", 0, {16: 1.0}, plugin={}),
        make_run("d", 0, {16: 1.0}, plugin=dict(tilt=0.5)),
        make_run("e", 0, {16: 1.0}, plugin=dict(preset="paper")),
    ]
    rows = table_of(call, *runs)
    assert {method for _, method in rows} == {"plain", "madr tilt=0.0", "madr tilt=0.5", "madr-paper"}
    assert rows["fid10k_full", "plain"]["n"] == "2" and rows["fid10k_full", "madr-paper"]["baseline"] == "plain"


def test_many_different_options_get_a_short_mark():
    options = [dict(OPTIONS, random_seed=0, alpha=number, beta=number, gamma=number, delta=number) for number in range(2)]
    first, second = methods.names_of(options)
    assert first != second and first.startswith("plain #") and len(first) == len("plain #") + 6
    assert methods.names_of(options[::-1]) == [second, first]


def test_groups_override_and_baseline_by_name(study, call):
    rows = table_of(call, *study, "--group", "ours=madr-*", "--baseline=ours")
    assert {method for _, method in rows} == {"ours", "plain"} and float(rows["fid10k_full", "plain"]["difference"]) == 3
    split = table_of(call, *study, "--group", "A=plain-0", "--group", "B=*/plain-1")
    assert split["fid10k_full", "B"]["seeds"] == "1"


def test_without_one_plain_method_there_are_no_differences(study, call, make_run):
    other = make_run("other", 0, {8: 1.0, 16: 1.0}, batch_size=32)
    rows = table_of(call, *study, other)
    assert ("fid10k_full", "plain batch_size=32") in rows and all(row["difference"] == "" for row in rows.values())
    assert "choose one with --baseline (the methods: madr, plain batch_size=16, plain batch_size=32)" in rows["fid10k_full", "madr"]["notes"]


def test_runs_as_training_and_calc_metrics_leave_them(loop_options, tmp_path, call, capsys):
    runs = []
    for seed in range(2):
        for gamma in (1, 10):
            run = tmp_path / f"{seed}-{gamma}"
            run.mkdir()
            options = loop_options(
                num_classes=0,
                random_seed=seed,
                total_kimg=0.016,
                kimg_per_tick=0.016,
                network_snapshot_ticks=1,
                loss_kwargs=dict(class_name="training.loss.StyleGAN2Loss", r1_gamma=gamma),
            )
            (run / "training_options.json").write_text(json.dumps(options))
            training_loop(run_dir=str(run), **options)
            assert (
                cli.call(
                    calc_metrics.main,
                    [
                        "--run",
                        str(run),
                        "--metrics=madr_coverage",
                        "--madr-extractor=pixels",
                        "--num-gen=30",
                        "--device=cpu",
                        f"--batch={8 if gamma == 1 else 10}",
                        "--verbose=0",
                    ],
                )
                == 0
            )
            runs.append(run)
    capsys.readouterr()
    rows = table_of(call, *runs, "--baseline=plain r1_gamma=1")
    row = rows["madr_coverage", "plain r1_gamma=10"]
    written = [json.loads((run / "metric-madr_coverage.jsonl").read_text())["results"]["madr_coverage"] for run in runs]
    assert float(row["difference"]) == pytest.approx((written[1] + written[3] - written[0] - written[2]) / 2) and row["pairs"] == "2"
    assert "batch is" in row["notes"] and row["forced"] == "" and "not finished" not in row["notes"]
    timed = table_of(call, *runs, "--baseline=plain r1_gamma=1", "--at=time")
    assert all(row["point"].endswith("s of training") for row in timed.values())


# ----------------------------------------------------------------------------------------------------------------
# Unlike lines.


@pytest.mark.parametrize(
    "change, told",
    [
        (dict(data=dict(FACTS["data"], fingerprint="e" * 64)), "data.fingerprint"),
        (dict(detector=dict(FACTS["detector"], sha256="b" * 64)), "detector.sha256"),
        (dict(num_gen=5000), "num_gen"),
        (dict(num_real=50), "num_real"),
        (dict(k=3), "k is null"),
        (dict(tie_rule="<"), "tie_rule"),
        (dict(resize_filter="bicubic"), "resize_filter"),
        (dict(truncation_psi=0.5), "truncation_psi"),
        (dict(metrics_version=2), "metrics_version"),
        (dict(modes_rule="labels 0 to 776"), "modes_rule"),
        (dict(some_future_fact=1), "some_future_fact"),
        (dict(repeats=dict(num=3, seeds=[0, 1, 2])), "repeats.num"),
    ],
)
def test_unlike_lines_are_refused_by_name(make_run, call, change, told):
    plain = make_run("plain", 0, {16: 20.0})
    madr = make_run("madr", 0, {}, plugin={}, lines=[metric_line(16, 10.0, **change)])
    code, out, err = call(plain, madr)
    assert code == 1 and out == "" and "fid10k_full" in err and told in err and "in plain but" in err and "in madr" in err and "--force" in err
    for form in ("markdown", "csv", "latex"):
        code, out, err = call(plain, madr, "--force", f"--format={form}")
        assert code == 0 and told.split()[0] in out.replace(r"\_", "_") and "orced" in out, err


def sifted(acceptance, largest, gamma, percentile):
    return dict(drs=dict(acceptance=acceptance, proposed=int(1e4 / acceptance), largest=largest, accepted=10_000, gamma=gamma, percentile=percentile))


def test_sifted_images_compare_by_the_rule_that_sifted_them(make_run, call):
    plain = make_run("plain", 0, {}, lines=[metric_line(16, 20.0, **sifted(0.2, 5.1, 1.2, 95.0))])
    alike = make_run("madr", 0, {}, plugin={}, lines=[metric_line(16, 10.0, **sifted(0.25, 4.7, 1.0, 95.0))])
    code, _, err = call(plain, alike)
    assert code == 0, err
    for number, (first, second) in enumerate([((1.2, 95.0), (1.0, 90.0)), ((1.2, None), (1.0, None))]):
        runs = [
            make_run(f"{name}{number}", 0, {}, plugin=plugin, lines=[metric_line(16, 10.0, **sifted(0.2, 5.1, *rule))])
            for name, plugin, rule in (("plain", None, first), ("madr", {}, second))
        ]
        code, _, err = call(*runs)
        assert code == 1 and ("drs.percentile" if first[1] else "drs.gamma") in err


def test_both_values_are_named(make_run, call):
    runs = [make_run("plain", 0, {16: 20.0}), make_run("madr", 0, {}, plugin={}, lines=[metric_line(16, 10.0, num_gen=5000)])]
    assert "num_gen is 10000 in plain but 5000 in madr" in call(*runs)[2]


def test_only_lines_that_count_must_be_alike(make_run, call):
    plain = make_run("plain", 0, {8: 25.0, 16: 20.0})
    madr = make_run("madr", 0, {}, plugin={}, lines=[metric_line(8, 11.0, num_gen=500), metric_line(16, 10.0)])
    assert call(plain, madr)[0] == 0
    code, _, err = call(plain, madr, "--policy=best")
    assert code == 1 and "num_gen" in err
    with (madr / "metric-fid10k_full.jsonl").open("a") as file:
        file.write(metric_line(16, 9.0, num_gen=500) + "\n")
    code, _, err = call(plain, madr)
    assert code == 1 and "num_gen" in err


def test_noise_and_measured_values_are_no_conditions(make_run, call):
    plain = make_run("plain", 0, {}, lines=[metric_line(16, 20.0, held_out=dict(space="pixels", coverage=0.5))])
    madr = make_run(
        "madr", 0, {}, plugin={}, lines=[metric_line(16, 10.0, seed=4, torch="2.3", trained_in="pca", held_out=dict(space="pixels", coverage=0.7))]
    )
    rows = table_of(call, plain, madr)
    assert "seed is 0 in plain but 4 in madr" in rows["fid10k_full", "madr"]["notes"] and rows["fid10k_full", "madr"]["forced"] == ""
    (madr / "metric-fid10k_full.jsonl").write_text(metric_line(16, 10.0, held_out=dict(space="random-conv", coverage=0.7)))
    assert "held_out.space" in call(plain, madr)[2]


def test_lines_without_facts_are_compared_with_a_doubt(make_run, call):
    runs = [make_run(name, 0, {}, plugin=plugin, lines=[metric_line(16, 1.0, facts={})]) for name, plugin in (("plain", None), ("madr", {}))]
    for run in runs:
        path = run / "metric-fid10k_full.jsonl"
        path.write_text(path.read_text().replace(', "facts": {}', ""))
    assert "not every line states" in table_of(call, *runs)["fid10k_full", "madr"]["notes"]


def test_a_fact_that_is_not_stated_counts_as_none(make_run, call):
    older = {name: value for name, value in FACTS.items() if name not in ("k", "tie_rule")}
    plain, madr = make_run("plain", 0, {}, lines=[metric_line(16, 20.0, facts=older)]), make_run("madr", 0, {16: 10.0}, plugin={})
    assert call(plain, madr)[0] == 0
    (madr / "metric-fid10k_full.jsonl").write_text(metric_line(16, 10.0, tie_rule="<"))
    assert 'tie_rule is null in plain but "<" in madr' in call(plain, madr)[2]


def test_cycling_lines_count_their_snapshots_not_their_values():
    line = lambda **shares: dict(facts=dict(snapshots=shares))
    assert likeness.differences([("a", line(x=0.5, y=1.0)), ("b", line(y=0.3, x=0.2))]) == ([], [])
    unlike, _ = likeness.differences([("a", line(x=0.5, y=1.0)), ("b", line(x=0.5))])
    assert len(unlike) == 1 and unlike[0].startswith("snapshots is")


# ----------------------------------------------------------------------------------------------------------------
# The same bytes.


def shuffle_keys(value, draw):
    if not isinstance(value, dict):
        return value
    names = list(value)
    draw.shuffle(names)
    return {name: shuffle_keys(value[name], draw) for name in names}


@pytest.mark.parametrize("form", ["markdown", "csv", "latex"])
@pytest.mark.parametrize("more", [[], ["--at=time", "--policy=best"]])
def test_same_input_same_bytes(study, call, form, more, monkeypatch):
    arguments = [f"--format={form}", *more]
    with (study[0] / "metric-fid10k_full.jsonl").open("a") as file:
        file.write('{"cut off\n')
    first = call(*study, *arguments)
    assert first[0] == 0
    draw = random.Random(1)
    for run in study:
        for path in run.iterdir():
            if path.suffix in (".json", ".jsonl"):
                lines = [
                    json.dumps(shuffle_keys(json.loads(line), draw)) if line.startswith('{"') and "cut" not in line else line
                    for line in path.read_text().splitlines()
                ]
                path.write_text("\n".join(lines) + "\n")
            os.utime(path, (draw.randrange(10**9), draw.randrange(10**9)))
        os.utime(run, (0, draw.randrange(10**9)))
    shuffled = [*study, study[2]]
    draw.shuffle(shuffled)
    assert call(*[f"{run}/" for run in shuffled], *arguments) == first
    monkeypatch.chdir(study[0].parent)
    assert call(*[run.name for run in shuffled], *arguments) == first
    code, out, _ = call(*study, *arguments, "--out=table.txt")
    assert code == 0 and (study[0].parent / "table.txt").read_text() == first[1] and out.startswith("Wrote table.txt: 2 rows")


def test_out_is_written_whole_or_not_at_all(study, call, tmp_path):
    target = tmp_path / "table.md"
    target.write_text("before")
    lines = study[5] / "metric-fid10k_full.jsonl"
    lines.write_text(metric_line(16, 1.0, num_gen=3))
    assert call(*study, "--out", target)[0] == 1 and target.read_text() == "before"
    code, _, err = call(*study, "--force", "--out", tmp_path / "nowhere" / "table.md")
    assert code == 1 and "Cannot write" in err


def test_markdown_and_latex_are_well_formed(study, call):
    (study[3] / "training_options.json").write_text((study[3] / "training_options.json").read_text().replace('"default"', '"a_b&50%|c"'))
    code, out, _ = call(*study)
    assert code == 0
    tables = [[line for line in part.splitlines() if line.startswith("|")] for part in out.split("\n\n")]
    for lines in filter(None, tables):
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "paired by seed" in out and "Student's t" in out and "last line" in out
    code, out, _ = call(*study, "--format=latex")
    assert code == 0 and r"madr-a\_b\&50\%|c" in out
    body = [line for line in out.splitlines() if " & " in line]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1 and out.count(r"\begin") == out.count(r"\end") == 1


# ----------------------------------------------------------------------------------------------------------------
# Bad input.


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "No run is named"),
        (["--kimg=8", "--at=time"], "--kimg=8 and --at=time cannot be combined; leave one of them out"),
        (["--baseline=ada"], "--baseline=ada is none of the methods: madr, plain"),
        (["--metrics=fid,kid"], "--metrics=fid,kid: no run has a line of that; there are fid10k_full"),
        (["--group", "x=nothing*"], "matches none of the runs"),
        (["--group", "x=madr-*", "--group", "y=*-0"], "puts madr-0 into both x and y"),
        (["--group", "one=*"], "are both method 'one', seed 0"),
        (["--kimg=7"], "Nothing is left to compare"),
    ],
)
def test_faults_are_sentences(study, call, arguments, words):
    code, out, err = call(*(study if arguments else []), *arguments)
    assert code == 1 and out == "" and words in err and err.startswith("Error: ")


def test_the_same_seed_twice_is_refused(study, call, make_run):
    again = make_run("plain-again", 1, {16: 3.0})
    code, _, err = call(*study, again)
    assert code == 1 and "plain-1 and plain-again are both method 'plain', seed 1" in err and "--group" in err


def test_what_cannot_be_used_is_noted(study, call, make_run, tmp_path):
    silent = make_run("silent", 5, {})
    broken = make_run("broken", 6, {16: 1.0})
    (broken / "training_options.json").write_text("{")
    seedless = make_run("seedless", 7, {16: 1.0})
    (seedless / "training_options.json").write_text(json.dumps(dict(OPTIONS, random_seed="x")))
    going = make_run("going", 8, {}, lines=[metric_line(8, 33.0), "{broken", metric_line(16, 21.0), metric_line(16, 22.0)], total_kimg=100)
    (tmp_path / "runs" / "README").write_text("no run")
    notes = table_of(call, *study, silent, broken, seedless, going, tmp_path / "runs" / "README", tmp_path / "runs")["fid10k_full", "plain"]["notes"]
    for words in [
        "silent left out: it has no metric lines",
        "broken left out: training_options.json is missing or damaged",
        "seedless left out",
        "going: metric-fid10k_full.jsonl: 1 line is cut off",
        "going: fid10k_full was computed more than once at kimg 16",
        "going is not finished: it has reached kimg 16 of 100",
        "README left out",
        "it contains runs, name one of them",
    ]:
        assert words in notes, words
    code, _, err = call(silent, broken)
    assert code == 1 and err.startswith("Error: No run to compare") and "silent left out" in err and "broken left out" in err


def test_runs_without_a_common_kimg(make_run, call):
    code, _, err = call(make_run("plain", 0, {8: 1.0}), make_run("madr", 0, {16: 1.0}, plugin={}))
    assert code == 1 and "no kimg has a line in every run (madr: 16; plain: 8)" in err


def test_runs_of_one_name_are_told_apart_by_their_path(make_run, call, monkeypatch, tmp_path):
    make_run("a/00000-toys", 0, {16: 1.0})
    make_run("b/00000-toys", 0, {16: 1.0}, plugin={})
    monkeypatch.chdir(tmp_path / "runs")
    code, out, _ = call("a/00000-toys", "b/00000-toys")
    assert code == 0 and "| a/00000-toys |" in out and "| b/00000-toys |" in out
