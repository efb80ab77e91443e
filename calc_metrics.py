"""Judge a saved network: `python calc_metrics.py --network=RUN/network-snapshot-000200.pkl --metrics=fid50k_full`.

Prints one JSON line per metric and, when the pickle lies in a run folder, appends it to metric-<name>.jsonl there.
"""
import json
import os
from dataclasses import dataclass

import click
import torch

import dnnlib
import legacy
import training.dataset
from dnnlib import cli
from dnnlib.errors import UserError
from metrics import comparison, digit_data, diversity, given_features, metric_main, metric_utils, photo_networks, repeats, sampling
from metrics.detectors import SPACE, check_overrides, space_url
from torch_utils import devices, distributed, misc
from training.snapshots import list_network_snapshots

MAX_SEED = 2**31 - 1
_CACHE_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True)
class Job:
    """All that one process needs; picklable, since every process opens the network itself."""
    network: str
    metrics: tuple
    dataset_kwargs: dict
    num_gpus: int
    device_name: str
    verbose: bool
    trust: bool
    cache: bool
    detectors: dict
    seed: int
    num_gen: int | None
    num_real: int | None
    batch_size: int | None
    run_dir: str | None
    baseline: str | None = None
    space: str | None = None
    strict_ties: bool = False
    repeats: int = 1
    modes: int | None = None


# ----------------------------------------------------------------------------------------------------------------
# What to compute, and on which data.

def check_metrics(names):
    unknown = [name for name in names if not metric_main.is_valid_metric(name)]
    if unknown:
        raise UserError("\n".join([f"--metrics does not know {', '.join(unknown)}; choose among:",
                                   *metric_main.list_valid_metrics()]))
    if not names:
        raise UserError("--metrics names no metric; give at least one, like --metrics=fid50k_full.")


def check_modes(modes, names):
    """Refuse --modes where nothing counts modes."""
    counting = [name for name in metric_main.list_valid_metrics() if getattr(metric_main.function_of(name), "counts_modes", False)]
    if modes is not None and not set(counting) & set(names):
        raise UserError(f"--modes={modes} has no effect on {', '.join(names)}; it belongs to {', '.join(counting)}.")


def check_seeds(seed, num_repeats):
    if seed + num_repeats > MAX_SEED + 1:
        raise UserError(f"--seed={seed} with --repeats={num_repeats} goes beyond the largest seed {MAX_SEED}; take a smaller --seed.")


def dataset_options(snapshot, data, mirror, trust):
    """Arguments of the data set to compare with: --data, else what the pickle says of its training."""
    if data is not None:
        if not os.path.exists(data):
            raise UserError(f"--data={data} does not exist; give a zip or a folder of images.")
        kwargs = dnnlib.EasyDict(class_name="training.dataset.ImageFolderDataset", path=data)
    else:
        kwargs = _training_set_options(snapshot.get("training_set_kwargs"), trust)
    G = snapshot["G_ema"]
    kwargs.update(resolution=G.img_resolution, use_labels=G.c_dim != 0)
    if mirror is not None:
        kwargs.xflip = mirror
    return kwargs


def _training_set_options(stated, trust):
    if not stated:
        raise UserError("The network pickle does not say which data it was trained on; give the data set with --data=PATH.")
    kwargs = dnnlib.EasyDict(stated)
    if not _names_own_dataset(kwargs.get("class_name")) and not trust:
        raise UserError(f"The network pickle names {kwargs.get('class_name')!r} as its data set class, which is refused because it could "
                        "run any code; give the data set with --data=PATH, or trust the file with --trust-pickle.")
    path = kwargs.get("path")
    if path is not None and not os.path.exists(path):
        raise UserError(f"The training data of the network, {path}, is not there any more; give it with --data=PATH.")
    return kwargs


def _names_own_dataset(class_name):
    """Whether the name is that of a data set class of ours. The pickle's words become a call: anything else could run any
    code, also by a way through our modules ('training.dataset.os.system')."""
    module, _, name = str(class_name).rpartition(".")
    found = getattr(training.dataset, name, None) if module == "training.dataset" else None
    return isinstance(found, type) and issubclass(found, training.dataset.Dataset)


def run_dir_of(network):
    """The run folder that a pickle lies in, or None: only there result lines are kept."""
    if dnnlib.util.is_url(network):
        return None
    folder = os.path.dirname(os.path.abspath(network))
    return folder if os.path.isfile(os.path.join(folder, "training_options.json")) else None


def snapshots_of(network, trust, device):
    """{file name: function that opens its G_ema} of the run that a pickle lies in; without kimg 0, which is untrained."""
    folder = run_dir_of(network)
    names = [name for kimg, name in list_network_snapshots(folder) if kimg > 0] if folder is not None else []

    def opener(name):
        return lambda: legacy.open_network(os.path.join(folder, name), trust=trust, verbose=False)["G_ema"].eval().requires_grad_(False).to(device)
    return {name: opener(name) for name in names}


def newest_snapshot(run):
    """Path of the newest network snapshot in a run folder."""
    if not os.path.isfile(os.path.join(run, "training_options.json")):
        raise UserError(f"--run={run} is not a run folder: there is no training_options.json; give a folder that train.py made.")
    names = list_network_snapshots(run)
    if not names:
        raise UserError(f"--run={run} holds no network-snapshot-*.pkl yet; give a run that has saved one.")
    return os.path.join(run, names[-1][1])


class NetworkOption(click.Option):
    """--network, for which the newest snapshot of --run stands in."""

    def consume_value(self, ctx, opts):
        value, source = super().consume_value(ctx, opts)
        if "network" not in opts and {"real_features", "fake_features"} & set(opts):
            return "", source  # none is needed
        if opts.get("run") is None:
            return value, source
        if "network" in opts:
            raise UserError(f"--network={opts['network']} and --run={opts['run']} exclude one another; --run takes the newest snapshot of its folder.")
        return newest_snapshot(opts["run"]), source


def trained_in(network):
    """The extractor whose features led the training of a pickle in a run folder; None when none did, or nobody knows."""
    folder = run_dir_of(network)
    if folder is None:
        return None
    try:
        with open(os.path.join(folder, "training_options.json"), encoding="utf-8") as file:
            options = json.load(file)
    except (OSError, ValueError):
        return None  # the run is not what is judged here
    plugin = (options.get("loss_kwargs") or {}).get("madr") if isinstance(options, dict) else None
    return plugin.get("extractor") if isinstance(plugin, dict) else None


def with_weights(detectors, space, weights):
    """The detectors with the file of --madr-weights for the space it belongs to."""
    if weights is None:
        return detectors
    space = space or detectors.get(SPACE) or diversity.DEFAULT_SPACE
    if space != "inception" and space not in photo_networks.MODELS:
        raise UserError(f"--madr-weights={weights} has no effect: the space {space} takes no weights; leave the option out.")
    if not os.path.isfile(weights):
        raise UserError(f"--madr-weights={weights} does not exist; give the path of a .safetensors or .pth file (for inception: TorchScript).")
    return check_overrides({**detectors, space: weights})


def check_baseline(snapshot, baseline, trust):
    """Refuse a baseline that draws other images than the network: no number of the two could be compared."""
    G, B = snapshot["G_ema"], legacy.open_network(baseline, trust=trust, verbose=False)["G_ema"]
    for what, mine, other in [("resolution", G.img_resolution, B.img_resolution), ("channels", G.img_channels, B.img_channels), ("label size", G.c_dim, B.c_dim)]:
        if mine != other:
            raise UserError(f"--baseline={baseline} has {what} {other}, the network {mine}; compare networks of the same images and labels.")


# ----------------------------------------------------------------------------------------------------------------
# Computing.

def evaluate(rank, job):
    """The body of every process."""
    num_gpus = distributed.get_world_size()
    device = distributed.rank_device(job.device_name, rank)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    networks = {path: legacy.open_network(path, trust=job.trust, verbose=False)["G_ema"].eval().requires_grad_(False).to(device)
                for path in (job.network, job.baseline) if path is not None}
    if rank == 0 and job.verbose:
        _print_summary(networks[job.network], device)
    for metric in job.metrics:
        results, items = {}, {}
        for path, G in networks.items():
            if rank == 0 and job.verbose:
                print(f"Calculating {metric}{' of the baseline' if path == job.baseline != job.network else ''}...", flush=True)
            items[path] = {}
            results[path] = repeats.calc_repeated(
                metric, repeats=job.repeats, modes=job.modes, G=G, dataset_kwargs=job.dataset_kwargs, num_gpus=num_gpus, rank=rank, device=device,
                progress=metric_utils.ProgressMonitor(verbose=job.verbose), cache=job.cache, detectors=job.detectors, seed=job.seed,
                num_gen=job.num_gen, num_real=job.num_real, batch_size=job.batch_size, space=job.space, strict_ties=job.strict_ties,
                trained_in=trained_in(path), per_item=items[path], snapshots=snapshots_of(path, job.trust, device))
        if rank == 0:
            _report(job, results, items, same_latents=len({G.z_dim for G in networks.values()}) == 1)


def _report(job, results, items, same_latents):
    result = results[job.network]
    if job.baseline is not None:
        theirs = results[job.baseline]
        compared = comparison.compare(
            result.results, theirs.results, items[job.network], items[job.baseline], sampling.stream("bootstrap", job.seed), same_latents,
            *(facts.get("repeats", {}).get("values") for facts in (result.facts, theirs.facts)))
        result.facts["comparison"] = dict(
            baseline=job.baseline, results=compared, level=comparison.LEVEL, num_resamples=comparison.NUM_RESAMPLES, bootstrap_seed=job.seed,
            sampling_seed=job.seed, same_latents=same_latents)
        metric_main.report_metric(theirs, snapshot_pkl=job.baseline)
    metric_main.report_metric(result, run_dir=job.run_dir, snapshot_pkl=job.network)
    if job.baseline is not None:
        print(comparison.as_text(compared))
        print(f"Seed {job.seed} of latents, labels and bootstrap; {comparison.NUM_RESAMPLES} resamples; "
              f"{'the same' if same_latents else 'other'} latents for both.", flush=True)
    if job.verbose:
        if job.repeats > 1:
            print(repeats.as_text(result))
        print(flush=True)


def evaluate_given_features(real_path, fake_path, metrics, others, device, **how):
    """The metrics of two files of features. others: {flag: value} of the options that say where features come from."""
    for flag, value in others.items():
        if value:
            raise UserError(f"{flag} has no effect beside --real-features and --fake-features: the features are there already; leave it out.")
    unfit = [metric for metric in metrics if not metric_main.takes_given_features(metric)]
    if unfit:
        raise UserError(f"--metrics={','.join(unfit)} needs images, not features; with --real-features and --fake-features there are "
                        f"{', '.join(filter(metric_main.takes_given_features, metric_main.list_valid_metrics()))}.")
    given = given_features.load(real_path, fake_path)
    for metric in metrics:
        metric_main.report_metric(metric_main.calc_metric(metric, given=given, device=device, **how))


def _print_summary(G, device):
    z, c = torch.zeros([1, G.z_dim], device=device), torch.zeros([1, G.c_dim], device=device)
    misc.print_module_summary(G, [z, c])


@click.command()
@click.option("--network", cls=NetworkOption, metavar="PATH", required=True, help="Network pickle, file or URL")
@click.option("--run", metavar="DIR", help="Run folder, in place of --network: its newest snapshot; madr_cycling looks at all")
@click.option("--metrics", type=cli.CommaList(), default="fid50k_full", show_default=True, help="Metrics, comma-separated")
@click.option("--data", metavar="PATH", help="Data set to compare with, zip or folder  [default: that of the training]")
@click.option("--mirror", type=bool, metavar="BOOL", help="Whether the data set includes mirrored copies  [default: as in the training]")
@click.option("--gpus", type=int, default=1, show_default=True, metavar="INT", help="Number of processes, one GPU each")
@click.option("--verbose", type=bool, default=True, show_default=True, metavar="BOOL", help="Print options and progress")
@click.option("--detector", "detectors", type=cli.NamedPath(), multiple=True,
              help="Local file of a feature detector, as inception=PATH or vgg16=PATH; may be repeated")
@click.option("--cache", type=click.Choice(list(_CACHE_SWITCH)), default="on", show_default=True, help="Use and keep statistics of the real images")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Seed of latents, labels and subsets")
@click.option("--repeats", "num_repeats", type=click.IntRange(min=1), default=1, show_default=True,
              help="Draw the generated images that many times, from seed, seed + 1, ...; reports the mean, the deviation and every value")
@click.option("--modes", type=click.IntRange(2, digit_data.NUM_MODES),
              help="Count only the stacked-digit modes with labels below this, as dataset_tool.py --modes draws them; 777 is the MADR paper's number")
@click.option("--num-gen", type=click.IntRange(min=1), help="Generate this many images instead of the metric's number; noted in the result")
@click.option("--num-real", type=click.IntRange(min=1), help="Use at most this many real images; noted in the result")
@click.option("--batch", "batch_size", type=click.IntRange(min=1), help="Images per generated batch  [default: by resolution]")
@click.option("--baseline", metavar="PATH", help="A second network, judged on the same images and latents; prints the difference and its interval")
@click.option("--madr-extractor", metavar="NAME", help="Feature space of the madr_* metrics: dino, dinov2, inception, pixels, random-conv or file:PATH of a TorchScript file  [default: dino]")
@click.option("--madr-weights", metavar="PATH", help="File with the weights of that space")
@click.option("--madr-ties", type=click.Choice(["count", "ignore"]), default="count", show_default=True, help="Whether an item exactly on the rim of a neighbourhood lies inside (<=) or not (<)")
@click.option("--real-features", metavar="PATH", help="Features of the real images computed elsewhere, .npz or .npy, in place of --network and --data")
@click.option("--fake-features", metavar="PATH", help="Features of the generated images, likewise")
@cli.device_option
@cli.trust_option
def main(network, run, metrics, data, mirror, gpus, verbose, detectors, cache, seed, num_repeats, modes, num_gen, num_real, batch_size, baseline, madr_extractor,
         madr_weights, madr_ties, real_features, fake_features, device, trust_pickle):
    """Calculate quality and diversity metrics of a network pickle.

    \b
    Metrics: fid50k_full, kid50k_full, pr50k3_full, ppl2_wend, is50k; older fid50k, kid50k, pr50k3, ppl_{z,w}{full,end};
    quick looks fid10k_full, kid10k_full, pr10k3_full; stacked digits madr_modes, madr_modes5k; diversity in the space of
    --madr-extractor madr_{recall,precision,density,coverage,prdc,smooth_recall,vendi,authenticity,ndb} and madr_..._10k; fd_dino50k_full;
    over all snapshots of a run madr_cycling.

    \b
    # a snapshot of a training run: data and options are looked up, the result is kept in the run folder
    python calc_metrics.py --network=runs/00000-faces-auto1/network-snapshot-000200.pkl --metrics=fid50k_full
    # any network, on a CPU, with the detector from a file
    python calc_metrics.py --network=net.pkl --data=faces.zip --device=cpu --detector inception=inception-2015-12-05.pt
    \b
    # is it more diverse than the baseline?
    python calc_metrics.py --network=ours.pkl --baseline=ada.pkl --data=faces.zip --metrics=madr_prdc
    # features of another program, in one space, a row per image
    python calc_metrics.py --real-features=real.npz --fake-features=fake.npz --metrics=madr_prdc
    """
    if gpus < 1:
        raise UserError(f"--gpus must be at least 1 (got {gpus}); use --device=cpu to compute without a GPU.")
    check_metrics(metrics)
    check_modes(modes, metrics)
    check_seeds(seed, num_repeats)
    if real_features is not None or fake_features is not None:
        evaluate_given_features(
            real_features, fake_features, metrics,
            {"--network": network, "--run": run, "--baseline": baseline, "--data": data, "--madr-extractor": madr_extractor, "--madr-weights": madr_weights,
             "--detector": detectors, "--gpus": gpus != 1, "--repeats": num_repeats != 1, "--modes": modes, "--batch": batch_size,
             "--mirror": mirror is not None, "--cache": click.get_current_context().get_parameter_source("cache") is not click.core.ParameterSource.DEFAULT,
             "--trust-pickle": trust_pickle},
            devices.resolve(device), progress=metric_utils.ProgressMonitor(verbose=verbose), seed=seed, num_gen=num_gen, num_real=num_real,
            strict_ties=madr_ties == "ignore")
        return
    if madr_extractor is not None:
        space_url(madr_extractor)
    detectors = with_weights(check_overrides(dict(detectors)), madr_extractor, madr_weights)
    device_name = devices.resolve(device).type
    if device_name == "cuda" and gpus > torch.cuda.device_count():
        raise UserError(f"--gpus={gpus} asks for more GPUs than this machine has ({torch.cuda.device_count()}); lower it, or use --device=cpu.")
    verbose = verbose and os.environ.get("RANK", "0") == "0"  # under torchrun the first process alone speaks
    if verbose:
        print(f'Loading network from "{network}"...', flush=True)
    snapshot = legacy.open_network(network, trust=trust_pickle, verbose=verbose)
    dataset_kwargs = dataset_options(snapshot, data, mirror, trust_pickle)
    if baseline is not None:
        check_baseline(snapshot, baseline, trust_pickle)
    if verbose:
        print("Dataset options:")
        print(json.dumps(dataset_kwargs, indent=2))
    job = Job(
        network=network, metrics=tuple(metrics), dataset_kwargs=dict(dataset_kwargs), num_gpus=gpus, device_name=device_name, verbose=verbose,
        trust=trust_pickle, cache=_CACHE_SWITCH[cache], detectors=detectors, seed=seed, num_gen=num_gen, num_real=num_real,
        batch_size=batch_size, run_dir=run_dir_of(network), baseline=baseline, space=madr_extractor, strict_ties=madr_ties == "ignore", repeats=num_repeats, modes=modes)
    if verbose:
        print("Launching processes...", flush=True)
    distributed.launch(evaluate, job, num_processes=gpus, device_name=device_name)
    if verbose:
        print("Exiting...", flush=True)


if __name__ == "__main__":
    cli.run(main)
