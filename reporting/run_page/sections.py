"""The parts of the page: each a function of a RunFolder that gives a Section, or None when the run has nothing to say on it.

Another part is another function in a list: page.render(run, [*SECTIONS, mine]).
"""

import datetime
import os
import shlex

import dnnlib
from reporting import run_folder
from reporting.run_page import curves, diversity_sections, pictures
from reporting.run_page.charts import format_number
from reporting.run_page.markup import Section, as_json, code, details, file_size, pairs, table, text

PICTURE_BYTES = 2_400_000  # of all pictures, before base64 makes them a third larger
MAX_FRAMES = 20
# What a run notes of itself (training/provenance.py) -> its name on the page.
PROVENANCE = {"num_images": "Images", "python": "Python", "torch": "PyTorch", "numpy": "NumPy", "device": "Device", "system": "System"}


# ----------------------------------------------------------------------------------------------------------------
# How it stands.


def overview_section(run):
    status = run_folder.status(run)
    kimg, total = run.last("Progress/kimg"), run.total_kimg
    share = min(kimg / total, 1) if kimg is not None and total else 0
    remaining = run_folder.remaining_sec(run) if status.kind in ("going", "silent", "stopped") else None
    speed = run_folder.seconds_per_kimg(run)
    elapsed = run.last("Timing/total_sec")
    silence = (
        f" It last wrote {dnnlib.util.format_time(max(run.now - run.last_write, 0))} before."
        if status.kind in ("going", "silent") and run.last_write
        else ""
    )
    facts = pairs(
        [
            ("Shown", None if kimg is None else f"{format_number(kimg)}" + (f" of {total:g}" if total else "") + " kimg"),
            ("Training time", None if elapsed is None else dnnlib.util.format_time(elapsed)),
            ("Speed", None if speed is None else f"{format_number(speed)} s per kimg, all included"),
            ("Still needed", None if remaining is None else f"about {dnnlib.util.format_time(remaining)}" + _end_date(run, status, remaining)),
            ("Newest network", _file_and_size(run, run.networks)),
            ("Newest state", _file_and_size(run, run.states)),
            *_newest_metrics(run),
        ]
    )
    tick = run_folder.last_tick_line(run)
    problems = "".join(f"<li>{text(problem)}</li>" for problem in run.problems)
    body = (
        f'<p class="status {status.kind}"><strong>{text(status.sentence)}</strong>{text(silence)}</p>'
        f'<div class="bar" role="progressbar" aria-label="share of the run" aria-valuenow="{share * 100:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{share * 100:.1f}%"></i></div>{facts}'
        + (code(" ".join(tick.split())) if tick else "")
        + (f'<ul class="problems">{problems}</ul>' if problems else "")
    )
    return Section("overview", "How it stands", body)


def _end_date(run, status, remaining_sec):
    if status.kind != "going":
        return " when it goes on"
    end = datetime.datetime.fromtimestamp(run.now + remaining_sec, datetime.timezone.utc)
    return f", until {end:%Y-%m-%d %H:%M} UTC"


def _file_and_size(run, files):
    if not files:
        return "none yet"
    try:
        size = f" ({file_size(os.path.getsize(os.path.join(run.path, files[-1][1])))})"
    except OSError:  # a run that goes on replaces its states
        size = ""
    return f"<code>{text(files[-1][1])}</code>{size}"


def _newest_metrics(run):
    """(name of the result, HTML) of the newest line of each metric."""
    rows = []
    for lines in run.metrics.values():
        if lines and lines[-1].results:
            name, value = next(iter(lines[-1].results.items()))
            place = f" at {lines[-1].kimg} kimg" if lines[-1].kimg is not None else ""
            rows.append((name, f"{format_number(value)}{place}"))
    return rows


# ----------------------------------------------------------------------------------------------------------------
# Samples.


def samples_section(run):
    """The same latents at several times, reals beside; a strip of a few latents over all times."""
    data = run.part("training_set_kwargs")
    resolution = data.get("resolution") if isinstance(data.get("resolution"), int) and data["resolution"] > 0 else None
    chosen = pictures.evenly(run.fakes, MAX_FRAMES)
    has_reals = os.path.isfile(os.path.join(run.path, "reals.png"))
    names = [name for _, name in chosen] + (["reals.png"] if has_reals else [])
    sheets = pictures.read_sheets(run.path, names, resolution, bool(data.get("use_labels")), run.problems)
    reals = sheets.pop("reals.png", None)
    frames = [(kimg, sheets[name]) for kimg, name in chosen if name in sheets]
    if not frames and reals is None:
        return Section("samples", "Samples", "<p>There are no sample pictures yet.</p>")
    strip = pictures.over_time([sheet for _, sheet in frames]) if frames else None
    max_bytes = PICTURE_BYTES // (len(frames) + (reals is not None) + (strip is not None))
    body = '<div class="viewer">' + _frames(frames, max_bytes) + (_reals(reals, max_bytes) if reals else "") + "</div>"
    if len(run.fakes) > len(chosen):
        body += f"<p>{len(chosen)} of {len(run.fakes)} times, evenly chosen.</p>"
    if strip is not None:
        times = ", ".join("untrained" if kimg is None else f"kimg {kimg}" for kimg, _ in frames)
        body += (
            f'<h3>The same latents over time</h3><div class="scroll strip"><img src="{pictures.jpeg_address(strip, max_bytes)}" '
            f'width="{strip.shape[1]}" height="{strip.shape[0]}" alt="one latent per row, one time per column"></div>'
            f"<p>One latent per row; from left to right {times}.</p>"
        )
    return Section("samples", "Samples", body)


def _frames(frames, max_bytes):
    if not frames:
        return "<p>There are no generated samples yet.</p>"
    figures = []
    for index, (kimg, sheet) in enumerate(frames):
        caption = "Generated, untrained" if kimg is None else f"Generated, kimg {kimg}"
        figures.append(
            f'<figure class="frame{" shown" if index == len(frames) - 1 else ""}">{_picture(sheet, max_bytes, caption)}<figcaption>{caption}</figcaption></figure>'
        )
    control = (
        (
            f'<label class="slider">Time <input type="range" min="0" max="{len(frames) - 1}" value="{len(frames) - 1}" step="1" '
            'aria-label="time of the samples"></label>'
        )
        if len(frames) > 1
        else ""
    )
    return f'<div class="frames">{"".join(figures)}{control}</div>'


def _reals(sheet, max_bytes):
    return f'<figure class="reals">{_picture(sheet, max_bytes, "Reals")}<figcaption>Reals, for comparison</figcaption></figure>'


def _picture(sheet, max_bytes, alt):
    pixels = sheet.pixels
    crisp = ' class="crisp"' if sheet.tiles.shape[2] <= 64 else ""
    return f'<img{crisp} src="{pictures.jpeg_address(pixels, max_bytes)}" width="{pixels.shape[1]}" height="{pixels.shape[0]}" alt="{text(alt)}">'


# ----------------------------------------------------------------------------------------------------------------
# What to do next, settings, files.


def next_section(run):
    """Commands for what people do next with a run in this condition."""
    status = run_folder.status(run)
    path = run.path
    data = run.part("training_set_kwargs")
    parts = []
    if status.kind in ("stopped", "silent", "aborted") and run.states:
        arguments = [f"--outdir={os.path.dirname(os.path.abspath(path))}", f"--data={data.get('path', 'DATA')}", f"--resume={path}"]
        parts.append(
            f"<p>Go on exactly where the newest state was saved (kimg {run.states[-1][0]}):</p>" + code("python train.py " + shlex.join(arguments))
        )
    elif status.kind in ("stopped", "silent", "aborted"):
        parts.append(
            "<p>There is no training state to go on from: start a new run"
            + (", from the newest network with <code>--resume</code>.</p>" if run.networks else ".</p>")
        )
    elif status.kind in ("going", "waiting"):
        parts.append(
            "<p>To stop it without loss, press Ctrl-C once or send SIGTERM: it saves at the next step and exits with code 75; the same "
            "command with <code>--resume=latest</code> goes on.</p>"
        )
    if run.networks:
        network = os.path.join(path, run.networks[-1][1])
        drawn = "--seeds=0-7 --sheet" if data.get("use_labels") else "--seeds=0-63"  # a picture alone needs a label
        parts.append(
            "<p>Draw samples, or measure them:</p>"
            + code(
                f"python generate.py --outdir=out {drawn} {shlex.quote('--network=' + network)}\n"
                f"python calc_metrics.py --metrics=fid50k_full {shlex.quote('--network=' + network)}"
            )
        )
    return Section("next", "What next", "".join(parts)) if parts else None


def settings_section(run):
    options = run.options
    if not options:
        return None
    data, loss, augment = (run.part(name) for name in ("training_set_kwargs", "loss_kwargs", "augment_kwargs"))
    body = pairs(
        [
            ("Data", _code_or_none(data.get("path"))),
            ("Data fingerprint", _code_or_none(_fingerprint(run))),
            ("Resolution", _text_or_none(data.get("resolution"), " px")),
            ("Images at most", _text_or_none(data.get("max_size"))),
            ("Labels, mirrored copies", f"{_yes(data.get('use_labels'))}, {_yes(data.get('xflip'))}"),
            ("Loss", " over ".join(f"<code>{text(name)}</code>" for name in (loss.get("class_name"), loss.get("base_class_name")) if name) or None),
            ("R1 gamma", _text_or_none(loss.get("r1_gamma"))),
            ("Augmentation", "none" if not augment else f"<code>{text(augment.get('class_name'))}</code>"),
            ("ADA target", _text_or_none(options.get("ada_target"))),
            ("Batch", _text_or_none(options.get("batch_size"))),
            ("Processes", _text_or_none(options.get("num_gpus"))),
            ("Seed", _text_or_none(options.get("random_seed"))),
            ("Started from", _code_or_none(options.get("resume_pkl"))),
            ("First tick", _first_tick(run)),
            ("Metrics by torch", _text_or_none(_fact(run, "torch"))),
            ("Version", _text_or_none(run.provenance.get("version"))),
            ("Commit", _commit(run.provenance)),
            *[(label, _text_or_none(run.provenance.get(name))) for name, label in PROVENANCE.items()],
        ]
    )
    return Section("settings", "Settings and provenance", body + details("All of training_options.json", as_json(options)))


def _fact(run, name):
    """A fact of the newest metric line that states it."""
    for lines in run.metrics.values():
        for line in reversed(lines):
            facts = line.line.get("facts")
            if isinstance(facts, dict) and name in facts:
                return facts[name]
    return None


def _fingerprint(run):
    """Of the data when the training last started; without a note of it, of the data that a metric was computed on."""
    data = _fact(run, "data")
    return run.provenance.get("data_fingerprint") or (data.get("fingerprint") if isinstance(data, dict) else None)


def _first_tick(run):
    stamp = run.ticks[0].get("timestamp") if run.ticks else None
    if not run_folder.is_number(stamp) or not 0 < stamp < 2**35:
        return None
    return f"{datetime.datetime.fromtimestamp(stamp, datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"


def _yes(value):
    return "yes" if value else "no"


def _commit(provenance):
    commit = provenance.get("commit")
    return f"{_code_or_none(commit)}, with changes" if commit and provenance.get("code_changed") else _code_or_none(commit)


def _code_or_none(value):
    return None if value is None else f"<code>{text(value)}</code>"


def _text_or_none(value, unit=""):
    return None if value is None else text(value) + unit


def files_section(run):
    """The snapshots that are there, and the end of the log."""
    states, networks = dict(run.states), dict(run.networks)
    rows = [
        [str(kimg), *(f"<code>{text(of[kimg])}</code>" if kimg in of else "–" for of in (networks, states))]
        for kimg in sorted({*states, *networks}, reverse=True)
    ]
    body = f"<p>In <code>{text(run.path)}</code></p>"
    snapshots_table = table(rows, ["kimg", "network", "state"])
    body += (snapshots_table if len(rows) <= 8 else details(f"All {len(rows)} snapshots", snapshots_table)) if rows else "<p>No snapshot yet.</p>"
    if run.log_tail:
        body += details("The end of log.txt", code("\n".join(line[:400] for line in run.log_tail[-40:])))
    return Section("files", "Files", body)


SECTIONS = [
    overview_section,
    samples_section,
    diversity_sections.coverage_section,
    diversity_sections.modes_section,
    diversity_sections.copies_section,
    curves.metrics_section,
    curves.diversity_section,
    curves.training_section,
    curves.cost_section,
    curves.other_section,
    next_section,
    settings_section,
    files_section,
]
