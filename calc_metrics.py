"""Judge a saved network, or any folder or zip of images: `python calc_metrics.py --network=RUN/network-snapshot-000200.pkl --metrics=fid50k_full`.

Prints one JSON line per metric and, when the pickle lies in a run folder, appends it to metric-<name>.jsonl there. What is computed
is in metrics/requested.py; this script turns flags into that module's job.
"""

import functools
import json
import os

import click

import dnnlib
from dnnlib import cli, console
from dnnlib.errors import UserError
from dnnlib.grouped_help import GroupedCommand, Option
from madr_spaces import names
from metrics import listing
from training.drawing.options import check_drs, drs_options

# Whatever imports torch is imported inside the functions, so that --help comes at once.

_CACHE_SWITCH = {"on": True, "off": False}
_JUDGED, _HOW, _SPACE, _FILES, _MACHINE = "What is judged", "How much, how often", "Feature space", "Images without a network", "Machine"


def list_of_metrics():
    """All metrics by heading, for the help."""
    return "Metrics. " + " ".join(f"{heading}: {', '.join(metrics)}." for heading, metrics in listing.NAMES.items())


class NetworkOption(Option):
    """--network, for which the newest snapshot of --run stands in."""

    def consume_value(self, ctx, opts):
        value, source = super().consume_value(ctx, opts)
        if "network" not in opts and {"real_features", "fake_features", "reals", "fakes"} & set(opts):
            return "", source  # none is needed
        if opts.get("run") is None:
            return value, source
        if "network" in opts:
            raise UserError(
                f"--network={opts['network']} and --run={opts['run']} exclude one another: --run takes the newest snapshot of its folder; leave one of them out."
            )
        from training import trained_network

        return trained_network.newest_snapshot(cli.expand_home(opts["run"])), source  # the flag's own value is made later


def judge_given_features(flags, cache_is_typed):
    """The metrics of two files of features, for which every flag about networks and images is refused."""
    from metrics import metric_utils, requested
    from torch_utils import devices

    requested.evaluate_given_features(
        flags.real_features,
        flags.fake_features,
        flags.metrics,
        {
            "--network": flags.network,
            "--run": flags.run,
            "--baseline": flags.baseline,
            "--data": flags.data,
            "--metric-space": flags.metric_space,
            "--madr-extractor": flags.madr_extractor,
            "--madr-weights": flags.madr_weights,
            "--detector": flags.detectors,
            "--gpus": flags.gpus != 1,
            "--repeats": flags.repeats != 1,
            "--modes": flags.modes,
            "--batch": flags.batch_size,
            "--mirror": flags.mirror is not None,
            "--cache": cache_is_typed,
            "--trust-pickle": flags.trust_pickle,
            "--per-class": flags.per_class,
            "--held-out": flags.held_out,
        },
        devices.resolve(flags.device),
        progress=metric_utils.ProgressMonitor(verbose=flags.verbose),
        seed=flags.seed,
        num_gen=flags.num_gen,
        num_real=flags.num_real,
        strict_ties=flags.madr_ties == "ignore",
    )


def judge_sets(flags):
    """The metrics of a set of images, features or statistics in the place of a network; its baseline may be a set or a network."""
    import legacy
    from metrics import judged_sets, two_sets
    from torch_utils import distributed
    from training import trained_network

    judged_sets.check_others(
        {
            "--network": flags.network,
            "--run": flags.run,
            "--repeats": flags.repeats != 1,
            "--real-features": flags.real_features,
            "--fake-features": flags.fake_features,
            "--trust-pickle": flags.trust_pickle and flags.baseline is None,
        },
        " and ".join(f"--{name}" for name in ("fakes", "reals") if flags[name] is not None),
    )
    reals, reals_flag = judged_sets.check_given(flags.fakes, flags.reals, flags.data, flags.metrics, flags.per_class)
    trained_in = {}
    if flags.baseline is not None and not two_sets.is_set(flags.baseline):
        flags.baseline = legacy.located(flags.baseline)
        trained_in[flags.baseline] = trained_network.trained_in(flags.baseline)
    space, detectors, device_name = looked_through(flags)
    names = ("fakes", "baseline", "verbose", "seed", "num_gen", "num_real", "batch_size", "modes", "per_class", "held_out")
    job = judged_sets.SetsJob(
        metrics=tuple(flags.metrics),
        num_gpus=flags.gpus,
        device_name=device_name,
        cache=_CACHE_SWITCH[flags.cache],
        detectors=detectors,
        space=space,
        strict_ties=flags.madr_ties == "ignore",
        mirror=bool(flags.mirror),
        reals=reals,
        reals_flag=reals_flag,
        trust=flags.trust_pickle,
        trained_in=trained_in,
        **{name: flags[name] for name in names},
    )
    distributed.launch(judged_sets.evaluate, job, num_processes=job.num_gpus, device_name=job.device_name)


def tell(text):
    """Notes go beside the result lines, which other programs read; under torchrun from the first process alone."""
    if os.environ.get("RANK", "0") == "0":
        console.note(text)


def tell_of_no_effect(flags):
    """Note what was typed and changes no number of the metrics."""
    from metrics import requested

    given = {
        "--mirror": None if flags.mirror is None else int(flags.mirror),
        "--metric-space": flags.metric_space or flags.madr_extractor,
        "--madr-ties": "ignore" if flags.madr_ties == "ignore" else None,
        "--num-real": flags.num_real,
    }
    for sentence in requested.without_effect(given, flags.metrics):
        tell(sentence)


def looked_through(flags):
    """(feature space, files of detectors, name of the device) of the flags."""
    import torch

    from metrics import detectors as detector_files, requested
    from torch_utils import devices

    space = detector_files.named_space(flags.metric_space, flags.madr_extractor)
    detectors = requested.with_weights(detector_files.check_overrides(dict(flags.detectors), announce=tell), space, flags.madr_weights)
    device_name = devices.resolve(flags.device).type
    if device_name == "cuda" and flags.gpus > torch.cuda.device_count():
        raise UserError(f"--gpus={flags.gpus} asks for more GPUs than this machine has ({torch.cuda.device_count()}); lower it, or use --device=cpu.")
    return space, detectors, device_name


def beside_rejection(flags):
    """{flag: value} of what --drs does not go with."""
    others = {f"--{name.replace('_', '-')}": flags[name] for name in ("baseline", "fakes", "reals", "fake_features", "real_features")}
    return {**others, f"--gpus={flags.gpus}": flags.gpus > 1}


def job_of(flags):
    """The flags as a job; opens the network, which says what it was trained on."""
    import legacy
    from metrics import requested, two_sets
    from training import trained_network

    space, detectors, device_name = looked_through(flags)
    is_beside_set = flags.baseline is not None and two_sets.is_set(flags.baseline)
    verbose = flags.verbose and os.environ.get("RANK", "0") == "0"  # under torchrun the first process alone speaks
    flags.network = legacy.located(flags.network)
    if flags.baseline is not None and not is_beside_set:
        flags.baseline = legacy.located(flags.baseline)
    if verbose:  # of a run folder, the snapshot that was taken
        print(f'Loading network from "{flags.network}"...', flush=True)
        if flags.baseline is not None:
            print(f'Baseline: "{flags.baseline}"', flush=True)
    snapshot = legacy.open_network(flags.network, trust=flags.trust_pickle, verbose=verbose)
    dataset_kwargs = trained_network.dataset_options(snapshot, flags.data, flags.mirror, flags.trust_pickle)
    rejection = None
    if flags.drs:
        from torch_utils import rejection_sampling
        from training.gan import drs

        rejection_sampling.check_networks(snapshot["G_ema"], snapshot["D"], flags.network)
        loss = drs.loss_of_run(trained_network.training_options(flags.network), flags.network)
        rejection = loss, rejection_sampling.Settings(flags.drs_gamma, flags.drs_percentile, flags.drs_burn_in)
    if flags.per_class and not snapshot["G_ema"].c_dim:
        raise UserError(f"--per-class needs a network that takes class labels, and {flags.network} takes none (train.py --cond=1); leave it out.")
    if flags.baseline is not None and not is_beside_set:
        trained_network.check_same_images(snapshot, flags.baseline, flags.trust_pickle)
    if verbose:
        print("Dataset options:")
        print(json.dumps(dataset_kwargs, indent=2))
    networks = [flags.network] if flags.baseline is None or is_beside_set else [flags.network, flags.baseline]
    return requested.Job(
        dataset_kwargs=dict(dataset_kwargs),
        device_name=device_name,
        verbose=verbose,
        trust=flags.trust_pickle,
        cache=_CACHE_SWITCH[flags.cache],
        detectors=detectors,
        metrics=tuple(flags.metrics),
        num_gpus=flags.gpus,
        run_dir=trained_network.run_dir_of(flags.network),
        space=space,
        strict_ties=flags.madr_ties == "ignore",
        trained_in={path: trained_network.trained_in(path) for path in networks},
        snapshots={path: trained_network.snapshot_paths(path) for path in networks},
        drs=rejection,
        **{
            name: flags[name]
            for name in ("network", "seed", "num_gen", "num_real", "batch_size", "baseline", "repeats", "modes", "per_class", "held_out")
        },
    )


_option = functools.partial(click.option, cls=Option)
_judged, _how, _space, _files, _machine = (functools.partial(_option, help_group=group) for group in (_JUDGED, _HOW, _SPACE, _FILES, _MACHINE))


@click.command(cls=GroupedCommand, more_help=list_of_metrics, context_settings=dict(max_content_width=140))
@click.option(
    "--network",
    cls=NetworkOption,
    help_group=_JUDGED,
    metavar="PATH",
    required=True,
    help="Network: a .pkl, a .safetensors of export.py, or a run folder (its newest snapshot); path or URL",
)
@_judged("--run", metavar="DIR", help="Run folder, in place of --network: its newest snapshot; madr_cycling looks at all")
@_judged("--metrics", type=cli.CommaList(), default="fid50k_full", show_default=True, help="Metrics, comma-separated")
@_judged("--data", metavar="PATH", help="Data set to compare with, zip or folder  [default: that of the training]")
@_judged("--mirror", type=bool, metavar="BOOL", help="Whether the data set includes mirrored copies  [default: as in the training]")
@_judged(
    "--baseline",
    metavar="PATH",
    help="A second network, or a folder or zip of images: judged on the same reals; prints the difference and its interval",
)
@_judged("--held-out", metavar="PATH", help="Real images that nobody trained on, folder or zip, for the metrics that compare with them")
@_how("--seed", type=click.IntRange(0, listing.MAX_SEED), default=0, show_default=True, help="Seed of latents, labels and subsets")
@_how(
    "--repeats",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Draw the generated images that many times, from seed, seed + 1, ...; reports the mean, the deviation and every value",
)
@_how("--num-gen", type=click.IntRange(min=1), help="Generate this many images instead of the metric's number; noted in the result")
@_how("--num-real", type=click.IntRange(min=1), help="Use at most this many real images; noted in the result")
@_how(
    "--modes",
    type=click.IntRange(2, listing.NUM_MODES),
    help="Count only the stacked-digit modes with labels below this, as dataset_tool.py --modes draws them; 777 is the MADR paper's number",
)
@_how("--per-class", is_flag=True, help="Judge every class by itself; --num-gen images of each")
@drs_options(cls=Option, help_group=_HOW, details=dict(advanced=True))
@_how("--cache", type=click.Choice(list(_CACHE_SWITCH)), default="on", show_default=True, help="Use and keep statistics of the real images")
@_space("--metric-space", metavar="NAME", help=f"Feature space of the madr_* metrics: {names.HELP}  [default: dino]")
@_space("--madr-extractor", metavar="NAME", help="Old spelling of --metric-space", advanced=True)
@_space("--madr-weights", metavar="PATH", help="File with the weights of that space")
@_space(
    "--madr-ties",
    type=click.Choice(["count", "ignore"]),
    default="count",
    show_default=True,
    help="Whether an item exactly on the rim of a neighbourhood lies inside (<=) or not (<)",
)
@_space(
    "--detector",
    "detectors",
    type=cli.NamedPath(),
    multiple=True,
    help="Local file of a feature detector, as inception=PATH or vgg16=PATH; may be repeated",
)
@_files("--fakes", metavar="PATH", help="A folder or zip of generated images, or features or statistics (.npz), in place of --network")
@_files("--reals", metavar="PATH", help="What to compare them with, likewise; --data names images alone")
@_files("--real-features", metavar="PATH", help="Features of the real images, .npz or .npy, in place of --network and --data")
@_files("--fake-features", metavar="PATH", help="Features of the generated images, likewise")
@_machine("--gpus", type=int, default=1, show_default=True, metavar="INT", help="Number of processes, one GPU each")
@_machine("--batch", "batch_size", type=click.IntRange(min=1), help="Images per generated batch  [default: by resolution]")
@_machine("--verbose", type=bool, default=True, show_default=True, metavar="BOOL", help="Print options and progress")
@cli.device_option
@cli.trust_option
@click.pass_context
def main(ctx, **flags):
    """Calculate quality and diversity metrics of a network, or of any folder or zip of images.

    \b
    # a snapshot of a training run: data and options are looked up, the result is kept in the run folder
    python calc_metrics.py --network=runs/00000-faces-auto1/network-snapshot-000200.pkl --metrics=fid50k_full
    # any network, on a CPU, with the detector from a file
    python calc_metrics.py --network=net.pkl --data=faces.zip --device=cpu --detector inception=inception-2015-12-05.pt
    \b
    # is it more diverse than the baseline?
    python calc_metrics.py --network=ours.pkl --baseline=ada.pkl --data=faces.zip --metrics=madr_prdc
    # images of another program; --reals in place of --data takes features or statistics, too; a baseline may be a network
    python calc_metrics.py --fakes=samples --data=faces.zip --metrics=fid50k_full,kid50k_full
    python calc_metrics.py --fakes=samples --data=faces.zip --metrics=madr_prdc --baseline=ada.pkl
    # features of another program, in one space, a row per image
    python calc_metrics.py --real-features=real.npz --fake-features=fake.npz --metrics=madr_prdc
    """
    flags = dnnlib.EasyDict(flags)
    if flags.gpus < 1:
        raise UserError(f"--gpus must be at least 1 (got {flags.gpus}); use --device=cpu to compute without a GPU.")
    unknown = set(flags.metrics) - {name for metrics in listing.NAMES.values() for name in metrics}
    without_network = [flags[name] for name in ("real_features", "fake_features", "reals", "fakes") if flags[name] is not None]
    if (
        flags.network
        and not without_network
        and not unknown
        and not dnnlib.util.is_url(flags.network, allow_file_urls=True)
        and not os.path.exists(flags.network)
    ):
        raise UserError(f"Cannot open {flags.network}: there is no such file; check the path (a web address must begin with https:// or http://).")
    check_drs(ctx, flags)
    from metrics import judged_sets, requested, two_sets
    from torch_utils import distributed

    requested.check_metrics(flags.metrics)
    requested.check_counts(flags.metrics, flags.num_gen, flags.num_real)
    requested.check_modes(flags.modes, flags.metrics)
    requested.check_per_class(flags.per_class, flags.metrics, {"--baseline": flags.baseline, "--repeats": flags.repeats != 1})
    requested.check_held_out(flags.held_out, flags.metrics)
    requested.check_seeds(flags.seed, flags.repeats)
    tell_of_no_effect(flags)
    if flags.drs:
        requested.check_rejection(flags.metrics, beside_rejection(flags))
    if flags.reals is not None or flags.fakes is not None:
        judge_sets(flags)
        return
    if flags.real_features is not None or flags.fake_features is not None:
        judge_given_features(flags, ctx.get_parameter_source("cache") is not click.core.ParameterSource.DEFAULT)
        return
    job = job_of(flags)
    if job.verbose:
        print("Launching processes...", flush=True)
    evaluate = requested.evaluate
    if flags.baseline is not None and two_sets.is_set(flags.baseline):
        job, evaluate = judged_sets.of_network(job), judged_sets.evaluate
    distributed.launch(evaluate, job, num_processes=job.num_gpus, device_name=job.device_name)
    if job.verbose:
        print("Exiting...", flush=True)


if __name__ == "__main__":
    cli.run(main)
