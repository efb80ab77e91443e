"""A study of seconds: its programs are scripts of a few lines that behave as train.py, calc_metrics.py and dataset_tool.py do."""

import textwrap

BUILD = """
import sys
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
open(flags["dest"], "w").write(flags.get("content", "") + open(flags["source"]).read() if "source" in flags else flags.get("content", ""))
"""

# Trains a kimg per `--pause` seconds; saves after each, stops on SIGTERM with code 75, goes on from its newest state.
TRAIN = """
import glob, json, os, signal, sys, time
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
open(os.path.join(flags["outdir"], "calls.txt"), "a").write(" ".join(sys.argv[1:]) + f" threads={os.environ['OMP_NUM_THREADS']}" + chr(10))
if flags.get("fail") == flags["seed"]:
    print("Error: the weights are not finite; lower --glr.", file=sys.stderr)
    sys.exit(1)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
run = os.path.join(flags["outdir"], "00000-stub")
os.makedirs(run, exist_ok=True)
states = sorted(glob.glob(os.path.join(run, "training-state-*.pt")))
assert bool(states) == ("resume" in flags), "a run with a state goes on from it, and only such a run"
done = int(states[-1][-9:-3]) if states else 0
options = dict(total_kimg=int(flags["kimg"]), random_seed=int(flags["seed"]), strength=flags.get("strength"))
json.dump(options, open(os.path.join(run, "training_options.json"), "w"))
while done < int(flags["kimg"]) and not stop:
    time.sleep(float(flags.get("pause", 0)))
    done += 1
    line = {"Progress/kimg": done, "Timing/total_sec": 2.0 * done, "Timing/maintenance_sec": 0.0}
    with open(os.path.join(run, "stats.jsonl"), "a") as file:
        file.write(json.dumps({name: dict(num=1, mean=value, std=0) for name, value in line.items()} | dict(timestamp=0)) + chr(10))
    open(os.path.join(run, f"network-snapshot-{done:06d}.pkl"), "w").write("strength=" + flags.get("strength", "0") + " seed=" + flags["seed"])
    open(os.path.join(run, f"training-state-{done:06d}.pt"), "w").close()
sys.exit(75 if stop and done < int(flags["kimg"]) else 0)
"""

# modes = 10 * strength + seed + kimg
JUDGE = r"""
import json, os, re, sys
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
told = dict(word.split("=") for word in open(flags["network"]).read().split())
kimg = int(re.search(r"(\d+).pkl", flags["network"])[1])
modes = 10 * float(told["strength"]) + int(told["seed"]) + kimg
print(json.dumps(dict(results=dict(modes=modes, kl=1 / (1 + modes)), metric=flags["metrics"])))
"""

STUDY = """
from experiments.study import Bed, Judge, Mark, Measure, Study

STUDY = Study(
    name="fake",
    version={version},
    question="Does strength help?",
    beds=(
        Bed(
            "ring",
            build=dict(train=("--content=ring",)),
            judges=(Judge(("--metrics=modes",)),),
            measures=(Measure("modes", "modes", 1, True), Measure("kl", "KL", 3, False)),
            primary="modes",
        ),
    ),
    methods={{"plain": (), "strong": ("--strength=2",), "weak": ("--strength=-1",)}},
    ours="strong",
    seeds=(0, 1),
    kimg=3,
    flags={flags},
    curve=True,
    marks=(Mark("ring", "strong", "modes", "at least", bound=20.0), Mark("ring", "weak", "modes", "better", other="plain")),
    train_program={folder!r} + "/train_stub.py",
    judge_program={folder!r} + "/judge_stub.py",
    build_program={folder!r} + "/build_stub.py",
)
"""


def write_study(folder, version=1, flags=()):
    """Writes the programs and the study -> path of the study."""
    for name, text in (("build", BUILD), ("train", TRAIN), ("judge", JUDGE)):
        (folder / f"{name}_stub.py").write_text(textwrap.dedent(text))
    path = folder / "fake.py"
    path.write_text(STUDY.format(version=version, flags=tuple(flags), folder=str(folder)))
    return str(path)
