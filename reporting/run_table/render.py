"""A Table as Markdown, CSV or LaTeX text. Same table, same bytes: no dates, no machine, fixed formats and order."""

import csv
import io
import math

from metrics import comparison

HEAD = ("result", "at", "method", "seeds", "mean", "std. error", "difference", "{level} interval", "pairs")
_MAX_HASH = 12
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def render(table, form):
    return {"markdown": as_markdown, "csv": as_csv, "latex": as_latex}[form](table)


def number(value, sign=""):
    """Four significant digits, without an exponent where the size allows."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        digits = 0 if abs(value) >= 1000 else 3 - math.floor(math.log10(abs(value))) if value else 3
        return f"{value:{sign}.{max(digits, 0)}f}"
    return f"{value:{sign}.3e}"


def statements(table):
    """What the reader must know of every number, in sentences."""
    choices = table.choices
    where = (
        "equal kimg (stated per result)"
        if choices.at == "kimg"
        else "equal training time (stated per result; as each run measured it in stats.jsonl, without snapshots and evaluations)"
    )
    told = [f"Each run counts with its {choices.policy} line up to {where}. Mean and standard error (s / sqrt n) are over seeds."]
    if choices.policy == "best":
        told += [f"Best of {metric}: the snapshot with the {which} {result}." for metric, (result, which) in table.deciders.items()]
        told.append("A best line is chosen by the very numbers that are reported, which flatters every method.")
    if choices.baseline is not None:
        told.append(
            f"Differences are to {choices.baseline}, paired by seed; the interval is Student's t over those pairs at {comparison.LEVEL:.0%}, none for a single pair."
        )
    return told


def _cells(table, row, is_baseline):
    interval = "-" if row.interval is None else f"[{number(row.interval[0], '+')}, {number(row.interval[1], '+')}]"
    return [
        row.result,
        row.point,
        row.method,
        str(len(row.values)),
        number(row.mean),
        number(row.std_error),
        "baseline" if is_baseline else number(row.difference, "+"),
        interval,
        str(row.pairs) if row.pairs else "-",
    ]


def _head():
    return [title.format(level=f"{comparison.LEVEL:.0%}") for title in HEAD]


def _run_cells(table, run):
    plain = lambda value: "-" if value is None else f"{value:g}"
    used = ", ".join(f"{metric} {kimg}" for metric, kimg in table.used.get(run.name, {}).items())
    return [run.method, str(run.seed), run.name, plain(run.kimg), plain(run.total_kimg), used or "none"]


def _short(value):
    """JSON text of a fact; hashes by their beginning."""
    return f"{value[1 : _MAX_HASH + 1]}..." if len(value) == 66 and value[1:-1].isalnum() else value.strip('"')


def as_markdown(table):
    parts = [" ".join(statements(table))]
    if table.forced:
        parts.append("**Forced: these numbers are not alike.** " + "; ".join(table.forced) + ".")
    parts.append(_markdown_table(_head(), [_cells(table, row, row.method == table.choices.baseline) for row in table.rows]))
    parts.append(
        "Runs:\n\n" + _markdown_table(["method", "seed", "run", "kimg", "of", "line used (kimg)"], [_run_cells(table, run) for run in table.runs])
    )
    facts = [
        f"- {metric}: " + "; ".join(f"{name} {_short(value)}" for name, value in facts.items() if value != "null")
        for metric, facts in table.facts.items()
        if facts
    ]
    if facts:
        parts.append("What the numbers depend on, the same in all lines:\n\n" + "\n".join(facts))
    if table.notes:
        parts.append("Notes:\n\n" + "\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _markdown_table(head, rows):
    escape = lambda cell: cell.replace("|", "\\|").replace("\n", " ")
    line = lambda cells: "| " + " | ".join(map(escape, cells)) + " |"
    rule = "|" + "---|" * len(head)
    return "\n".join([line(head), rule, *map(line, rows)])


def as_csv(table):
    """One line per result and method with all digits; what holds for the whole table is repeated in every line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "metric",
            "result",
            "policy",
            "at",
            "point",
            "method",
            "baseline",
            "n",
            "mean",
            "std_error",
            "difference",
            "interval_low",
            "interval_high",
            "interval_level",
            "pairs",
            "seeds",
            "values",
            "kimgs",
            "forced",
            "notes",
        ]
    )
    plain = lambda value: "" if value is None else repr(value)
    forced, notes = "; ".join(table.forced), " ".join(table.notes)
    for row in table.rows:
        low, high = row.interval or (None, None)
        writer.writerow(
            [
                row.metric,
                row.result,
                table.choices.policy,
                table.choices.at,
                row.point,
                row.method,
                table.choices.baseline or "",
                len(row.values),
                plain(row.mean),
                plain(row.std_error),
                plain(row.difference),
                plain(low),
                plain(high),
                comparison.LEVEL if row.interval else "",
                row.pairs or "",
                " ".join(map(str, row.values)),
                " ".join(map(repr, row.values.values())),
                " ".join(map(str, row.kimgs)),
                forced,
                notes,
            ]
        )
    return text.getvalue()


def as_latex(table):
    """A tabular that needs no package; statements and notes stand below the numbers."""
    escape = lambda cell: "".join(_LATEX.get(character, character) for character in cell)
    line = lambda cells: " & ".join(map(escape, cells)) + r" \\"
    below = [*statements(table), *(["Forced: these numbers are not alike. " + "; ".join(table.forced) + "."] if table.forced else []), *table.notes]
    wide = [rf"\multicolumn{{{len(HEAD)}}}{{p{{0.95\linewidth}}}}{{\footnotesize {escape(sentence)}}} \\" for sentence in below]
    rows = [line(_cells(table, row, row.method == table.choices.baseline)) for row in table.rows]
    return "\n".join([r"\begin{tabular}{lllrrrrrr}", r"\hline", line(_head()), r"\hline", *rows, r"\hline", *wide, r"\end{tabular}"]) + "\n"
