"""Deciding what a run goes on from: which folder, and whether the flags of today agree with its options.

A flag that was not given takes the saved value; one that was given must agree, unless it may change between the parts
of a run. Reads run folders, changes nothing. Must not know click or networks.
"""

import json
import os
import re

import dnnlib
from dnnlib.errors import UserError
from torch_utils import file_kinds
from training import batches, config, flag_table, presets, state
from training.gan import choosing

OPTIONS_FILE = "training_options.json"
MAX_ROWS = 12  # of the table of differences; --cfg alone can make thirty

DECIDED_BY = flag_table.decided_by()  # looked up by the longest matching beginning of an option's dotted place
MAY_CHANGE = flag_table.may_change()


def names_a_run(resume, outdir=None) -> bool:
    """Whether --resume=... asks to continue a run (rather than to start a new one from given weights)."""
    return resume is not None and (resume == "latest" or os.path.isdir(resume) or (resume.endswith(".pt") and not _is_pickle(resume)))


def _is_pickle(path):
    """Whether a file holds a plain pickle, as networks are kept, whatever its name says; what torch.save writes does not."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file_kinds.problem_of(file) is None


def continue_run(flags, given, outdir, build, plugin_flags=()) -> tuple:
    """Find the run that --resume names and check the flags against it.

    flags: all flags. given: names of those that were really typed. build(flags) -> config.Resolved, complete with the
    plugin's part. plugin_flags: names of flags whose options this module cannot know, the main switch first.
    Returns (options for the loop, with run_dir and resume_state; path of the run folder). Raises UserError.
    """
    for row in flag_table.new_runs_only():
        if row.name in given and flags.get(row.name):
            raise UserError(
                f"{row.text} is for starting a new run from a network pickle; --resume={flags['resume']} continues a run "
                f"exactly where it stopped: leave out {row.text}"
            )
    folders = [_folder_named(flags["resume"])] if flags["resume"] != "latest" else _run_folders(outdir)
    refusal = None
    for folder in folders:
        if state.latest_state(folder) is None:
            refusal = refusal or UserError(
                f"--resume={flags['resume']}: {folder} holds no training-state-*.pt (it ended before its first snapshot, or was "
                "made by another program); start a new run, from a network pickle if there is one: --resume=<pkl>"
            )
            continue
        saved = _read_options(folder)
        try:
            clashes = _clashes(saved, flags, given, build, plugin_flags)
        except UserError as error:  # what is typed makes no run together with what this one has; an older one may fit
            refusal = refusal or error
            continue
        if not clashes:
            return _continued(saved, flags, given, build, folder), folder
        refusal = refusal or _refusal(flags["resume"], folder, clashes)
    if refusal is None:
        refusal = UserError(f"--resume=latest: no run in --outdir={outdir} yet; check the folder, or leave out --resume to start the first run")
    raise refusal


# ------------------------------------------------------------------------------------------
# Folders.


def _run_folders(outdir):
    """Run folders below outdir, newest (highest number) first."""
    names = [name for name in os.listdir(outdir) if re.match(r"\d+-", name)] if os.path.isdir(outdir) else []
    names.sort(key=lambda name: (int(name.split("-")[0]), name), reverse=True)
    return [path for path in (os.path.join(outdir, name) for name in names) if os.path.isfile(os.path.join(path, OPTIONS_FILE))]


def _folder_named(resume):
    folder = os.path.dirname(resume) or "." if resume.endswith(".pt") else resume
    if resume.endswith(".pt") and not os.path.isfile(resume):
        raise UserError(f"--resume={resume}: no such file; give a run folder, or --resume=latest for the newest run in --outdir")
    if resume.endswith(".pt") and not os.path.basename(resume).startswith("training-state-"):
        with open(resume, "rb") as file:
            problem = file_kinds.problem_of(file)
        if file_kinds.TRAINING_STATE not in (problem or ""):
            raise UserError(
                f"--resume={resume}: the file {problem}. A run is continued from its folder (--resume=RUN_FOLDER) or with --resume=latest."
            )
    if not os.path.isfile(os.path.join(folder, OPTIONS_FILE)):
        if resume.endswith(".pt"):
            raise UserError(
                f"--resume={resume}: a training state goes with its run, and no {OPTIONS_FILE} lies beside it; put it back into its run folder, "
                "or start a new run with --resume=NETWORK.pkl"
            )
        raise UserError(f"--resume={resume}: {folder} is no run folder (it has no {OPTIONS_FILE}); give a run folder, a network pickle, or 'latest'")
    return os.path.normpath(folder)


def _read_options(folder):
    path = os.path.join(folder, OPTIONS_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            saved = _easy(json.load(file))
        batches.check(saved, goes_on=True)
        return saved
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--resume: {path} is not the options file of a run ({error}); restore it, or start a new run from a network pickle"
        ) from error


def _easy(value):
    if isinstance(value, dict):
        return dnnlib.EasyDict({key: _easy(item) for key, item in value.items()})
    return value


# ------------------------------------------------------------------------------------------
# Comparing.


def _clashes(saved, flags, given, build, plugin_flags):
    """[(flags, option, saved value, value now)] for the options that a typed flag contradicts."""
    # As the run was started: what --gpus changes follows by itself, and weights it began with are settled.
    now_base, now_plugin = _split(build(_as_started(saved, flags, given)).options)
    saved_base, saved_plugin = _split(saved)
    by_value = _checked_together(saved)
    rows = [([flag], place, before, flags[flag]) for flag, (place, before) in by_value.items() if flag in given and flags[flag] != before]
    for place, (before, after) in _differences(saved_base, now_base).items():
        deciding = [flag for flag in _deciding_flags(place) if flag in given and flag not in by_value]
        if deciding and place not in choosing.SETTLED and not (place == "training_set_kwargs.path" and _same_data(before, after)):
            rows.append((deciding, place, before, after))
    for place, (before, after) in _differences(saved_plugin, now_plugin).items():
        leaf = place.rsplit(".", 1)[-1]
        deciding = [flag for flag in plugin_flags if flag in given and flag == f"{plugin_flags[0]}_{leaf}"]
        if place in ("loss.class_name", "augment.class_name"):
            deciding = [flag for flag in plugin_flags[:1] if flag in given]
        if deciding:
            rows.append((deciding, place, before, after))
    return rows


def _as_started(saved, flags, given):
    """The flags with those that a typed one does not replace as the run was started: on how many GPUs, from which weights, with which methods.

    Flags that are checked against one another are the run's, typed or not: what does not fit today's defaults may well fit the run.
    """
    of_methods = choosing.not_typed(saved, flags, given)
    refused = choosing.refused_flags({**flags, **of_methods})
    kept = {flag: value for flag, (_, value) in _checked_together(saved).items() if flag not in refused}
    untyped = dict(cond=saved.training_set_kwargs.get("use_labels"), kimg=saved.total_kimg if isinstance(saved.total_kimg, int) else None)
    if "random_seed" in saved.training_set_kwargs:  # a part of the data alone
        untyped["subset"] = saved.training_set_kwargs.max_size
    if kept.get("aug") == "fixed":
        untyped["p"] = saved.get("augment_p")
    kept.update({flag: value for flag, value in untyped.items() if flag not in given})
    asks_for_none = flags.get("half") in (None, "auto") and not flags.get("fp32")
    if asks_for_none and "half" not in refused and "num_fp16_res" in saved.D_kwargs:  # of itself it would follow the machine
        kept["half"] = saved.get("half") or ("fp16" if saved.D_kwargs.num_fp16_res else "off")
    if "aug" in kept and flags.get("aug", kept["aug"]) not in (None, kept["aug"]):
        kept.update(dict.fromkeys(("target", "initstrength", "aug_max", "augpipe")), p=untyped.get("p"))  # those of the other --aug
    kept.update(gpus=saved.num_gpus, batch_gpu=saved.batch_gpu, resume=_started_from(saved))
    return {**flags, **kept, **of_methods}


def _checked_together(saved):
    """{flag: (option, the run's value)} of flags that config.py checks against others; they are compared by value, one by one."""
    base, _ = _split(saved)
    aug = "ada" if base.get("ada_target") is not None else "fixed" if base.get("augment_kwargs") else "noaug"
    group = base["D_kwargs"].get("epilogue_kwargs", {}).get("mbstd_group_size")
    found = dict(batch=("batch_size", base["batch_size"]), aug=("aug", aug))
    if group is not None:
        found["mbstd_group"] = ("D_kwargs.epilogue_kwargs.mbstd_group_size", group)
    return found


def _started_from(saved):
    url = saved.get("resume_pkl")
    return next((name for name, known in presets.RESUME_URLS.items() if known == url), url)


def _deciding_flags(place):
    parts = place.split(".")
    for count in range(len(parts), 0, -1):
        flags = DECIDED_BY.get(".".join(parts[:count]))
        if flags is not None:
            return flags
    return []


def _split(options):
    """(options as they would be without a wrapping loss or pipe, what the wrappers add).

    A wrapper names what it wraps: base_class_name beside a loss's own keywords, base_kwargs inside a pipe's.
    """
    base, plugin = dict(options), {}
    loss = dict(options["loss_kwargs"])
    if "base_class_name" in loss:
        added = {key: loss.pop(key) for key in list(loss) if isinstance(loss[key], dict)}
        plugin["loss"] = dict(added, class_name=loss["class_name"])
        loss["class_name"] = loss.pop("base_class_name")
        base["loss_kwargs"] = loss
    pipe = options.get("augment_kwargs")
    if pipe is not None and "base_kwargs" in pipe:
        base["augment_kwargs"] = pipe["base_kwargs"]
        plugin["augment"] = {key: value for key, value in pipe.items() if key != "base_kwargs"}
    return base, plugin


def _differences(before, after):
    """{dotted place: (value before, value after)} for all leaves that differ; absent counts as None."""
    old, new = _leaves(before), _leaves(after)
    for leaves in (old, new):
        if "loss_kwargs.methods" in leaves:
            leaves["loss_kwargs.methods"] = choosing.in_one_order(leaves["loss_kwargs.methods"])
    places = {**old, **new}
    return {place: (old.get(place), new.get(place)) for place in places if old.get(place) != new.get(place)}


def _leaves(value, place=""):
    if not isinstance(value, dict):
        return {place: list(value) if isinstance(value, tuple) else value}
    return {key: leaf for name, item in value.items() for key, leaf in _leaves(item, f"{place}.{name}" if place else str(name)).items()}


def _same_data(before, after):
    """The same place, or the old one is gone and a set of that name lies elsewhere (the loop compares the contents)."""
    if os.path.realpath(before) == os.path.realpath(after):
        return True
    return not os.path.exists(before) and os.path.basename(os.path.normpath(before)) == os.path.basename(os.path.normpath(after))


def _refusal(resume, folder, clashes):
    rows = [
        (" / ".join("--" + flag.replace("_", "-") for flag in flags), place, _short(before), _short(after)) for flags, place, before, after in clashes
    ]
    table = [("flag", "option", "saved", "now"), *rows[:MAX_ROWS]]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
    if len(rows) > MAX_ROWS:
        lines.append(f"  ... and {len(rows) - MAX_ROWS} more")
    return UserError(
        f"--resume={resume}: {folder} was started with other options:\n"
        + "\n".join(lines)
        + "\nLeave these flags out to go on with the saved values, or leave out --resume to start a new run."
    )


def _short(value):
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ------------------------------------------------------------------------------------------
# Going on.


def _continued(saved, flags, given, build, folder):
    """The saved options with the changes that are allowed.

    Those that say what the run once started from stay: the loop prefers the state, and the next resume needs them to
    know what --cfg would have meant.
    """
    options = _easy(saved)
    now = build(_as_started(saved, flags, given)).options
    for flag, names in MAY_CHANGE.items():
        if flag not in given or flag in ("gpus", "batch_gpu"):
            continue
        for name in names:
            if name == "image_snapshot_ticks" and flag == "snap" and "img_snap" in given:
                continue
            if name in now:
                options[name] = now[name]
            else:
                options.pop(name, None)
    if "profile" not in given:  # a look at this one start, not at every later one
        options.pop("profile_steps", None)
    _move_data(options, flags["data"])
    if "gpus" in given:
        options.num_gpus = flags["gpus"]
    if "batch_gpu" in given:
        options.batch_gpu = flags["batch_gpu"]
    elif options.batch_size % (options.batch_gpu * options.num_gpus):
        options.batch_gpu = max(options.batch_size // options.num_gpus, 1)
    batches.check(options, goes_on=True)
    if "tick" in given or "snap" in given or "img_snap" in given:
        config.name_snapshots(options)
    options.run_dir = folder
    options.resume_state = flags["resume"] if flags["resume"].endswith(".pt") else state.latest_state(folder)
    return options


def _move_data(options, path):
    """The data set lies at `path` now; wrapping losses hold a copy of its keywords."""
    for name, value in options.items():
        if name == "training_set_kwargs":
            value["path"] = path
        elif isinstance(value, dict):
            _move_data(value, path)
