"""Where MADR's state is in forks whose snapshots carry none: a file beside the snapshot, taken up exactly by the run that goes on from there."""

import json
import pickle
import shutil

import pytest
import torch

from madr_plugin.host import snapshots
from tests.madr.fork_families import FAMILIES, RELATIVISTIC, WITHOUT_PIPE
from tests.madr.stand_ins import FIRST_STYLE, edited
from tests.madr.toy_host import Host, madr_loss

KNOBS = ["--madr=1", "--madr-preset=replay", "--madr-capacity=32", "--madr-deficit-window=32", "--madr-dead-zone=0", "--madr-refresh=2"]
SAME = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
import legacy
weights, states = [], []
for folder in sys.argv[2:]:
    saved = legacy.load_network_pkl(open(folder + "/network-snapshot.pkl", "rb"))
    weights.append([*saved["G"].state_dict().values(), *saved["D"].state_dict().values()])
    states.append(torch.load(folder + "/network-snapshot.madr.pt")["state"])
first, *others = weights
same = [all(torch.equal(a, b) for a, b in zip(first, other)) for other in others]
same_state = [states[0].keys() == state.keys() and all(torch.equal(value, state[name]) for name, value in states[0].items()) for state in states[1:]]
print(json.dumps(dict(weights=same, states=same_state, step=int(states[0]["step"]), keys=sorted(saved), plugin="madr_plugin" in sys.modules)))
"""


def compared(run, fork, *folders):
    done = run("-c", SAME, fork, *folders)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_in_two_parts_is_the_run_in_one(make_fork, tmp_path, family):
    fork, run = make_fork(FAMILIES[family])
    train = ["-m", "madr_plugin", fork / "train.py"]
    whole, parts, moved, forgetful, plain = (tmp_path / name for name in ("whole", "parts", "moved", "forgetful", "plain"))
    done = run(*train, f"--outdir={whole}", *KNOBS)
    assert done.returncode == 0 and "loss is MADRLoss" in done.stdout and "memory starts empty" not in done.stdout, done.stdout + done.stderr
    assert run(*train, f"--outdir={parts}", "--steps=6", *KNOBS).returncode == 0
    for folder in (moved, forgetful):
        shutil.copytree(parts, folder)
    again = run(*train, f"--outdir={parts}", "--steps=6", *KNOBS)  # in the same folder: the loop itself takes up the snapshot there
    assert again.returncode == 0 and f"state of step 6 taken from {parts}/network-snapshot.madr.pt" in again.stdout, again.stdout + again.stderr
    (forgetful / "network-snapshot.madr.pt").unlink()
    without = run(*train, f"--outdir={forgetful}", "--steps=6", *KNOBS)
    assert (
        "holds no MADR state; the memory starts empty (in this fork a run with MADR writes it to network-snapshot.madr.pt beside its snapshot"
        in without.stdout
    )
    elsewhere = run(*train, f"--outdir={plain}", f"--resume={moved}/network-snapshot.pkl", "--steps=6", *KNOBS)
    assert "state of step 6 taken from" in elsewhere.stdout, elsewhere.stdout + elsewhere.stderr
    seen = compared(run, fork, whole, parts, forgetful, plain)
    assert seen["weights"] == seen["states"] == [True, False, True]  # the state does matter, and it is all there
    assert seen["step"] == 12 and "augment_pipe" not in seen["keys"] and not seen["plugin"]


def test_the_one_call_keeps_the_state_too_and_a_folder_goes_on(make_fork, tmp_path):
    fork, run = make_fork(
        WITHOUT_PIPE, install="import madr_plugin; madr_plugin.install(preset='replay', capacity=32, deficit_window=32, dead_zone=0)"
    )
    first = run(fork / "train.py", f"--outdir={tmp_path}/run", "--steps=6")
    assert first.returncode == 0 and "memory starts empty" not in first.stdout, first.stdout + first.stderr
    again = run(fork / "train.py", f"--outdir={tmp_path}/run", "--steps=6")
    assert again.returncode == 0 and "state of step 6 taken from" in again.stdout, again.stdout + again.stderr


def test_two_processes_take_it_up_and_say_so_once(make_fork, tmp_path):
    fork, run = make_fork(RELATIVISTIC)
    train = ["-m", "madr_plugin", fork / "train.py", f"--outdir={tmp_path}/run", "--steps=3", *KNOBS]
    assert run(*train).returncode == 0
    again = run(*train, "--gpus=2")
    assert again.returncode == 0 and again.stdout.count("state of step 3 taken from") == 1, again.stdout + again.stderr
    assert "lacks the last step" not in again.stdout  # D learns first, yet the step of G is in what is written after it
    assert compared(run, fork, tmp_path / "run")["step"] == 6


ARRIVAL = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from madr_plugin.forks import WatchingOptions
import legacy
sent = pickle.dumps(WatchingOptions(weight=1))
assert not hasattr(legacy.load_network_pkl, "__wrapped__")
arrived = pickle.loads(sent)
print(arrived, type(arrived).__name__, hasattr(legacy.load_network_pkl, "__wrapped__"))
"""


def test_in_processes_that_a_fork_spawns_loading_is_watched_before_the_loop_begins(make_fork):
    fork, run = make_fork(RELATIVISTIC)
    done = run("-c", ARRIVAL, fork)
    assert done.stdout.split("\n")[0] == "{'weight': 1} WatchingOptions True", done.stdout + done.stderr


def test_without_strength_the_fork_stays_as_it_is(make_fork, tmp_path):
    knobs = [knob for knob in KNOBS if not any(word in knob for word in ("dead-zone", "capacity", "refresh"))]  # which the replay alone reads
    for family in FAMILIES:
        fork, run = make_fork(FAMILIES[family], folder=family)
        folders = [tmp_path / f"{family}-{name}" for name in ("alone", "off", "weak")]
        assert run(fork / "train.py", f"--outdir={folders[0]}", "--steps=4").returncode == 0
        assert run("-m", "madr_plugin", fork / "train.py", f"--outdir={folders[1]}", "--steps=4", "--madr=0").returncode == 0
        weak = run("-m", "madr_plugin", fork / "train.py", f"--outdir={folders[2]}", "--steps=4", *knobs, "--madr-weight=0", "--madr-replay-weight=0")
        assert weak.returncode == 0 and "loss is MADRLoss" in weak.stdout, weak.stdout + weak.stderr
        shutil.copy(folders[2] / "network-snapshot.madr.pt", folders[0])
        shutil.copy(folders[2] / "network-snapshot.madr.pt", folders[1])
        assert compared(run, fork, *folders)["weights"] == [True, True]


def test_the_file_of_an_overwritten_snapshot_is_not_taken(make_fork, tmp_path):
    fork, run = make_fork(WITHOUT_PIPE)
    train = ["-m", "madr_plugin", fork / "train.py", f"--outdir={tmp_path}/run", "--steps=3"]
    assert run(*train, *KNOBS).returncode == 0
    assert run(*train).returncode == 0  # the fork alone goes on in the folder; the file stays
    again = run(*train, *KNOBS)
    assert again.returncode == 0 and "was written beside another snapshot than network-snapshot.pkl; the memory starts empty" in again.stdout


def test_state_that_cannot_be_written_or_read_is_said(tmp_path, capsys):
    host = Host(madr_loss())
    host.loss.host_keeps_state = False
    host.step()
    snapshot = dict(G=host.synthesis, D=host.D)
    snapshots._keep(host.loss, snapshot, str(tmp_path / "absent" / "x" / "s.pkl") if (tmp_path / "absent").write_text("a file") else "")
    assert "could not be kept beside" in capsys.readouterr().out
    snapshots._keep(host.loss, snapshot, None)
    assert "no file of its own" in capsys.readouterr().out
    snapshots._keep(host.loss, snapshot, str(tmp_path / "s.pkl.tmp"))  # as loops that write atomically open it
    found = snapshots.read(snapshot, str(tmp_path / "s.pkl"))
    assert int(found.state["step"]) == 1 and not found.fault
    (tmp_path / "s.madr.pt").write_bytes(b"half")
    assert "is damaged" in snapshots.read(snapshot, str(tmp_path / "s.pkl")).fault


def test_a_snapshot_that_was_only_looked_at_is_not_the_one_resumed(monkeypatch):
    host, other = Host(madr_loss(), seed=0), Host(madr_loss(), seed=1)
    monkeypatch.setattr(snapshots, "_seen", [snapshots.read(dict(D=host.D), None), snapshots.read(dict(D=other.D), "b.pkl")])
    assert snapshots.resumed_by(host.D, None, host.synthesis).path == "the snapshot" and snapshots._seen == []
    assert snapshots.resumed_by(host.D, None, host.synthesis) is None
    snapshots._seen.append(snapshots.read(dict(G=host.synthesis, D=other.D), "b.pkl"))
    assert "other networks" in snapshots.resumed_by(host.D, None, other.synthesis).fault
    snapshots._seen.append(snapshots.read(dict(G=host.synthesis, D=other.D), "b.pkl"))
    assert "holds no MADR state" in snapshots.resumed_by(host.D, None, host.synthesis).fault  # G alone was restored
    snapshots._seen.append(snapshots.read(dict(D=other.D), "b.pkl"))
    assert snapshots.resumed_by(host.D, None, host.synthesis).fault == "the run goes on with other networks than those of b.pkl"


def test_pickling_other_things_and_unwatching(tmp_path):
    original = pickle.dump
    host = Host(madr_loss())
    try:
        snapshots.keep_state_of(host.loss), snapshots.keep_state_of(host.loss)
        with open(tmp_path / "a.pkl", "wb") as file:
            pickle.dump(dict(G_ema=host.synthesis), file)
        assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]
    finally:
        snapshots.unwatch()
    assert pickle.dump is original


def test_steps_are_ended_by_the_number_of_microbatches_of_the_one_before():
    """In hosts whose loss is not told which microbatch is the last, so that a snapshot after G's phase has the whole step."""
    host = Host(madr_loss())
    host.loss.signature = host.loss.signature.replace(parameters=[p for p in host.loss.signature.parameters.values() if p.name != "sync"])
    base = host.loss.base.accumulate_gradients
    host.loss.base.accumulate_gradients = lambda phase, real_img, real_c, gen_z, gen_c, gain: base(
        phase, real_img, real_c, gen_z, gen_c, sync=True, gain=gain
    )

    def phase(name, rounds):
        host.set_learning(name)
        for k in range(rounds):
            real, real_c, z, c = host.microbatch(0, k)
            host.loss.accumulate_gradients(name, real, real_c, z, c, gain=1 / rounds)
        return host.loss.engine.step if host.loss.engine else 0

    assert [phase("Gmain", 2), phase("Dmain", 1)] == [0, 1]
    assert [phase("Gmain", 2), phase("Dmain", 1)] == [2, 2]
    assert [phase("Gmain", 1), phase("Dmain", 1)] == [2, 3]  # fewer: the next phase ends it
    assert [phase("Gmain", 1), phase("Dmain", 1)] == [4, 4]
    assert [phase("Gmain", 3), phase("Dmain", 1)] == [5, 6]  # more: this once it counts as two
    assert [phase("Gmain", 3), phase("Dmain", 1)] == [7, 7]


def test_a_loss_that_takes_the_generator_beside_its_parts(make_fork):
    style = edited(
        FIRST_STYLE,
        training__loss=[("device, G_mapping, G_synthesis, D", "device, G, G_mapping, G_synthesis, D")],
        training__training_loop=[("dict(G_mapping=G.mapping", "dict(G=G, G_mapping=G.mapping")],
    )
    fork, run = make_fork(style)
    done = run("-m", "madr_plugin", fork / "train.py", f"--outdir={fork}", *KNOBS)
    assert done.returncode == 0 and "loss is MADRLoss" in done.stdout, done.stdout + done.stderr


def test_digests_tell_networks_apart():
    torch.manual_seed(0)
    one, two = torch.nn.Linear(2, 2).to(torch.bfloat16), torch.nn.Linear(2, 2)
    assert snapshots.digest_of(one) == snapshots.digest_of(one) != snapshots.digest_of(two) != snapshots.digest_of(two.double())
