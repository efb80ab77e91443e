"""What metrics need before they can be computed, asked for before a run begins rather than hours into it."""

import re

from metrics import detectors, metric_main

_BY_FAMILY = {
    "fid": detectors.INCEPTION_URL,
    "kid": detectors.INCEPTION_URL,
    "is": detectors.INCEPTION_URL,
    "pr": detectors.VGG16_URL,
    "ppl": detectors.VGG16_URL,
}


def check(metrics, detector_paths):
    """Find (or download) the networks that these metrics look through. Raises UserError with the remedy for the first that is not to be had.

    detector_paths: {name: path} as --detector gives them. A metric's function may carry a `prepare` attribute, a function
    of these paths that does the same for it.
    """
    for metric in metrics:
        prepare = getattr(metric_main.function_of(metric), "prepare", None)
        family = re.match(r"(fid|kid|is|pr|ppl)(?=[0-9_])", metric)
        if prepare is not None:
            prepare(detector_paths)
        elif family:
            detectors.find_detector(_BY_FAMILY[family.group(1)], detector_paths, verbose=True)
