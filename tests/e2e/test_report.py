"""report.py: the page of a run, from run folders whole, growing, damaged and wrong."""

import html.parser
import json
import math
import os
import re
import xml.etree.ElementTree

import numpy as np
import PIL.Image
import pytest

import report
from dnnlib import cli
from dnnlib.errors import UserError
from reporting import diversity_file, run_folder
from reporting.run_page import charts, curves, markup, page, pictures, sections
from training import snapshots
from training.training_loop import training_loop

VOID = {"meta", "img", "input", "br", "link"}
SVG_LEAVES = {"line", "path", "circle"}
MAX_BYTES = 5_000_000
NOW = 1_800_000_000.0


class Page(html.parser.HTMLParser):
    """Checks the nesting of elements; collects addresses, texts and pictures."""

    def __init__(self, source):
        super().__init__()
        self.open, self.addresses, self.anchors, self.texts, self.images = [], [], set(), [], 0
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[name] for name in ("src", "href") if name in attrs]
        self.anchors |= {attrs["id"]} if "id" in attrs else set()
        self.images += tag == "img"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in SVG_LEAVES

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def read_page(path):
    source = path.read_text(encoding="utf-8")
    assert len(source) < MAX_BYTES
    found = Page(source)
    # Opens offline: every address is data within the page or a place of it.
    assert all(address.startswith("data:image/") or address[1:] in found.anchors for address in found.addresses), found.addresses
    assert "http" not in source and "@import" not in source and "url(" not in source
    return found


def tick(kimg, **stats):
    values = {
        "Loss/G/loss": 1.5,
        "Loss/D/loss": 0.7,
        "Timing/total_sec": 20 * kimg,
        "Timing/sec_per_tick": 80,
        "Timing/sec_per_kimg": 20,
        "Timing/maintenance_sec": 1,
        "Progress/kimg": kimg,
        "Progress/tick": kimg / 4,
        **stats,
    }
    return json.dumps({**{name: dict(num=1, mean=value, std=0) for name, value in values.items()}, "timestamp": NOW - 1000})


def metric_line(kimg, value, **facts):
    return json.dumps(
        dict(
            results=dict(fid10k_full=value),
            metric="fid10k_full",
            total_time=3.0,
            total_time_str="3s",
            num_gpus=1,
            snapshot_pkl=f"network-snapshot-{kimg:06d}.pkl",
            timestamp=NOW,
            facts=dict(seed=0, data=dict(fingerprint="abc"), **facts),
        )
    )


def write_grid(path, columns=8, rows=6, resolution=16, seed=0):
    images = np.random.RandomState(seed).randint(0, 256, [columns * rows, 3, resolution, resolution])
    snapshots.save_image_grid(images, str(path), drange=[0, 255], grid_size=(columns, rows))


def write_noisy_diversity(run):
    """As large as such a file gets: pictures of noise, 1000 classes, every dot."""
    random = np.random.RandomState(0)
    noise = lambda count: random.randint(0, 256, [count, 3, 64, 64]).astype(np.uint8)
    facts = dict(
        version=diversity_file.VERSION,
        num_gen=50_000,
        num_real=50_000,
        num_images=50_000,
        coverage=0.5,
        num_missed=25_000,
        expected_coverage=0.97,
        k=5,
        space="pixels",
        fingerprint="x",
        problems=[],
        class_names=[f"class named {index}" for index in range(1000)],
        memorisation=dict(num_searched=50_000, num_suspects=0, num_copies=0, num_twins=0, num_asked=2000, fewest=100, level=0.01),
    )
    arrays = dict(
        map_real=random.randn(3000, 2),
        map_ratio=random.rand(3000) * 3,
        map_fake=random.randn(1500, 2),
        missing_item=np.arange(18),
        missing_ratio=np.full(18, 2.0),
        missing_real=noise(18),
        missing_fake=noise(18),
        class_total=np.full(1000, 50),
        class_coverage=random.rand(1000),
        class_below=np.arange(500),
        missing_class=np.arange(18),
        copies_fake=noise(12),
        copies_real=noise(12),
        copies_item=np.arange(12),
        copies_ratio=np.ones(12),
        copies_suspect=np.zeros(12, bool),
        copies_mirrored=np.zeros(12, bool),
    )
    diversity_file.save(str(run / "diversity-000096.npz"), "key", facts, arrays)


@pytest.fixture
def make_run(tmp_path):
    """make_run(kimgs, total_kimg, log) -> a run folder with ticks, samples and snapshots at these kimg."""

    def make(kimgs=(0, 4, 8), total_kimg=8, log="Training for 8 kimg...\n\nExiting...\n", **options):
        run = tmp_path / "00000-toys-tiny"
        run.mkdir()
        options = dict(
            dict(
                total_kimg=total_kimg,
                random_seed=3,
                batch_size=8,
                num_gpus=1,
                ada_target=0.6,
                training_set_kwargs=dict(path="toys.zip", resolution=16, use_labels=False),
                loss_kwargs=dict(class_name="training.loss.StyleGAN2Loss"),
            ),
            **options,
        )
        (run / "training_options.json").write_text(json.dumps(options))
        (run / "stats.jsonl").write_text("".join(tick(kimg or 0.008) + "\n" for kimg in kimgs))
        (run / "log.txt").write_text(log)
        for name in ("reals.png", "fakes_init.png", *(f"fakes{kimg:06d}.png" for kimg in kimgs)):
            write_grid(run / name)
        for kimg in kimgs:
            (run / f"network-snapshot-{kimg:06d}.pkl").write_bytes(b"weights")
        (run / f"training-state-{kimgs[-1]:06d}.pt").write_bytes(b"state")
        os.utime(run / "stats.jsonl", (NOW - 60, NOW - 60))
        os.utime(run / "log.txt", (NOW - 60, NOW - 60))
        return run

    return make


# ----------------------------------------------------------------------------------------------------------------
# Whole pages.


def test_a_real_run(loop_options, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    options = loop_options(total_kimg=0.04, kimg_per_tick=0.016, image_snapshot_ticks=1, network_snapshot_ticks=2)
    (run / "training_options.json").write_text(json.dumps(options))
    training_loop(run_dir=str(run), **options)
    assert cli.call(report.main, [str(run), "--no-diversity"]) == 0
    found = read_page(run / "report.html")
    assert "Finished: all 0.04 kimg" in found.text and "StyleGAN2Loss" in found.text
    for title in ("Losses", "What D says", "Sign of what D says", "Augmentation", "Penalties", "Time of a phase", "Time per kimg"):
        assert title in found.texts
    assert found.images == len(list(run.glob("fakes*.png"))) + 2  # reals and the strip over time


def test_finished_run_with_metrics(make_run):
    run = make_run()
    (run / "metric-fid10k_full.jsonl").write_text(metric_line(4, 80.5, num_gen=10000) + "\n" + metric_line(8, 41.25, num_gen=500) + "\n")
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert page.write_report(str(run), now=NOW) == str(run / "report.html")
    found = read_page(run / "report.html")
    assert "80.5" in found.texts and "41.25 at 8 kimg" in found.texts
    assert '"data.fingerprint": "abc"' in found.text and '"num_gen": 500' in found.text
    assert "python generate.py" in found.text and "--resume=" not in found.text
    assert all(path.read_bytes() == content for path, content in before.items())
    assert set(run.iterdir()) == {*before, run / "report.html"}


def test_same_folder_same_bytes(make_run, tmp_path):
    run = make_run()
    written = [page.write_report(str(run), dest=str(tmp_path / name), now=NOW) for name in ("a.html", "b.html")]
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes() and not (run / "report.html").exists()
    assert written == [str(tmp_path / "a.html"), str(tmp_path / "b.html")]


def test_run_that_goes_on(make_run):
    run = make_run(total_kimg=108, log="Training for 108 kimg...\n\ntick 2     kimg 8.0      time 2m 40s\n")
    with open(run / "stats.jsonl", "a") as file:
        file.write(tick(12)[:200])  # the line that is being written
    (run / "fakes000012.png").write_bytes((run / "fakes000008.png").read_bytes()[:500])
    page.write_report(str(run), now=NOW)
    found = read_page(run / "report.html")
    assert "Going on when this page was made." in found.texts and "tick 2 kimg 8.0 time 2m 40s" in found.texts
    assert "about 33m 20s, until" in found.text  # 100 kimg at 20 s
    assert "stats.jsonl: 1 line is cut off" in found.text and "fakes000012.png could not be read" in found.text
    assert "exits with code 75" in found.text


@pytest.mark.parametrize(
    "log, seconds_later, kind",
    [
        ("Training for 108 kimg...\n", 0, "going"),
        ("Training for 108 kimg...\n", 3600, "silent"),
        ("Training for 108 kimg...\nSaved at kimg 9.2; go on with --resume=latest. Exit code 75.\n", 3600, "stopped"),
        ("Saved at kimg 4.2; go on.\nTraining for 108 kimg...\n", 0, "going"),  # resumed since
        ("Training for 108 kimg...\nAborting...\n\nExiting...\n", 0, "aborted"),
        ("Training for 8 kimg...\nExiting...\n", 3600, "finished"),
    ],
)
def test_status(make_run, log, seconds_later, kind):
    run = run_folder.read_run(str(make_run(total_kimg=108, log=log)), now=NOW + seconds_later)
    assert run_folder.status(run).kind == kind
    hint = sections.next_section(run).body
    assert ("--resume=" + run.path in hint) == (kind in ("silent", "stopped", "aborted"))


def test_run_that_has_hardly_begun(tmp_path):
    (tmp_path / "training_options.json").write_text("{}")
    page.write_report(str(tmp_path))
    found = read_page(tmp_path / "report.html")
    assert "No tick has been finished yet." in found.texts and "There are no sample pictures yet." in found.texts
    assert "None has been computed yet." in found.text


def test_everything_damaged(tmp_path):
    (tmp_path / "training_options.json").write_text('{"total_kimg": ')
    (tmp_path / "stats.jsonl").write_bytes(b'\x00\xff\n[1]\n{"Progress/kimg": "x"}\n' + tick(4).encode() + b'\n{"Progress')
    (tmp_path / "metric-fid50k_full.jsonl").write_text('{"results": null}\n{"results": {"fid50k_full": NaN}, "snapshot_pkl": null}\n{')
    (tmp_path / "fakes000000.png").write_bytes(b"no picture")
    (tmp_path / "reals.png").write_bytes(b"")
    page.write_report(str(tmp_path))
    found = read_page(tmp_path / "report.html")
    for sentence in (
        "training_options.json could not be read",
        "stats.jsonl: 3 lines are cut off",
        "metric-fid50k_full.jsonl: 1 line is",
        "fakes000000.png could not be read",
        "reals.png could not be read",
    ):
        assert sentence in found.text
    assert "not finite" in found.texts  # the metric


def test_odd_options_are_shown_not_trusted(make_run):
    run = make_run(desc="</pre><script>alert(1)</script>")
    options = json.loads((run / "training_options.json").read_text())
    options.update(training_set_kwargs=None, loss_kwargs=["a"], augment_kwargs=3, ada_target="high", total_kimg="many")
    (run / "training_options.json").write_text(json.dumps(options))
    (run / "metric-<b>.jsonl").write_text(metric_line(4, 1.0).replace("fid10k_full", "<i>") + "\n")
    page.write_report(str(run), now=NOW)
    source = (run / "report.html").read_text()
    read_page(run / "report.html")
    assert source.count("<script>") == 1 and "<i>" not in source.split("Metrics</h2>")[1].split("</section>")[0].replace("<i class", "")


def test_commands_of_the_page_can_be_typed(make_run, tmp_path):
    run = make_run(training_set_kwargs=dict(path="toys.zip", resolution=16, use_labels=True))
    run = run.rename(tmp_path / "my runs")
    page.write_report(str(run), now=NOW)
    found = read_page(run / "report.html")
    network = f"'--network={run / 'network-snapshot-000008.pkl'}'"
    assert f"python calc_metrics.py --metrics=fid50k_full {network}" in found.texts
    assert f"python generate.py --outdir=out --seeds=0-7 --sheet {network}\npython calc_metrics.py --metrics=fid50k_full {network}" in found.texts


def test_a_long_run_stays_small(make_run):
    run = make_run(kimgs=tuple(range(0, 100, 4)), total_kimg=25000)
    with open(run / "stats.jsonl", "w") as file:
        for kimg in range(3000):
            file.write(tick(kimg + 1, **{f"Other/{index}": math.sin(kimg * index) for index in range(10)}) + "\n")
    for kimg in range(0, 100, 4):
        write_grid(run / f"fakes{kimg:06d}.png", columns=12, rows=12, resolution=64, seed=kimg)
    options = json.loads((run / "training_options.json").read_text())
    options["training_set_kwargs"]["resolution"] = 64
    (run / "training_options.json").write_text(json.dumps(options))
    (run / "metric-fid10k_full.jsonl").write_text("".join(metric_line(kimg, 100 / (kimg + 1)) + "\n" for kimg in range(0, 2000, 4)))
    write_noisy_diversity(run)
    page.write_report(str(run), now=NOW)
    found = read_page(run / "report.html")
    assert (
        "The least covered real images" in found.texts
        and "20 of 26 times, evenly chosen." in found.text
        and "The newest 200 of 500 lines." in found.text
    )


def test_further_sections(make_run):
    def words(run):
        return markup.Section("words", "Words", f"<p>{markup.text(run.name)} & more</p>".replace("&", "&amp;"))

    run = make_run()
    page.write_report(str(run), section_functions=[*sections.SECTIONS, words, lambda run: None], now=NOW)
    found = read_page(run / "report.html")
    assert "words" in found.anchors and "00000-toys-tiny & more" in found.texts


def test_terms_of_methods_are_drawn_beside_the_penalties(make_run):
    """Loss/D/reg is R1 by the family's name and is drawn once; a run of before has Loss/D/r1 alone."""
    run = make_run()
    stats = {"Loss/r1_penalty": 0.3, "Loss/D/reg": 0.6, "Loss/D/r1": 0.6, "Loss/D/zcr": 0.2, "Loss/G/mode-seeking": 1.1}
    for told, missing in ((stats, ["D: r1", "r1"]), ({"Loss/D/r1": 0.6, "Loss/D/gradient-penalty": 2.0}, ["r1", "R1"])):
        (run / "stats.jsonl").write_text("".join(tick(kimg or 0.008, **told) + "\n" for kimg in (0, 4, 8)))
        page.write_report(str(run), now=NOW)
        found = read_page(run / "report.html")
        assert ("Weighted penalties" in found.texts) and not set(missing) & set(found.texts) and "Other statistics" not in found.texts
        drawn = ["R1", "D: zcr", "G: mode-seeking"] if told is stats else ["D: r1", "D: gradient-penalty"]
        assert all(any(text.startswith(name) for text in found.texts) for name in drawn), found.texts


# ----------------------------------------------------------------------------------------------------------------
# What is no run, or no place to write to.


@pytest.mark.parametrize(
    "alarms, said",
    [
        ((0, 0, 0), "raised no alarm"),
        ((0, 2, 2), "Alarm: cycling at kimg 4, in 2 ticks so far; still in force. Last healthy snapshot: kimg 3."),
        ((0, 1, 0), "Alarm: collapse at kimg 4, in 1 ticks so far; no longer in force."),
    ],
)
def test_the_page_tells_the_monitors_alarm_and_draws_its_numbers(make_run, alarms, said):
    run = make_run()
    lines = [
        tick(kimg or 0.008, **{"MADR/alarm": alarm, "MADR/healthy_kimg": 3.0, "MADR/diversity": 0.9 - 0.3 * alarm, "MADR/turnover": 0.1})
        for kimg, alarm in zip((0, 4, 8), alarms)
    ]
    (run / "stats.jsonl").write_text("\n".join(lines) + "\n")
    cli.call(report.main, [str(run), "--no-diversity"])
    shown = read_page(run / "report.html").text
    assert said in shown and "Diversity of the samples" in shown and "Modes lost" in shown and "healthy_kimg" not in shown


def test_no_run_folder(tmp_path, make_run, capsys):
    run = make_run()
    (tmp_path / "empty").mkdir()
    for place, words in [
        (tmp_path / "nowhere", "is not a folder"),
        (run / "log.txt", "is not a folder"),
        (tmp_path / "empty", "is not a run folder"),
        (tmp_path, f"name one of them: {run}"),
    ]:
        assert cli.call(report.main, [str(place)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: ") and words in error and "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000-toys-tiny", "empty"]


def test_wrong_dest(make_run, tmp_path):
    run = str(make_run())
    with pytest.raises(UserError, match="is a folder; name the file"):
        page.write_report(run, dest=str(tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        page.write_report(run, dest=str(tmp_path / "no" / "page.html"))


# ----------------------------------------------------------------------------------------------------------------
# Reading.


def test_a_run_set_back_keeps_the_later_lines(tmp_path):
    values = [(4, 1.0), (8, 2.0), (12, 3.0), (8, 20.0), (12, 30.0)]
    (tmp_path / "stats.jsonl").write_text("".join(tick(kimg, value=value) + "\n" for kimg, value in values))
    run = run_folder.read_run(str(tmp_path))
    assert run.series["value"] == [(4, 1.0), (8, 20.0), (12, 30.0)]


def test_speed_leaves_out_the_pause_before_a_resume(tmp_path):
    # total_sec counts training time only; timestamps would count the night between.
    (tmp_path / "stats.jsonl").write_text("".join(tick(kimg) + "\n" for kimg in (4, 8, 12)))
    (tmp_path / "training_options.json").write_text('{"total_kimg": 20}')
    run = run_folder.read_run(str(tmp_path))
    assert run_folder.seconds_per_kimg(run) == 20 and run_folder.remaining_sec(run) == 160


def test_a_tick_without_a_report_is_no_gap(tmp_path):
    lines = [tick(4, pl=1.0), tick(8, pl=1.0).replace('"pl": {"num": 1, "mean": 1.0', '"pl": {"num": 0, "mean": NaN'), tick(12, pl=float("nan"))]
    (tmp_path / "stats.jsonl").write_text("\n".join(lines))
    points = run_folder.read_run(str(tmp_path)).series["pl"]
    assert [x for x, _ in points] == [4, 12] and math.isnan(points[1][1])


def test_facts_are_split():
    shared, own = curves.split_facts([dict(seed=0, data=dict(name="a", n=1)), dict(seed=0, data=dict(name="a", n=2))])
    assert shared == {"seed": 0, "data.name": "a"} and own == [{"data.n": 1}, {"data.n": 2}]
    assert curves.split_facts([dict(seed=0), None]) == ({}, [{"seed": 0}, {}])


# ----------------------------------------------------------------------------------------------------------------
# Charts.


def svg_of(lines, **options):
    return xml.etree.ElementTree.fromstring(charts.line_chart(lines, "x", "y", **options))


def test_line_lies_where_the_numbers_are():
    root = svg_of([("a", [(0, 0.0), (5, 10.0), (10, 5.0)])])
    path = next(element for element in root.iter("path"))
    corners = [tuple(map(float, pair.split())) for pair in path.get("d")[1:].split("L")]
    right, bottom = charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM
    assert corners == [(charts.LEFT, bottom), ((charts.LEFT + right) / 2, charts.TOP), (right, (charts.TOP + bottom) / 2)]


def test_gaps_break_the_line():
    root = svg_of([("a", [(0, 1), (1, 2), (2, float("nan")), (3, 1), (4, float("inf")), (5, 1), (6, 2)])])
    assert next(root.iter("path")).get("d").count("M") == 2 and len(list(root.iter("circle"))) == 1
    assert charts.line_chart([("a", [(0, float("nan"))])], "x", "y") is None


def test_wide_ranges_get_a_logarithmic_axis():
    points = [(index, 10.0**index) for index in range(5)]
    assert "log scale" in charts.line_chart([("a", points)], "x", "y")
    assert "log scale" not in charts.line_chart([("a", [(-1, 0.0), *points])], "x", "y")


@pytest.mark.parametrize("low, high", [(0, 1), (-1, 1), (3.2, 3.9), (1e-7, 2e-7), (0, 123456), (5, 5), (0, 0), (-7, -7), (1.3094, 1.3105)])
def test_ticks_are_round_and_apart(low, high):
    ticks = charts.nice_ticks(low, high)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 0.011 * step and ticks[-1] >= high - 0.011 * step and 2 <= len(ticks) <= 8
    labels, power = charts.tick_labels(ticks)
    assert len(set(labels)) == len(labels) and max(map(len, labels)) <= 7
    assert np.allclose([float(label.replace("−", "-")) * 10.0**power for label in labels], ticks, atol=step * 1e-6)


@pytest.mark.parametrize("low, high", [(0.016, 1), (0, 25000), (1000.1, 1004.1), (5003, 5008), (25000, 25000.5)])
def test_a_run_that_begins_late_has_numbers_below_its_curves(low, high):
    svg = charts.line_chart([("a", [(low, 1.0), (high, 2.0)])], "x", "y")
    numbers = [float(label) for label in re.findall(r'text-anchor="middle">([0-9.]+)</text>', svg)]
    assert 2 <= len(set(numbers)) == len(numbers) and low - 0.016 <= min(numbers) and max(numbers) <= high


def test_thinning_keeps_peaks_and_the_end():
    points = [(x, math.sin(x / 50)) for x in range(10_000)]
    points[4321] = (4321, 99.0)
    points[4322] = (4322, -99.0)
    thin = charts.thin_out(points)
    assert len(thin) <= charts.MAX_POINTS + 2 and (4321, 99.0) in thin and (4322, -99.0) in thin and thin[-1] == points[-1]
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)


@pytest.mark.parametrize(
    "value, shown",
    [(0, "0"), (1, "1"), (-0.25, "−0.25"), (1234.5, "1234"), (0.00001234, "1.234e−5"), (2e7, "2e7"), (float("nan"), "not finite"), (None, "–")],
)
def test_numbers(value, shown):
    assert charts.format_number(value) == shown


# ----------------------------------------------------------------------------------------------------------------
# Pictures.


def test_tiles_of_a_grid(tmp_path):
    sheet = np.zeros([32 * 16, 20 * 16, 3], np.uint8)
    for row in range(32):
        for column in range(20):
            sheet[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = (row, column, 7)
    PIL.Image.fromarray(sheet).save(tmp_path / "grid.png")
    first = pictures.read_sheet(tmp_path / "grid.png", 16).tiles
    assert (
        first.shape == (12, 12, 16, 16, 3)
        and (first[:, :, 0, 0, 0] == np.arange(12)[:, None]).all()
        and (first[:, :, 5, 5, 1] == np.arange(12)).all()
    )
    spread = pictures.read_sheet(tmp_path / "grid.png", 16, rows_are_classes=True).tiles
    assert spread[0, 0, 0, 0, 0] == 0 and spread[-1, 0, 0, 0, 0] == 31
    whole = pictures.read_sheet(tmp_path / "grid.png", 100).tiles
    assert whole.shape == (1, 1, 512, 512, 3)


def test_large_images_become_small_tiles(tmp_path):
    write_grid(tmp_path / "grid.png", columns=7, rows=4, resolution=256)
    assert pictures.read_sheet(tmp_path / "grid.png", 256).pixels.shape == (512, 512, 3)


def test_strip_shows_each_time(tmp_path):
    sheets = [pictures.Sheet(np.full([4, 5, 16, 16, 3], value, np.uint8)) for value in (0, 100, 200)]
    strip = pictures.over_time(sheets)
    assert strip.shape == (5 * 64, 3 * 64, 3) and [strip[0, x, 0] for x in (0, 64, 128)] == [0, 100, 200]
    assert pictures.over_time(sheets[:1]) is None


def test_jpeg_keeps_to_its_size():
    noise = np.random.RandomState(0).randint(0, 256, [512, 512, 3]).astype(np.uint8)
    assert len(pictures.jpeg_address(noise, 40_000)) < 40_000 * 4 / 3 + 100
