"""What report.py has found out about a snapshot's diversity: the map of coverage, what is missing, classes, modes, near copies.

Draws the arrays of a DiversityFile. Must not know how they are computed.
"""

import math
import shlex

import numpy as np

from reporting.run_page import pictures
from reporting.run_page.charts import format_number
from reporting.run_page.markup import Section, code, details, pairs, table, text

MAP_WIDTH, MAP_HEIGHT, MAP_RIM = 760, 420, 10
FAR = 2.0  # radii: beyond this a real is far from every generated image
MAX_PICTURE_BYTES = 8000
MAX_CLASS_ROWS = 20
CELL = 22  # of the modes grid, in units of the drawing
ENOUGH_CONFIDENCE = 0.9  # of the confidence on real digits, as in the modes metric
_FEW, _MANY = 0.5, 2.0  # of the expected count of a mode


def _number(value):
    """A count with its thousands set apart."""
    return f"{value:,}".replace(",", "\u202f")


def _command(run):
    return code(f"python report.py {shlex.quote(run.path)}")


def _intro(run):
    """Of which snapshot the numbers are, and in which space."""
    found = run.diversity
    facts = found.facts
    space = f"<code>{text(facts['space'])}</code>" + (f" ({text(facts['space_reason'])})" if facts.get("space_reason") else "")
    rows = [
        ("Snapshot", f"kimg {found.kimg}"),
        ("Generated images", _number(facts["num_gen"])),
        ("Reals compared", f"{_number(facts['num_real'])} of {_number(facts['num_images'])}" if "num_real" in facts else None),
        ("Feature space", space),
    ]
    notes = []
    if run.networks and run.networks[-1][0] != found.kimg:
        notes.append(f"The newest network is that of kimg {run.networks[-1][0]}; <code>report.py</code> brings this part up to date.")
    if facts.get("own_space"):
        notes.append(f"The network was trained to cover the features of {text(facts['trained_in'])}, which is this space: the numbers flatter it.")
    trained_on = run.provenance.get("data_fingerprint")
    if trained_on and trained_on != facts["fingerprint"]:
        notes.append("The data set is not the one that the run was trained on: its fingerprint differs.")
    notes += [text(problem) for problem in facts["problems"]]
    return pairs(rows) + "".join(f'<p class="note">{note}</p>' for note in notes)


# ----------------------------------------------------------------------------------------------------------------
# Coverage and what is missing.


def coverage_section(run):
    found = run.diversity
    if found is None:
        why = (
            "It takes a minute or more, so training leaves it out. This adds it:"
            if run.networks
            else "Once there is a network snapshot, this adds it:"
        )
        return Section(
            "coverage",
            "What is missing",
            f"<p>Not looked at yet: which real images the generator misses, a map of coverage, copies of training images. {why}</p>" + _command(run),
        )
    if "map_real" not in found:
        return Section("coverage", "What is missing", _intro(run))
    body = f'<p class="status">{missing_sentence(found)}</p>' + _intro(run) + _map(found)
    if len(found["missing_ratio"]):
        body += _missing_pairs(found)
    if "class_total" in found and "modes_counts" not in found:
        body += _class_table(found)
    return Section("coverage", "What is missing", body)


def missing_sentence(found):
    """HTML that says in words how much is missing, and which classes."""
    facts = found.facts
    coverage, expected = facts["coverage"], facts["expected_coverage"]
    error = math.sqrt(expected * (1 - expected) / facts["num_real"])
    counts = (
        f"{_number(facts['num_missed'])} of {_number(facts['num_real'])} reals have no generated image within their neighbourhood "
        f"(up to their {facts['k']}th-nearest other real); a perfect generator would miss about {_number(round((1 - expected) * facts['num_real']))}."
    )
    if coverage < expected - 3 * error:
        verdict = f"{1 - coverage / expected:.0%} of what a perfect generator would cover is missing."
    else:
        verdict = "Nothing is clearly missing."
    sentence = f"<strong>{verdict}</strong> {counts}"
    if "class_below" in found and "modes_counts" not in found:
        below = found["class_below"]
        names = [f"{text(class_name(found, index))} ({found['class_coverage'][index]:.0%})" for index in below[:5]]
        more = f" and {len(below) - 5} more" if len(below) > 5 else ""
        sentence += f" Least covered classes: {', '.join(names)}{more}." if names else " No class is clearly below the others."
    return sentence


def class_name(found, index):
    names = found.facts.get("class_names")
    return names[index] if names and index < len(names) else f"class {index}"


def _map(found):
    """Reals and generated images in the plane where the reals vary most; one path per colour, a dot being a line without length."""
    real, fake, ratio = found["map_real"], found["map_fake"], found["map_ratio"]
    # A few strays must not squeeze the rest into a corner.
    low = np.minimum(np.percentile(real, 0.2, axis=0), np.percentile(fake, 2, axis=0))
    high = np.maximum(np.percentile(real, 99.8, axis=0), np.percentile(fake, 98, axis=0))
    span = np.where(high > low, high - low, 1)
    scale = np.array([MAP_WIDTH - 2 * MAP_RIM, MAP_HEIGHT - 2 * MAP_RIM])

    def dots(points, css_class):
        places = np.clip((points - low) / span, 0, 1) * scale + MAP_RIM
        steps = "".join(f"M{x:.0f} {MAP_HEIGHT - y:.0f}h0" for x, y in places)
        return f'<path class="dots {css_class}" d="{steps}"/>' if steps else ""

    kinds = [("s0", "covered", ratio <= 1), ("s1", f"up to {FAR:g} radii away", (ratio > 1) & (ratio <= FAR)), ("s5", "farther", ratio > FAR)]
    drawn = dots(fake, "fakes") + "".join(dots(real[mask], css_class) for css_class, _, mask in kinds)
    legend = "".join(f'<span class="key"><i class="dot {css_class}"></i>{name} <b>{mask.mean():.0%}</b></span>' for css_class, name, mask in kinds)
    legend += '<span class="key"><i class="dot fakes"></i>generated</span>'
    return (
        f'<figure class="map"><figcaption>Map of coverage</figcaption><div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" role="img" aria-label="real images by how near a generated image comes">{drawn}</svg>'
        f"<p>A dot is an image, placed by the two principal components of the real features; images far apart in other directions may lie together here. "
        f"Colour: distance to the nearest generated image in units of the real's radius, the distance to its {found.facts['k']}th-nearest other real.</p></figure>"
    )


def _missing_pairs(found):
    cards = []
    for index, ratio in enumerate(found["missing_ratio"]):
        has_class = "missing_class" in found and "modes_counts" not in found
        note = text(class_name(found, int(found["missing_class"][index]))) if has_class else f"image {found['missing_item'][index]}"
        cards.append(_pair(found["missing_real"][index], found["missing_fake"][index], f"<b>{float(ratio):.2f}</b> radii", note))
    return (
        "<h3>The least covered real images</h3><p>Each beside the generated image that comes nearest, and how far that is in units of the real's radius "
        "(1: just covered). Of reals within each other's radius only the worst is shown.</p>" + _sheet(cards, "real", "nearest generated")
    )


def _sheet(cards, left, right):
    return f'<p class="sides"><span>left: {left}</span><span>right: {right}</span></p><div class="pairs">{"".join(cards)}</div>'


def _pair(left, right, caption, note):
    return f'<figure class="pair">{picture_of(left)}{picture_of(right)}<figcaption>{caption}<br>{note}</figcaption></figure>'


def picture_of(image_CSS):
    """Make an <img> of uint8 [C, S, S], shown 64 pixels wide."""
    pixels = np.moveaxis(image_CSS, 0, 2)
    pixels = np.ascontiguousarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels)
    return f'<img class="crisp" src="{pictures.jpeg_address(pixels, MAX_PICTURE_BYTES)}" width="64" height="64" alt="" loading="lazy">'


def _class_table(found):
    total, share = found["class_total"], found["class_coverage"]
    order = [index for index in np.argsort(np.nan_to_num(share, nan=2.0), kind="stable") if total[index]]
    below = set(found["class_below"].tolist())
    rows = [
        [
            text(class_name(found, index)),
            _number(int(total[index])),
            f'<span class="share"><i style="width:{share[index] * 100:.0f}%"></i></span> {share[index]:.0%}',
            "clearly below" if index in below else "",
        ]
        for index in order[:MAX_CLASS_ROWS]
    ]
    which = f"The {len(rows)} least covered of {len(order)} classes; a" if len(rows) < len(order) else "A"
    return f"<h3>Coverage per class</h3><p>{which} perfect generator would cover {found.facts['expected_coverage']:.0%} of each.</p>" + table(
        rows, ["class", "reals", "covered", ""], "numbers"
    )


# ----------------------------------------------------------------------------------------------------------------
# Modes of stacked digits.


def modes_section(run):
    found = run.diversity
    if found is None or "modes_counts" not in found:
        return None
    facts, counts, expected = found.facts["modes"], found["modes_counts"].reshape(10, 10, 10), found["modes_expected"].reshape(10, 10, 10)
    unsure = facts["confidence"] < ENOUGH_CONFIDENCE * facts["real_confidence"]
    perfect = f"a perfect generator would reach about {facts['floor_modes']:.0f} with as many images"
    body = (
        f'<p class="status"><strong>{facts["modes"]} of {facts["num_modes"]} modes</strong> in {_number(found.facts["num_gen"])} generated images; {perfect}.</p>'
        + (
            f'<p class="note">The classifier is {facts["confidence"]:.2f} sure of the generated digits, {facts["real_confidence"]:.2f} of real ones: many images '
            "show no digits, and the modes counted for them mean little.</p>"
            if unsure
            else ""
        )
        + pairs(
            [
                ("With 5 images or more", str(facts["modes_5hits"])),
                ("KL", f"{format_number(facts['kl'])} nats to the {text(facts['reference'])} distribution"),
                ("KL of a perfect generator", f"{format_number(facts['floor_kl'])} nats"),
                ("Snapshot", f"kimg {found.kimg}"),
            ]
        )
        + '<div class="legend">'
        + "".join(
            f'<span class="key"><i class="cell m{level}"></i>{name}</span>'
            for level, name in enumerate(("missing", "under half", "as expected", "over twice"))
        )
        + "</div>"
        + '<div class="modes">'
        + "".join(_panel(red, counts[red], expected[red]) for red in range(10))
        + "</div>"
        + "<p>Images per mode. One panel per digit in the red channel; rows: green, columns: blue, from 0 to 9. Empty: not in the data set.</p>"
    )
    return Section("modes", "Modes", body)


def _panel(red, counts, expected):
    cells = {}
    labels = []
    for green in range(10):
        for blue in range(10):
            count, wanted = int(counts[green, blue]), float(expected[green, blue])
            if wanted == 0 and count == 0:
                continue
            level = 0 if count == 0 else 1 if count < _FEW * wanted else 2 if count <= _MANY * wanted else 3
            x, y = blue * CELL + 1, green * CELL + 1
            cells.setdefault(level, []).append(f"M{x} {y}h{CELL - 2}v{CELL - 2}h-{CELL - 2}z")
            shown = str(count) if count < 1000 else f"{count // 1000}k"
            labels.append(f'<text class="t{level}" x="{x + CELL // 2 - 1}" y="{y + 14}">{shown}</text>')
    paths = "".join(f'<path class="cell m{level}" d="{"".join(parts)}"/>' for level, parts in sorted(cells.items()))
    num_missing = int(((counts == 0) & (expected > 0)).sum())
    return (
        f'<figure><figcaption>red {red} <span>{num_missing} missing</span></figcaption><svg viewBox="0 0 {10 * CELL} {10 * CELL}" role="img" '
        f'aria-label="modes with red digit {red}: {num_missing} missing">{paths}{"".join(labels)}</svg></figure>'
    )


# ----------------------------------------------------------------------------------------------------------------
# Near copies.


def copies_section(run):
    found = run.diversity
    if found is None or "copies_ratio" not in found:
        return None
    cards = []
    for index, ratio in enumerate(found["copies_ratio"]):
        note = "mirrored, " if found["copies_mirrored"][index] else ""
        suspect = " <mark>suspect</mark>" if found["copies_suspect"][index] else ""
        caption, note = f"<b>{float(ratio):.2f}</b>{suspect}", f"{note}image {found['copies_item'][index]}"
        cards.append(_pair(found["copies_fake"][index], found["copies_real"][index], caption, note))
    explanation = "The generated images that come nearest to a training image, the most suspicious first; each training image once."
    meaning = details(
        "What the number means",
        "<p>Difference of the pixels at 32 px at most (the least over mirroring and shifts by a pixel), in units of the difference "
        "between that training image and its third-nearest other one. How small it gets by chance is learned from the training images, each looked up among "
        "the others.</p>",
    )
    body = f'<p class="status">{copies_sentence(found)}</p><p>{explanation}</p>' + _sheet(cards, "generated", "nearest training image") + meaning
    return Section("copies", "Copies of training images", body)


def copies_sentence(found):
    facts, num_gen = found.facts["memorisation"], _number(found.facts["num_gen"])
    of_all = f" of {_number(found.facts['num_images'])}" if facts["num_searched"] < found.facts["num_images"] else ""
    searched = f"{_number(facts['num_searched'])}{of_all} training images"
    if not facts["num_asked"]:
        return (
            f"<strong>Not told.</strong> With {searched} one cannot learn how near chance brings two images; at least {facts['fewest']} are needed."
        )
    if facts["num_copies"]:
        return f"<strong>{facts['num_copies']} of {num_gen} generated images are copies.</strong> They are nearer to one of {searched} than chance allows."
    if facts["num_suspects"]:
        return (
            f"<strong>No copies beyond the set's own duplicates.</strong> {facts['num_suspects']} of {num_gen} generated images nearly equal a training image, "
            f"but so do {facts['num_twins']} of {_number(facts['num_asked'])} training images among themselves."
        )
    return f"<strong>No copies.</strong> None of {num_gen} generated images is nearer to one of {searched} than chance allows."
