"""Make a data set for training: convert pictures (listing and mending whatever is wrong with them), or build a stack of digits.

Options and printing only; the work is done in training/data_*.py.
"""

import signal
from collections import defaultdict

import click
from tqdm import tqdm

from dnnlib import cli, console
from dnnlib.errors import UserError
from training.data import builders, image_check, sources, transforms, writer

_NOTES_SHOWN = 20  # lines per kind of mere note when converting; --check shows all
_CLASS_ROWS_SHOWN = 30  # larger sets of classes are summed up in a line


class _RequiredUnless(click.Option):
    """A required option that is not asked for when one of the named (eager) options is given."""

    def __init__(self, *args, unless=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.unless = unless

    def process_value(self, ctx, value):
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter:
            if any(ctx.params.get(name) for name in self.unless):
                return None
            raise


@click.command(context_settings={"max_content_width": 110})
@click.option(
    "--source",
    cls=_RequiredUnless,
    unless=["build"],
    required=True,
    metavar="PATH",
    help="Folder or zip of images, cifar-10-python.tar.gz, train-images-idx3-ubyte.gz, or an LSUN ..._lmdb folder. "
    "With --build=stacked-mnist: the folder with MNIST's four files (left away: they are downloaded).",
)
@click.option(
    "--dest",
    cls=_RequiredUnless,
    unless=["check"],
    required=True,
    metavar="PATH",
    help="A .zip archive (replaced if it exists) or a new or empty folder.",
)
@click.option("--max-images", type=int, default=None, metavar="N", help="Take only the first N images.")
@click.option(
    "--resize-filter",
    type=click.Choice(list(transforms.RESIZE_FILTERS)),
    default="lanczos",
    show_default=True,
    help="How to filter when changing the size.",
)
@click.option(
    "--transform",
    type=click.Choice(transforms.TRANSFORMS),
    default=None,
    help="center-crop: the middle square. center-crop-wide|-tall: the middle band of the shape width:height, filled "
    "up to a square with black. pad: the whole picture on black. stretch: the whole picture, distorted.",
)
@click.option("--width", type=int, default=None, metavar="PIXELS", help="Width to scale to.")
@click.option("--height", type=int, default=None, metavar="PIXELS", help="Height to scale to.")
@click.option(
    "--labels",
    type=click.Choice(sources.LABEL_MODES),
    default="json",
    show_default=True,
    help="json: from the source's dataset.json (or from the archive itself). folders: one class per sub-folder. none: drop them.",
)
@click.option(
    "--fix", is_flag=True, help="Mend what can be mended (colour modes, EXIF rotation) and drop unreadable and duplicate images, saying so for each."
)
@click.option("--check", is_flag=True, is_eager=True, help="Only list what is wrong with the source; write nothing.")
@click.option(
    "--build",
    type=click.Choice(builders.BUILDERS),
    default=None,
    is_eager=True,
    help="Build a set of 1000 modes instead of converting: three digits as the channels of an RGB image.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "eval", "test"]),
    default="train",
    show_default=True,
    help="With --build: training digits, or the digits kept for evaluation (no digit is in both).",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="With --build: seed of the random triples.")
@click.option(
    "--num-images",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="With --build: number of images.  [default: stacked-digits 50000, eval 10000; stacked-mnist 128000, test 26000]",
)
@click.option(
    "--modes",
    type=click.IntRange(1, builders.NUM_MODES),
    default=builders.NUM_MODES,
    show_default=True,
    metavar="N",
    help="With --build: only the modes 0 ... N-1.",
)
@click.option("--imbalanced", is_flag=True, help="With --build: 30% of the images uniform over the modes, the others int(Normal(700, 200)), clipped.")
@click.pass_context
def main(
    ctx, source, dest, max_images, resize_filter, transform, width, height, labels, fix, check, build, split, seed, num_images, modes, imbalanced
):
    """Convert pictures into a data set for training, or build one with known modes.

    Every picture is looked at in one pass; whatever is wrong is listed by file name, and nothing is written unless the
    whole set is sound (or mended by --fix).

    \b
    Examples:
      python dataset_tool.py --source=photos --dest=photos256.zip --transform=center-crop --width=256 --height=256
      python dataset_tool.py --source=photos --check
      python dataset_tool.py --source=animals --dest=animals.zip --labels=folders --fix
      python dataset_tool.py --source=cifar-10-python.tar.gz --dest=cifar10.zip
      python dataset_tool.py --build=stacked-digits --dest=digits.zip
    """
    _end_cleanly_when_terminated()
    if build is not None:
        _refuse_flags(
            ctx, f"--build={build} makes its own images", ["max_images", "resize_filter", "transform", "width", "height", "labels", "fix", "check"]
        )
        _build(build, source, dest, split, dict(seed=seed, num_images=num_images, modes=modes, imbalanced=imbalanced))
        return
    _refuse_flags(ctx, "it belongs to --build=" + "|".join(builders.BUILDERS), ["split", "seed", "num_images", "modes", "imbalanced"])
    transforms.output_size(transform, width, height)
    if not check:
        writer.check_destination(dest, source)
    images = sources.open_source(source, labels, max_images)
    convert = transforms.make_transform(transform, width, height, resize_filter)
    if check:
        _check(images, convert)
    else:
        _convert(images, convert, dest, fix, show_classes=labels == "folders")


def _refuse_flags(ctx, reason, names):
    for name in names:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UserError(f"--{name.replace('_', '-')} has no effect here: {reason}; leave it out.")


def _end_cleanly_when_terminated():
    def stop(signum, frame):
        raise SystemExit(128 + signum)  # an exception, so that unfinished files are removed on the way out

    signal.signal(signal.SIGTERM, stop)


def _progress(total, text):
    return lambda images: tqdm(images, total=total, desc=text, unit="img", mininterval=1, dynamic_ncols=True, disable=console.is_quiet())


# ---------------------------------------------------------------------------------------------------------------------
# Converting and checking.


def _convert(images, transform, dest, fix, show_classes):
    report = image_check.convert(images, transform, dest, fix, _progress(images.num_images, "Converting"))
    _print_faults(report, fix, notes_shown=_NOTES_SHOWN)
    if not report.is_sound(fix):
        raise UserError(_summary(report, fix) + "\nNothing was written.")
    _print_classes(report, images.class_names, all_classes=show_classes)
    print(f"Wrote {report.num_kept} of {report.num_seen} images ({_kind_text(report)}) to {dest}")


def _check(images, transform):
    report = image_check.ConversionPass(images, transform, fix=False).run(_progress(images.num_images, "Checking"))
    _print_faults(report, fix=False, notes_shown=None)
    _print_classes(report, images.class_names, all_classes=True)
    if not report.is_sound(fix=False):
        raise UserError(_summary(report, fix=False))
    print(f"All sound: {report.num_kept} of {report.num_seen} images ({_kind_text(report)}).")


def _kind_text(report):
    return "{}x{}, {}".format(*report.size, "grey" if report.channels == 1 else "RGB")


def _faults_by_kind(faults):
    by_kind = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    return sorted(by_kind.items(), key=lambda item: (image_check.FAULT_KINDS[item[0]].noted, item[0]))


def _print_faults(report, fix, notes_shown):
    for kind_name, faults in _faults_by_kind(report.faults):
        kind = image_check.FAULT_KINDS[kind_name]
        shown = faults[:notes_shown] if kind.noted and not (fix and kind.mend) else faults
        for fault in shown:
            print(fault.text() + (f" -> {kind.mend}" if fix and kind.mend else ""))
        if len(shown) < len(faults):
            print(f"... and {len(faults) - len(shown)} more: {kind.title} (--check lists all)")


def _summary(report, fix):
    """What keeps the set from being sound, kind by kind, each with its remedy."""
    serious = report.serious(fix)
    if not serious:
        return f"None of the {report.num_seen} images is usable."
    num_files = len({fault.name for fault in serious})
    lines = [f"{num_files} of {report.num_seen} images {'have faults' if num_files > 1 else 'has faults'}:"]
    for kind_name, faults in _faults_by_kind(serious):
        kind = image_check.FAULT_KINDS[kind_name]
        lines.append(f"  {len(faults):6d}  {kind.title}: {kind.remedy or f'--fix helps ({kind.mend})'}")
    return "\n".join(lines)


def _print_classes(report, class_names, all_classes):
    counts = sources.class_counts(report.labels)
    if not counts:
        return
    if all_classes or len(counts) <= _CLASS_ROWS_SHOWN:
        for number, count in counts.items():
            name = class_names[number] if class_names and number < len(class_names) else ""
            print(f"  class {number:4d}  {count:8d} images  {name}")
    else:
        print(f"  {len(counts)} classes, {min(counts.values())} to {max(counts.values())} images each")


# ---------------------------------------------------------------------------------------------------------------------
# Building.


def _build(builder, source, dest, split, options):
    writer.check_destination(dest, source)
    progress = lambda items: _progress(len(items), "Building")(items)
    if builder == "stacked-digits":
        if source is not None:
            raise UserError("--source has no effect with --build=stacked-digits (the digits come with scikit-learn); leave it out.")
        split = "eval" if split == "test" else split
        counts = builders.build_stacked_digits(dest, split=split, progress=progress, **options)
    else:
        split = "test" if split == "eval" else split
        counts = builders.build_stacked_mnist(dest, source=source, split=split, progress=progress, **options)
    print(
        f"Wrote {sum(counts.values())} images (32x32, RGB; {split} digits, seed {options['seed']}) to {dest}: "
        f"{len(counts)} of {options['modes']} modes, {min(counts.values())} to {max(counts.values())} images each"
    )


if __name__ == "__main__":
    cli.run(main)
