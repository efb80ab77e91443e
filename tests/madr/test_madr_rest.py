"""What a run's log says while MADR's terms do nothing yet."""

from types import SimpleNamespace

import torch

from madr_plugin.config import resolve
from madr_plugin.host import rest
from tests.madr.toy_host import Host, madr_loss


def looked(shares, **knobs):
    """Sentences for shares of the terms' strength, one look each."""
    config = resolve(knobs)
    teller, found = rest.Rest(config), []
    for index, share in enumerate(shares):
        strength = SimpleNamespace(share=lambda name, share=share: share, of_objective=lambda: 1.0, controller=None)
        found.append(teller.sentences(SimpleNamespace(step=8 + index, nimg=100 * index, strength=strength, config=config)))
    return [" ".join(sentences)[:11] for sentences in found]


def test_rest_and_beginning_are_said_once_each():
    assert looked([0, 0, 0.01, 0.3, 0.3, 0]) == ["MADR rests:", "", "", "MADR begins", "", ""]
    assert looked([0.5] + [0] * 9) == ["MADR begins", *[""] * 7, "MADR rests:", ""]
    assert looked([0.01, 0.5, 0]) == ["", "MADR begins", ""]
    assert looked([0, 1], weight=0, replay_weight=0) == ["", ""]


def test_a_run_says_that_its_terms_wait_and_when_they_begin(capsys):
    host = Host(madr_loss(dict(preset="paper", extractor="pca", capacity=512, update_interval=1, start_fill=0.5)))
    for _ in range(34):
        host.step()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("MADR rests", "MADR begins"))]
    assert len(lines) == 2 and "its memory holds 128 samples, and its term starts with 256" in lines[0]
    assert lines[1].startswith("MADR begins: from step 33 (kimg 0.5) its terms act, now with ")


def test_a_run_without_signal_says_so(capsys):
    host = Host(madr_loss())
    for signal in host.loss.engine.strength.signals.values():
        signal.power, signal.null, signal.update = torch.tensor(1.0), torch.tensor(2.0), lambda power, null: None
    for _ in range(9):
        host.step()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MADR rests: at step 8 (kimg 0.1)")]
    assert len(lines) == 1 and "no more deviation from the reals than chance would" in lines[0]
