"""The second training of a plain network: which commands are run, what is taken up again, what a failed one leaves."""

import json

import pytest
from click.testing import CliRunner

from experiments import finish


@pytest.fixture
def commands(monkeypatch):
    """The commands that would run; each training leaves the network of its last kimg, the judge prints two lines."""
    begun = []

    def run(words, log, stop, stdout=None):
        begun.append(words)
        flags = dict(word.removeprefix("--").split("=", 1) for word in words[1:] if "=" in word)
        if words[0] == "train.py":
            folder = finish.Path(flags["outdir"]) / f"{len(begun):05d}-digits-tiny"
            folder.mkdir()
            (folder / f"network-snapshot-{int(flags['kimg']):06d}.pkl").write_bytes(b"")
        else:
            per_space = {"pca": {"ratio": 1.5}, "random-conv": {"ratio": 4.0}, "random": {"ratio": 5.0}}
            second = dict(metric="madr_fdr_10k", results={"madr_fdr_10k": 3.5}, facts=dict(per_space=per_space))
            stdout.write(b'note\n{"results": {"madr_modes5k": 700.0}, "metric": "madr_modes5k"}\n' + json.dumps(second).encode() + b"\n")
        return 7.0

    monkeypatch.setattr(finish, "run", run)
    return begun


def call(tmp_path, method, *flags):
    for name in ("digits.zip", "other.zip"):
        (tmp_path / name).write_bytes(b"")
    place = [f"--data={tmp_path / 'digits.zip'}", f"--held-out={tmp_path / 'other.zip'}", f"--outdir={tmp_path / 'bed' / method / 'seed-3'}"]
    result = CliRunner().invoke(finish.main, [*place, "--seed=3", "--begin-kimg=4", "--kimg=2", *flags], standalone_mode=False)
    assert result.exception is None, result.exception
    return result


def test_methods_share_the_plain_network_and_differ_in_the_second_part(tmp_path, commands):
    call(tmp_path, "plain", "--madr=0", "--glr=0.001")
    call(tmp_path, "moments", "--madr=1", "--madr-preset=moments", "--glr=0.001")
    begun, plain, _judge, moments, _judge_of_moments = commands
    network = begun[1].partition("=")[2] + "/00001-digits-tiny/network-snapshot-000004.pkl"
    assert begun[0] == "train.py" and "--madr=0" in begun and "--kimg=4" in begun and begun[1].endswith("bed/begun/seed-3")
    assert f"--resume={network}" in plain and f"--resume={network}" in moments
    assert set(moments) - set(plain) == {f"--outdir={tmp_path / 'bed' / 'moments' / 'seed-3'}", "--madr=1", "--madr-preset=moments"}
    result = json.loads((tmp_path / "bed" / "moments" / "seed-3" / "result.json").read_text())
    assert result == dict(madr_modes5k=700.0, madr_fdr=3.5, madr_fdr_unled=4.5, kimg=2, begin_kimg=4, seconds=7.0, cpu_seconds=7.0)


def test_what_was_stopped_goes_on_from_its_state_and_not_from_the_pickle(tmp_path, commands):
    folder = tmp_path / "bed" / "plain" / "seed-3" / "00000-digits-tiny"
    folder.mkdir(parents=True)
    (folder / "training-state-000001.pt").write_bytes(b"")
    call(tmp_path, "plain", "--madr=0")
    second = commands[1]
    assert [word for word in second if word.startswith("--resume=")] == ["--resume=latest"]
    assert json.loads((tmp_path / "bed" / "plain" / "seed-3" / "result.json").read_text())["cpu_seconds"] is None  # of a part that nobody saw end


def test_a_command_that_fails_ends_the_run_without_a_result(tmp_path, monkeypatch):
    def run(words, log, stop, stdout=None):
        raise finish.CommandFailed(3)

    monkeypatch.setattr(finish, "run", run)
    assert call(tmp_path, "plain", "--madr=0").return_value == 3
    assert not (tmp_path / "bed" / "plain" / "seed-3" / "result.json").exists()
