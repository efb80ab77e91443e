"""One TorchScript file out of a network of photographs and its file of weights: a feature space to give by path.

    python -m metrics.photo_export --model=mobilenetv2_100 --weights=mobilenet_v2-b0353104.pth --out=photos.pt
    python calc_metrics.py --metric-space=file:photos.pt ...      (in training --madr-extractor=file:photos.pt)

metrics/photo_features.py makes it.
"""

import click

from dnnlib import cli, console
from dnnlib.files import atomic_write_bytes


@click.command()
@click.option("--model", required=True, metavar="NAME", help="Architecture, by timm's name, like mobilenetv2_100 or tf_efficientnet_lite0")
@click.option("--weights", required=True, metavar="PATH", help="File with its weights, .safetensors or .pth")
@click.option("--out", required=True, metavar="PATH", help="TorchScript file to write")
@click.option("--size", type=click.IntRange(32, 1024), metavar="INT", help="Side to which images are resized  [default: the model's own]")
def main(model, weights, out, size):
    """Turn a network of photographs into a feature space that training takes as --madr-extractor=file:OUT, and calc_metrics.py as --metric-space."""
    import torch  # only now: --help and mistakes are answered at once

    from metrics.photo_features import as_bytes, as_torchscript, build, check_equal

    features, facts, module = None, None, None
    for step in console.progress(["build", "record", "compare"], 3, f"Exporting {model}", unit="step"):
        if step == "build":
            features, facts = build(model, weights, size or 0)
        elif step == "record":
            module = as_torchscript(features)
        else:
            check_equal(module, features)
    atomic_write_bytes(out, as_bytes(module, facts))
    width = features(torch.zeros([1, 3, 32, 32])).shape[1]
    print(
        f"{model}: weights matched by {facts['matched_by']}, SHA-256 {facts['weights_sha256']}"
        f"{' as the file name states' if facts['sha256_stated_by_name'] else ''}"
    )
    print(
        f"Written: {out}, {width} features of images resized to {facts['size']} pixels. Use it as --madr-extractor=file:{out}, for metrics alone as --metric-space=file:{out}."
    )


if __name__ == "__main__":
    cli.run(main)
