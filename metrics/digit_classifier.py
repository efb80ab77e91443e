"""Train the digit classifier behind the modes metric, print its accuracy and say where it lies.

    python -m metrics.digit_classifier --data stacked.zip [--test-data stacked-test.zip]

Minutes for MNIST on two cores; metrics/digit_network.py trains and keeps it.
"""

import click

from dnnlib import cli
from dnnlib.util import construct_class_by_name


def _open(path):
    return construct_class_by_name(class_name="training.dataset.ImageFolderDataset", path=path, use_labels=True)


@click.command()
@click.option("--data", required=True, metavar="PATH", help="Stacked digits whose digits the classifier learns")
@click.option("--test-data", metavar="PATH", help="Another stacked set, to measure the accuracy on its digits, too")
@click.option("--cache", type=click.Choice(["on", "off"]), default="on", show_default=True, help="Use and keep trained classifiers")
@cli.device_option
def main(data, test_data, cache, device):
    """Train the digit classifier of a data set of stacked digits and print its accuracy."""
    from metrics import digit_data  # these and torch only now: --help and mistakes are answered at once
    from metrics.digit_network import accuracy_on, obtain
    from metrics.progress import ProgressMonitor, bars_ended
    from torch_utils import devices

    device = devices.resolve(device)
    with bars_ended():
        classifier = obtain(_open(data), device, use_cache=cache == "on", monitor=ProgressMonitor(verbose=True))
    if test_data is not None:
        dataset = _open(test_data)
        reading = ProgressMonitor(tag="reading test digits", num_items=min(len(dataset), digit_data.MAX_TRIPLES), flush_interval=10_000, verbose=True)
        with bars_ended():
            digits = digit_data.collect_digits(dataset, reading.update)
        print(f"Accuracy on {len(digits)} digits of {test_data}: {accuracy_on(classifier, digits)[0]:.2%}")


if __name__ == "__main__":
    cli.run(main)
