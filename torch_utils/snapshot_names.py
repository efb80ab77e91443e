"""How network snapshots in a run folder are named, and which there are. Must not know their content, nor import torch."""

import os
import re

# Named by whole kimg. Where several fall within one kimg, all but the first have the images beyond it behind a dash: 000003-512 is at
# kimg 3.512.
NETWORK_SNAPSHOT = "network-snapshot-{position}.pkl"
NETWORK_SNAPSHOT_REGEX = re.compile(r"^network-snapshot-(\d+)(?:-(\d{3}))?\.pkl$")


def kimg_of(match):
    """The kimg that a file's name states, from the match of one of the two expressions above: 000001-118 is 1.118 as it is typed."""
    whole, beyond = int(match.group(1)), match.group(2)
    return whole if beyond is None else (whole * 1000 + int(beyond)) / 1000  # a sum of the two would be 1.1179999999999999


def list_network_snapshots(run_dir):
    """[(kimg, file name)] in order of kimg."""
    matches = [NETWORK_SNAPSHOT_REGEX.match(name) for name in os.listdir(run_dir)]
    return sorted((kimg_of(match), match.group(0)) for match in matches if match)
