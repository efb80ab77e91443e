"""Line charts as inline SVG: numbers in, text out. Colours come from the page's style sheet, so that light and dark both work.

Must not know where the numbers come from.
"""

import html
import math

WIDTH, HEIGHT = 440, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 42
MAX_POINTS = 240  # per line; longer ones keep the lowest and the highest value of each stretch
MIN_SPAN = 0.02  # of the largest value: an axis of values shows at least this much, or rounding would look like a trend
LOG_RATIO = 1000  # positive values that span more than this are drawn on a logarithmic axis
COLOURS = 6  # classes s0 ... s5 of the style sheet


def format_number(value):
    """Four significant digits, without superfluous zeros."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")
    text = f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")


def nice_ticks(low, high, count=5, min_span=MIN_SPAN):
    """Round numbers (steps of 1, 2 or 5 times a power of ten) around [low, high], which may stick out by a hundredth of a step."""
    least = min_span * max(abs(low), abs(high)) or float(low == high)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 0.01), math.ceil(high / step - 0.01)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low, high):
    """Powers of ten around [low, high], at most seven."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 6))
    return [10.0**exponent for exponent in range(first, last + stride, stride)]


def tick_labels(ticks):
    """Texts of evenly spaced ticks with the decimals that tell them apart, and the power of ten taken out of them (0: none)."""
    largest = max(abs(tick) for tick in ticks)
    power = math.floor(math.log10(largest)) if largest and not 0.01 <= largest < 1e5 else 0
    scaled = [tick / 10.0**power for tick in ticks]
    step = scaled[1] - scaled[0] if len(scaled) > 1 else None
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else None
    texts = [format_number(value) if decimals is None else f"{value:.{decimals}f}" for value in scaled]
    return ["0" if float(label.replace("−", "-")) == 0 else label.replace("-", "−") for label in texts], power


def thin_out(points, max_points=MAX_POINTS):
    """At most about max_points of [(x, y)]: of each stretch the lowest and the highest, in order; gaps (non-finite y) stay gaps."""
    if len(points) <= max_points:
        return points
    stretch = math.ceil(len(points) / (max_points // 2))
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        finite = [point for point in part if math.isfinite(point[1])]
        if not finite:
            kept.append(part[0])
            continue
        kept += sorted({min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])})
    kept[-1] = points[-1]
    return kept


def line_chart(lines, x_label, y_label, marks=False, reference=None, y_range=None):
    """SVG of several lines.

    lines: [(name, [(x, y)])], y may be NaN for a gap. marks: a dot at every point. reference: y of a dashed horizontal
    line. y_range: (low, high) that the axis shows at least. None when no value is finite.
    """
    lines = [(name, thin_out(points)) for name, points in lines]
    finite = [(x, y) for _, points in lines for x, y in points if math.isfinite(y)]
    if not finite:
        return None
    ys = [y for _, y in finite] + ([] if reference is None else [reference]) + list(y_range or [])
    is_log = min(ys) > 0 and max(ys) / min(ys) > LOG_RATIO
    y_ticks = log_ticks(min(ys), max(ys)) if is_log else nice_ticks(min(ys), max(ys))
    xs = [x for x, _ in finite]
    x_low, x_high = min(xs), max(xs)
    if 0 < x_low < 0.1 * x_high:
        x_low = 0  # the first tick ends after one step
    if x_high <= x_low:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    x_ticks = [tick for tick in nice_ticks(x_low, x_high, min_span=0) if x_low - 1e-9 <= tick <= x_high + 1e-9]
    if len(set(xs)) == 1:
        x_ticks = [xs[0]]

    def place_x(x):
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def place_y(y):
        low, high, y = (math.log10(y_ticks[0]), math.log10(y_ticks[-1]), math.log10(y)) if is_log else (y_ticks[0], y_ticks[-1], y)
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    y_texts, power = ([format_number(tick) for tick in y_ticks], 0) if is_log else tick_labels(y_ticks)
    shown_label = y_label + (", log scale" if is_log else "") + (f", × 1e{power}".replace("-", "−") if power else "")
    x_texts, x_power = tick_labels(x_ticks)
    shown_x_label = x_label + (f", × 1e{x_power}".replace("-", "−") if x_power else "")
    x_axis = [(place_x(tick), label) for tick, label in zip(x_ticks, x_texts, strict=True)]
    parts = _axes(x_axis, [(place_y(tick), label) for tick, label in zip(y_ticks, y_texts, strict=True)], shown_x_label, shown_label)
    if reference is not None:
        y = f"{place_y(reference):.1f}"
        parts.append(f'<line class="ref" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
    for index, (_, points) in enumerate(lines):
        parts.append(_line(points, place_x, place_y, f"s{index % COLOURS}", marks))
    summary = "; ".join(f"{name}: {_summary(points)}" for name, points in lines)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(f"{y_label} over {x_label}. {summary}", quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )


def _summary(points):
    finite = [y for _, y in points if math.isfinite(y)]
    if not finite:
        return "no finite value"
    return (
        f"from {format_number(finite[0])} to {format_number(finite[-1])}, lowest {format_number(min(finite))}, highest {format_number(max(finite))}"
    )


def _axes(x_axis, y_axis, x_label, y_label):
    """x_axis, y_axis: [(place in the picture, text)]."""
    parts = []
    for y, label in y_axis:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for x, label in x_axis:
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{label}</text>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(f'<text class="label" x="{middle_x:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}</text>')
    parts.append(f'<text class="label" transform="translate(12 {middle_y:.0f}) rotate(-90)" text-anchor="middle">{html.escape(y_label)}</text>')
    return parts


def _line(points, place_x, place_y, css_class, marks):
    """One path, broken at gaps; a dot where a piece is a single point, or at every point with `marks`."""
    pieces, dots = [[]], []
    for x, y in points:
        if math.isfinite(y):
            pieces[-1].append((place_x(x), place_y(y)))
        elif pieces[-1]:
            pieces.append([])
    for piece in pieces:
        dots += piece if marks or len(piece) == 1 else []
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in piece) for piece in pieces if len(piece) > 1)
    return (f'<path class="{css_class}" d="{path}"/>' if path else "") + "".join(
        f'<circle class="{css_class}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>' for x, y in dots
    )
