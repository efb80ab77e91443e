"""docs/diversity_monitor.md tells what was measured, and what the code does."""

import json

from benchmarks import diversity_monitor as benchmark
from training.diversity import monitor as diversity_monitor, watch


def test_the_figures_are_those_of_the_benchmarks_file():
    page = benchmark.PAGE.read_text(encoding="utf-8")
    assert benchmark.with_figures(page, json.loads(benchmark.RESULTS.read_text())) == page


def test_every_statistic_is_explained():
    page = benchmark.PAGE.read_text(encoding="utf-8")
    assert [name for name in watch.STATISTICS if f"| `{name}` |" not in page] == []
    assert f"{diversity_monitor.NUM_FAKES} fixed latents" in page and f"up to {diversity_monitor.MAX_REALS} real images" in page
