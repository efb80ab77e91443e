"""The curves of a run: which statistics share a chart, and what they mean; and the metrics of its snapshots."""

import datetime
import json
import math
import os
import re
import shlex
from dataclasses import dataclass, replace

from reporting.run_folder import is_number
from reporting.run_page.charts import format_number
from reporting.run_page.markup import Section, as_json, chart, code, details, table, text
from torch_utils import metric_lines

MAX_CHARTS = 48  # of names that no group below knows
MAX_FACTS_TEXT = 4000  # per line of a metric, in characters
MAX_METRIC_ROWS = 200  # per metric; all are in its file


@dataclass(frozen=True)
class Group:
    """A chart: its statistics by name in stats.jsonl -> name in the legend."""

    title: str
    y_label: str
    names: dict
    note: str = ""
    y_range: tuple | None = None


TRAINING_GROUPS = [
    Group("Losses", "loss", {"Loss/G/loss": "G", "Loss/D/loss": "D"}, "Their balance matters, not their size: a loss says little about quality."),
    Group(
        "What D says",
        "mean logit of D",
        {"Loss/scores/real": "reals", "Loss/scores/fake": "fakes"},
        "The further apart, the more easily D tells them apart.",
    ),
    Group(
        "Sign of what D says",
        "mean sign",
        {"Loss/signs/real": "reals", "Loss/signs/fake": "fakes"},
        "Reals near 1 for long: D has learnt the training set by heart. Says nothing of critics and relativistic losses, whose logits have no boundary.",
        (-1, 1),
    ),
    Group("Augmentation", "probability p", {"Progress/augment": "p"}, "How often D sees an augmented image.", (0, 1)),
    Group("Penalties", "penalty", {"Loss/r1_penalty": "R1", "Loss/pl_penalty": "path length"}, "Before their weights."),
    Group("Weighted penalties", "part of the loss", {"Loss/D/reg": "D", "Loss/G/reg": "G"}, "And what else methods add to a loss."),
]
TERM_OF_A_METHOD = re.compile(r"Loss/([GD])/(?!loss$|reg$)(.+)")
ALARMS = {1: "collapse", 2: "cycling"}  # of MADR/alarm, as docs/diversity_monitor.md has them
DIVERSITY_GROUPS = [
    Group(
        "Diversity of the samples",
        "relative to the reals",
        {"MADR/diversity": "diversity", "MADR/within": "near some real", "MADR/spread": "spread"},
        "diversity: share of the reals' cells that the generator fills, 1 for a perfect one; spread: distance between its images over that between reals.",
    ),
    Group(
        "Modes lost",
        "share",
        {"MADR/lost": "lost", "MADR/found_again": "found again", "MADR/turnover": "exchanged"},
        "Within the last ticks. Exchanged near 1 tick by tick: the generator cycles through modes.",
        (0, 1),
    ),
    Group("Cells held", "cells", {"MADR/cells": "held"}, "Cells of the real features that hold at least a quarter of their share."),
    Group(
        "Coverage",
        "share",
        {"MADR/coverage": "coverage", "MADR/inside": "inside"},
        "coverage: reals that recent samples come near to, over what a perfect generator would reach (about 1); inside: samples near some real.",
        (0, 1),
    ),
    Group(
        "Pull of the term",
        "relative gradient",
        {"MADR/gratio": "term", "MADR/gratio_replay": "replay"},
        "Size of its gradient over that of the adversarial loss.",
        (0, 1),
    ),
    Group("Factor of the term", "lambda", {"MADR/lambda": "term", "MADR/lambda_replay": "replay"}, "Set so that the pull stays in proportion."),
    Group(
        "Memory",
        "share",
        {"MADR/memory": "filled", "MADR/ess": "effective reals"},
        "effective reals: how evenly the reals are drawn; low when few neglected ones get most of the weight.",
        (0, 1),
    ),
    Group("Age of the memory", "kimg", {"MADR/age_kimg": "mean age"}),
    Group(
        "Signal in the pull",
        "share",
        {"MADR/signal": "factor"},
        "By how much the batch's gradient exceeds sampling noise; the terms are scaled by it.",
        (0, 1),
    ),
]
COST_GROUPS = [
    Group("Time per kimg", "seconds per kimg", {"Timing/sec_per_kimg": "without maintenance"}),
    Group("Maintenance", "seconds per tick", {"Timing/maintenance_sec": "snapshots, metrics"}),
    Group("Time of a phase", "milliseconds", {f"Timing/{phase}": phase for phase in ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth")}),
    Group("Time of the diversity monitor", "milliseconds per tick", {"Timing/diversity": "look"}),
    Group("Memory of the machine", "GiB", {"Resources/cpu_mem_gb": "process", "Resources/peak_gpu_mem_gb": "GPU, peak"}),
    Group(
        "Steps with non-finite gradients",
        "steps",
        {"Progress/nonfinite_steps": "so far"},
        "More than a few: lower the learning rates or raise gamma.",
    ),
]
# Said elsewhere on the page, or by the horizontal axis.
NOT_DRAWN = {
    "Loss/D/r1",  # as Loss/D/reg
    "Progress/kimg",
    "Progress/tick",
    "Timing/total_sec",
    "Timing/total_hours",
    "Timing/total_days",
    "Timing/sec_per_tick",
    "Timing/MADR",
    "Timing/MADR_share",
    "Resources/MADR_mib",
    "MADR/alarm",
    "MADR/healthy_kimg",
    "MADR/distance",
}


# ----------------------------------------------------------------------------------------------------------------
# Statistics of the ticks.


def group_chart(run, group):
    """A chart of those statistics that the run has; '' when it has none or all were always zero."""
    lines = [(legend, run.series[name]) for name, legend in group.names.items() if name in run.series]
    lines = [(legend, points) for legend, points in lines if any(value != 0 for _, value in points)]
    if not lines:
        return ""
    target = run.options.get("ada_target")
    reference = (target, "target") if "Loss/signs/real" in group.names and is_number(target) else None
    gaps = sum(not math.isfinite(value) for _, points in lines for _, value in points)
    note = group.note + (f" Gaps: values that were not finite ({gaps})." if gaps else "")
    return chart(group.title, lines, group.y_label, note.strip(), y_range=group.y_range, reference=reference)


def other_charts(run, known):
    """Charts of what no group knows: what a loss or plugin of another kind reports."""
    names = sorted(name for name in run.series if name not in known)
    drawn = [group_chart(run, Group(name, "value", {name: name.rsplit("/", 1)[-1]})) for name in names[:MAX_CHARTS]]
    left_out = f"<p>{len(names) - MAX_CHARTS} more are in stats.jsonl.</p>" if len(names) > MAX_CHARTS else ""
    return "".join(drawn) + left_out


def training_groups(run):
    """TRAINING_GROUPS, with the terms of the run's methods beside the penalties."""
    *groups, weighted = TRAINING_GROUPS
    terms = {name: match for name in sorted(run.series) if (match := TERM_OF_A_METHOD.fullmatch(name))}
    if "Loss/D/reg" in run.series:
        terms.pop("Loss/D/r1", None)  # the same under its second name
    names = {**weighted.names, **{name: f"{match[1]}: {match[2]}" for name, match in terms.items()}}
    return [*groups, replace(weighted, names=names)]


def training_section(run):
    return _charts_section(run, "training", "Training", training_groups(run))


def diversity_section(run):
    return _charts_section(run, "diversity", "Diversity during training", DIVERSITY_GROUPS, alarm_sentence(run))


def alarm_sentence(run):
    """What the diversity monitor found so far; None where none ran."""
    if "MADR/alarm" not in run.series:
        return None
    alarms = [(kimg, ALARMS.get(round(value), "unknown alarm")) for kimg, value in run.series["MADR/alarm"] if value > 0]
    if not alarms:
        return "The diversity monitor raised no alarm."
    healthy = run.last("MADR/healthy_kimg")
    saved = (
        f" Last healthy snapshot: kimg {format_number(healthy)}."
        if healthy is not None and healthy >= 0
        else " No healthy snapshot was saved before."
    )
    state = "still" if (run.last("MADR/alarm") or 0) > 0 else "no longer"
    return f"Alarm: {alarms[0][1]} at kimg {format_number(alarms[0][0])}, in {len(alarms)} ticks so far; {state} in force.{saved}"


def cost_section(run):
    return _charts_section(run, "cost", "Time and memory", COST_GROUPS, madr_cost(run))


def madr_cost(run):
    """What MADR cost, as the run measured it once, early on; from its log where its statistics do not say; None without MADR."""
    milliseconds, share, mebibytes = (run.last(name) for name in ("Timing/MADR", "Timing/MADR_share", "Resources/MADR_mib"))
    if None not in (milliseconds, share, mebibytes):
        return (
            f"MADR costs {format_number(milliseconds)} ms per step, {share:.0%} of the time, and keeps {format_number(mebibytes)} MiB "
            "(measured over 32 steps early in the run)."
        )
    told = next((line for line in reversed(run.log_tail) if line.startswith("MADR: costs ")), None)
    return told.replace("MADR: costs", "MADR costs", 1) + "." if told else None


def other_section(run):
    known = {name for group in training_groups(run) + DIVERSITY_GROUPS + COST_GROUPS for name in group.names} | NOT_DRAWN
    drawn = other_charts(run, known)
    return Section("other", "Other statistics", f'<div class="charts">{drawn}</div>') if drawn else None


def _charts_section(run, address, title, groups, sentence=None):
    """The groups that the run has statistics of, below a sentence if there is one; None without any."""
    drawn = "".join(group_chart(run, group) for group in groups)
    above = f"<p>{text(sentence)}</p>" if sentence is not None else ""
    return Section(address, title, f'{above}<div class="charts">{drawn}</div>') if drawn else None


# ----------------------------------------------------------------------------------------------------------------
# Metrics of the snapshots.


def metrics_section(run):
    """Per metric: a chart per result over the snapshots, every line as a table, the facts that the numbers depend on."""
    bodies = [_metric_body(metric, lines) for metric, lines in run.metrics.items() if lines]
    if bodies:
        return Section("metrics", "Metrics", "".join(bodies))
    network = os.path.join(run.path, run.networks[-1][1] if run.networks else "network-snapshot-....pkl")
    command = "python calc_metrics.py --metrics=fid50k_full " + shlex.quote(f"--network={network}")
    return Section("metrics", "Metrics", f"<p>None has been computed yet. For one, run</p>{code(command)}")


def _metric_body(metric, lines):
    names = list(dict.fromkeys(name for line in lines for name in line.results))
    # A quick look with few images is no point of the curve; the table has every line.
    alike = {id(line) for line in metric_lines.alike([line.line for line in lines])}
    curve = [line for line in lines if id(line.line) in alike]
    drawn = "".join(_result_chart(name, curve) for name in names)
    shared, own = split_facts([line.line.get("facts") for line in lines])
    facts = details("What the numbers depend on" + (", the same for all lines" if len(lines) > 1 else ""), as_json(shared)) if shared else ""
    shown = lines[-MAX_METRIC_ROWS:]
    rows = [
        [
            text(line.snapshot or "–"),
            *(format_number(line.results.get(name)) for name in names),
            text(line.line.get("total_time_str", "–")),
            _date(line.line.get("timestamp")),
            _own_facts(facts_of_line),
        ]
        for line, facts_of_line in zip(shown, own[-MAX_METRIC_ROWS:], strict=True)
    ]
    head = ["Snapshot", *(text(name.removeprefix(metric + "_")) for name in names), "Computed in", "On (UTC)", "Facts" if any(own) else ""]
    left_out = f"<p>The newest {len(shown)} of {len(lines)} lines.</p>" if len(shown) < len(lines) else ""
    values = table(rows, head, "numbers") + left_out
    # Few lines are shown at once.
    values = values if len(lines) <= 8 else details(f"All {len(lines)} lines", values)
    title = f"<h3>{text(metric)}</h3>" if names != [metric] or not drawn else ""  # the chart says it
    return f'{title}<div class="charts">{drawn}</div>{values}{facts}'


def _result_chart(name, lines):
    points = [(line.kimg, line.results[name]) for line in lines if line.kimg is not None and line.results.get(name) is not None]
    points.sort(key=lambda point: point[0])  # stable: of several evaluations of one snapshot the newest comes last
    return chart(name, [("newest", points)], "value", marks=True) if len(points) > 1 else ""


def split_facts(facts_of_lines):
    """Facts that all lines share, and, per line, the others. facts_of_lines: dicts or None."""
    facts_of_lines = [_flat(facts) if isinstance(facts, dict) else {} for facts in facts_of_lines]
    shared = {key: value for key, value in facts_of_lines[0].items() if all(key in facts and facts[key] == value for facts in facts_of_lines)}
    return shared, [{key: value for key, value in facts.items() if key not in shared} for facts in facts_of_lines]


def _flat(facts, prefix=""):
    """Nested facts with dotted names."""
    flat = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + str(key)] = value
    return flat


def _own_facts(facts):
    return details(f"{len(facts)} of its own", text(json.dumps(facts, ensure_ascii=False, indent=1)[:MAX_FACTS_TEXT]), "facts") if facts else ""


def _date(timestamp):
    if not isinstance(timestamp, (int, float)) or not 0 < timestamp < 2**35:
        return "–"
    return datetime.datetime.fromtimestamp(timestamp, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
