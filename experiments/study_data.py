"""The data of a study's beds: built once by dataset_tool.py below OUTDIR/<study>/<bed>/data/, and what its commands have between braces.

Must not know runs.
"""

import json
import re
from pathlib import Path

from dnnlib import download, files
from dnnlib.errors import UserError
from experiments import commands
from torch_utils.process_lock import ProcessLock

_PLACE = re.compile(r"\{([\w-]+)(\??)\}")
_LONGEST_BUILD_SEC = 24 * 3600.0


class Stopped(Exception):
    """Somebody asked to stop while data were built."""


def check_files(study, given):
    """Refuse files that the study does not know or that are not there."""
    for name, path in given.items():
        if name not in study.files:
            raise UserError(f"--file {name}={path}: the study {study.name} reads {', '.join(study.files) or 'no file'}; correct the name.")
        if not Path(path).exists():
            raise UserError(f"--file {name}={path}: there is nothing at that path; check it.")


def filled(study, flags, known):
    """The flags with what stands between braces put in. {NAME?}: the flag is left out where nothing was given."""
    result = []
    for flag in flags:
        places = _PLACE.findall(flag)
        missing = [name for name, optional in places if name not in known and not optional]
        if missing:
            what = study.files.get(missing[0])
            raise UserError(
                f"The study {study.name} needs {missing[0]}{f' ({what})' if what else ''} for {flag}; give it as --file {missing[0]}=PATH."
            )
        if all(name in known for name, _ in places):
            result.append(_PLACE.sub(lambda match: str(known[match[1]]), flag))
    return result


def folder_of(study, bed, outdir):
    return Path(outdir) / study.name / bed.name / "data"


def parts_of(study, bed, outdir):
    """{part: path of its zip}, whether built yet or not."""
    return {part: folder_of(study, bed, outdir) / f"{part}.zip" for part in bed.build}


def build_commands(study, bed, outdir, given):
    """{part: command} of the parts that are not there yet."""
    paths, there = parts_of(study, bed, outdir), _read(study, bed, outdir)
    return {
        part: commands.python(study.build_program, *filled(study, flags, {**given, **paths}), f"--dest={paths[part]}")
        for part, flags in bed.build.items()
        if part not in there
    }


def prepare(study, bed, outdir, given, stop=lambda: commands.GO_ON, say=print):
    """Build what is missing -> {part: SHA-256 of its zip}. Two processes at once build it once."""
    folder = folder_of(study, bed, outdir)
    build_commands(study, bed, outdir, given)  # refuses before any folder is made
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessLock(folder / ".lock", limit_sec=_LONGEST_BUILD_SEC, say=say):
        for part, command in build_commands(study, bed, outdir, given).items():
            log = folder / f"{part}.log"
            say(f"Building {parts_of(study, bed, outdir)[part]}")
            ended = commands.run_command(command, log, commands.environment(commands.cores()), stop)
            if stop():
                raise Stopped
            if ended.code != 0:
                raise UserError(f"The data of the bed {bed.name} could not be built: {last_error(log)} (all of it: {log})")
            _note(study, bed, outdir, part)
        return hashes(study, bed, outdir)


def hashes(study, bed, outdir):
    """{part: SHA-256 of its zip} of what is built already."""
    return {part: row["sha256"] for part, row in _read(study, bed, outdir).items()}


def _read(study, bed, outdir):
    """What was built: {part: dict(flags, sha256)}; refuses what was built by other flags."""
    path = folder_of(study, bed, outdir) / "data.json"
    if not path.exists():
        return {}
    noted = json.loads(path.read_text(encoding="utf-8"))
    for part, row in noted.items():
        if part in bed.build and row["flags"] != list(bed.build[part]):
            raise UserError(
                f"{path.parent / part}.zip was built with {' '.join(row['flags'])}, the study {study.name} now says {' '.join(bed.build[part])}; "
                f"its runs cannot be mixed: give another --outdir, or move {path.parent.parent} away."
            )
        if part in bed.build and not (path.parent / f"{part}.zip").exists():
            raise UserError(
                f"{path.parent / part}.zip, which {path} tells of, is gone; put it back, or move {path.parent.parent} away to begin anew."
            )
    return {part: row for part, row in noted.items() if part in bed.build}


def _note(study, bed, outdir, part):
    noted = _read(study, bed, outdir)
    noted[part] = dict(flags=list(bed.build[part]), sha256=download.file_digest(str(parts_of(study, bed, outdir)[part])))
    files.atomic_write_text(folder_of(study, bed, outdir) / "data.json", json.dumps(noted, indent=1) + "\n")


def last_error(log):
    """The sentence that a command ended with, from its log; else the log's last line."""
    lines = [line for line in Path(log).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [number for number, line in enumerate(lines) if line.startswith(("Error: ", "$ "))]
    if told and lines[told[-1]].startswith("Error: "):
        return " ".join(lines[told[-1] :]).removeprefix("Error: ")
    return lines[-1] if lines else "it said nothing"
