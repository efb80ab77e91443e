"""Small pieces of HTML that the sections share. Everything that comes from a run folder goes through `text` first.

Must not know runs.
"""

import html
import json
from dataclasses import dataclass

from reporting.run_page import charts

KIMG = "real images shown (kimg)"
MAX_JSON = 100_000  # characters


@dataclass(frozen=True)
class Section:
    """One part of the page. address: its id within the page; body: HTML."""

    address: str
    title: str
    body: str


def text(value):
    return html.escape(str(value), quote=True)


def table(rows, head=None, css_class=""):
    """Rows of cells that are HTML already."""
    parts = [f'<div class="scroll"><table class="{css_class}">']
    if head:
        parts.append("<thead><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr></thead>")
    parts.append("<tbody>" + "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows) + "</tbody></table></div>")
    return "".join(parts)


def pairs(rows):
    """A definition list of (name, HTML), without those whose value is None."""
    return "<dl>" + "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in rows if value is not None) + "</dl>"


def details(summary, body, css_class=""):
    return f'<details class="{css_class}"><summary>{summary}</summary>{body}</details>'


def code(line):
    return f"<pre><code>{text(line)}</code></pre>"


def as_json(value):
    written = json.dumps(value, indent=2, ensure_ascii=False)
    return code(written if len(written) <= MAX_JSON else written[:MAX_JSON] + "\n... (cut off here)")


def chart(title, lines, y_label, note="", reference=None, **options):
    """A figure with a legend that states the newest values; '' when there is no finite value. reference: (y, name) of a dashed line."""
    svg = charts.line_chart(lines, KIMG, y_label, reference=reference[0] if reference else None, **options)
    if svg is None:
        return ""
    legend = "".join(
        f'<span><i class="s{index % charts.COLOURS}"></i>{text(name)} <b>{charts.format_number(points[-1][1])}</b></span>'
        for index, (name, points) in enumerate(lines)
        if points
    )
    if reference:
        legend += f'<span><i class="dashed"></i>{text(reference[1])} <b>{charts.format_number(reference[0])}</b></span>'
    note = f"<p>{text(note)}</p>" if note else ""
    return f'<figure class="chart"><figcaption>{text(title)}</figcaption><div class="legend">{legend}</div>{svg}{note}</figure>'


def file_size(num_bytes):
    for unit in ("bytes", "KB", "MB", "GB"):
        if num_bytes < 1024 or unit == "GB":
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
