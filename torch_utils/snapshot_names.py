"""How network snapshots in a run folder are named, and which there are. Must not know their content, nor import torch."""

import os
import re

# Named by whole kimg. Where several fall within one kimg, all but the first have the images beyond it behind a dash: 000003-512 is at
# kimg 3.512.
NETWORK_SNAPSHOT = "network-snapshot-{position}.pkl"
NETWORK_SNAPSHOT_REGEX = re.compile(r"^network-snapshot-(\d+)(?:-(\d{3}))?\.pkl$")


def kimg_of(match):
    """The kimg that a file's name states, from the match of one of the two expressions above."""
    return int(match.group(1)) + (int(match.group(2)) / 1000 if match.group(2) else 0)


def list_network_snapshots(run_dir):
    """[(kimg, file name)] in order of kimg."""
    matches = [NETWORK_SNAPSHOT_REGEX.match(name) for name in os.listdir(run_dir)]
    return sorted((kimg_of(match), match.group(0)) for match in matches if match)
