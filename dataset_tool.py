"""Make a data set for training: convert pictures (listing and mending whatever is wrong with them), or build a stack of digits.

Options and printing only; the work is done in training/data/.
"""

import contextlib
import math
import signal
import threading
from collections import defaultdict

import click

from dnnlib import cli, console
from dnnlib.errors import UserError
from training.data import builders, deep, image_check, long_tail, sources, transforms, writer

_NOTES_SHOWN = 20  # lines per kind of mere note when converting; --check shows all
_ALIKE_SHOWN = 10  # more files with the very same fault are summed up in a line
_ALIKE_NAMED = 3  # ... that names so many of them
_CLASS_ROWS_SHOWN = 30  # larger sets of classes are summed up in a line
# Options that belong to converting and to building.
_CONVERTING = ["max_images", "resize_filter", "transform", "width", "height", "labels", "fix", "value_range", "check", "tail_ratio"]
_BUILDING = ["split", "num_images", "modes", "imbalanced"]


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


class _Range(click.ParamType):
    """'0,4095' -> (0.0, 4095.0)"""

    name = "low,high"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            low, high = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers; write it like 0,4095.", param, ctx)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            self.fail(f"{value!r}: the first number becomes black, the second white, so it must be larger; write it like 0,4095.", param, ctx)
        return low, high


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
@click.option(
    "--max-images", type=int, default=None, metavar="N", help="Take only the first N images; with --labels=folders N in all, a share of each class."
)
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
    help="center-crop: the middle square. center-band: the middle band of the shape width:height, filled up to a square with black "
    "(center-crop-tall: the same for upright ones). center-crop-wide: as in StyleGAN2-ADA, the middle width*h/w of the h rows, scaled to "
    "width x height and filled up. pad: the whole picture on black. stretch: the whole picture, distorted.",
)
@click.option("--width", type=int, default=None, metavar="PIXELS", help="Width to scale to.")
@click.option("--height", type=int, default=None, metavar="PIXELS", help="Height to scale to.")
@click.option(
    "--labels",
    type=click.Choice(sources.LABEL_MODES),
    default="json",
    show_default=True,
    help="json: from the source's dataset.json (or from the archive itself). folders: one class per sub-folder, in natural order (2 "
    "before 10). none: drop them. renumber: the classes of dataset.json, numbered 0, 1, 2, ... without gaps.",
)
@click.option(
    "--fix", is_flag=True, help="Mend what can be mended (colour modes, EXIF rotation) and drop unreadable and duplicate images, saying so."
)
@click.option(
    "--range",
    "value_range",
    type=_Range(),
    default=None,
    metavar="LOW,HIGH",
    help="Pictures with more than 8 bits per channel: the values that become black and white, like 0,4095. With --fix the default is the range "
    "that fits the whole set.",
)
@click.option(
    "--long-tail",
    "tail_ratio",
    type=cli.FloatRange(min=1, min_open=True),
    metavar="RATIO",
    help="Keep a long-tailed part of a source with classes: of K classes, number k with RATIO^(-k/(K-1)) times the images of number 0. "
    "CIFAR10-LT is 100.",
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
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the triples of --build, or of the choice of --long-tail."
)
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
def main(ctx, source, dest, build, **options):
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
    with _ending_cleanly_when_terminated():
        if build is not None:
            _refuse_flags(ctx, f"--build={build} makes its own images", _CONVERTING)
            _build(build, source, dest, options["split"], {name: options[name] for name in ("seed", "num_images", "modes", "imbalanced")})
        else:
            needless = _BUILDING if options["tail_ratio"] is not None else [*_BUILDING, "seed"]
            _refuse_flags(ctx, "it belongs to --build=" + "|".join(builders.BUILDERS), needless)
            _convert_or_check(source, dest, **{name: options[name] for name in [*_CONVERTING, "seed"]})


def _convert_or_check(source, dest, max_images, resize_filter, transform, width, height, labels, fix, value_range, check, tail_ratio, seed):
    transforms.output_size(transform, width, height)
    transforms.check_both_sides(width, height)
    if not check:
        writer.check_destination(dest, source)
    images = sources.open_source(source, labels, max_images)
    if tail_ratio is not None:
        images = long_tail.LongTail(images, tail_ratio, seed, f"--source={source}")
    for remark in images.remarks:
        console.note(remark)
    convert = transforms.make_transform(transform, width, height, resize_filter)
    ranges = None if value_range is None else deep.stated(value_range)
    if check:
        _check(images, convert, ranges)
    else:
        _convert(images, convert, dest, fix, ranges, show_classes=labels in ("folders", "renumber") or tail_ratio is not None)


def _refuse_flags(ctx, reason, names):
    for option in main.params:
        if option.name in names and ctx.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE:
            raise UserError(f"{option.opts[0]} has no effect here: {reason}; leave it out.")


@contextlib.contextmanager
def _ending_cleanly_when_terminated():
    """SIGTERM becomes an exception, so that unfinished files are removed on the way out."""

    def stop(signum, frame):
        raise SystemExit(128 + signum)

    if threading.current_thread() is not threading.main_thread():  # only the main one may ask for signals; a caller's thread gets none
        yield
        return
    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _progress(total, text):
    return lambda images: console.progress(images, total, text)


# ---------------------------------------------------------------------------------------------------------------------
# Converting and checking.


def _convert(images, transform, dest, fix, ranges, show_classes):
    report = image_check.convert(images, transform, dest, fix, _progress(images.num_images, "Converting"), ranges=ranges)
    _print_faults(report, fix, notes_shown=_NOTES_SHOWN)
    _print_ranges(report, fix)
    if not report.is_sound(fix):
        raise UserError(_summary(report, fix) + "\nNothing was written.")
    _print_classes(report, images.class_names, all_classes=show_classes)
    print(f"Wrote {report.num_kept} of {report.num_seen} images ({_kind_text(report)}) to {dest}")


def _check(images, transform, ranges):
    report = image_check.ConversionPass(images, transform, fix=False, ranges=ranges).run(_progress(images.num_images, "Checking"))
    _print_faults(report, fix=False, notes_shown=None, say=console.result)
    _print_ranges(report, fix=False)
    _print_classes(report, images.class_names, all_classes=True)
    if not report.is_sound(fix=False):
        raise UserError(_summary(report, fix=False))
    print(f"All sound: {report.num_kept} of {report.num_seen} images ({_kind_text(report)}).")


def _print_ranges(report, fix):
    """What the pictures with more than 8 bits hold, and what becomes black and white."""
    ranges = report.ranges
    for kind, seen in ranges.seen.items():
        found = f"{seen.count} images with {deep.NAMES[kind]}: values {seen.low:.10g} to {seen.high:.10g}"
        low, high = ranges.scales.get(kind) or deep.fitting_range(seen.low, seen.high, kind)
        if ranges.is_stated:
            clipped = f"; {seen.clipped} of them hold values outside of it, which become black or white" if seen.clipped else ""
            print(f"{found}, scaled from --range={low:.10g},{high:.10g} to 0 ... 255{clipped}")
        else:
            print(
                f"{found}, {'' if fix else '--fix would have them '}scaled from {low:.10g} ... {high:.10g} to 0 ... 255; --range=LOW,HIGH sets another range"
            )
    if ranges.is_stated and not ranges.seen:
        console.note("--range had no effect: no image has more than 8 bits per channel")


def _kind_text(report):
    return "{}x{}, {}".format(*report.size, "grey" if report.channels == 1 else "RGB")


def _faults_by_kind(faults):
    by_kind = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    return sorted(by_kind.items(), key=lambda item: (image_check.FAULT_KINDS[item[0]].noted, item[0]))


def _print_faults(report, fix, notes_shown, say=print):
    for kind_name, faults in _faults_by_kind(report.faults):
        kind = image_check.FAULT_KINDS[kind_name]
        shown = faults[:notes_shown] if kind.noted and not (fix and kind.mend) else faults
        for text in _fault_lines(shown, sum_up=not (kind.noted or kind.file_by_file)):
            say(text + (f" -> {kind.mend}" if fix and kind.mend else ""))
        if len(shown) < len(faults):
            say(f"... and {len(faults) - len(shown)} more: {kind.title} (--check lists all)")


def _fault_lines(faults, sum_up):
    """A line per fault, or one for many files that have the very same."""
    alike = defaultdict(list)
    for fault in faults:
        alike[fault.kind, fault.detail].append(fault)
    for (kind, detail), group in alike.items():
        if sum_up and len(group) > _ALIKE_SHOWN:
            names = ", ".join(fault.name for fault in group[:_ALIKE_NAMED])
            yield f"{len(group)} images ({names}, ...): {image_check.described(kind, detail)}"
        else:
            yield from (fault.text() for fault in group)


def _summary(report, fix):
    """What keeps the set from being sound, kind by kind, each with its remedy."""
    serious = report.serious(fix)
    if not serious:
        return f"None of the {report.num_seen} images is usable."
    names = {fault.name for fault in serious}
    num_files = report.num_seen if image_check.ALL_IMAGES in names else len(names)
    lines = [f"{num_files} of {report.num_seen} images {'have faults' if num_files > 1 else 'has faults'}:"]
    for kind_name, faults in _faults_by_kind(serious):
        kind = image_check.FAULT_KINDS[kind_name]
        number = "all" if faults[0].name == image_check.ALL_IMAGES else len(faults)
        lines.append(f"  {number:>6}  {kind.title}: {kind.remedy.format(side=report.side) or f'--fix helps ({kind.mend})'}")
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
    progress = lambda items: console.progress(items, len(items), "Building")
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
