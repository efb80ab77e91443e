"""The reasons of --dry-run: each value is told once, as it will be, and so are the warnings."""

import pytest

REASONS = [
    ([], ["learning rate of G 0.01: fixed by --cfg=tiny", "fall to 0 over the last 0.5 of the run: --cfg=tiny", "R1 gamma 0.256 = "], ["usual one"]),
    (["--cfg=auto"], ["learning rate of D 0.0025: the usual one below 1024 pixels"], ["fall to 0"]),
    (["--cfg=paper256"], ["batch size 64: fixed by --cfg=paper256", "R1 gamma 1: fixed by --cfg=paper256"], []),
    (["--gan=wgan-gp"], ["rate 0.0004", "no R1", "fall to 0"], ["0.01", "R1 gamma"]),
    (["--backbone=dcgan", "--gan=lsgan"], ["G learns by Adam, rate 0.0004, betas 0.5 and 0.999: --gan=lsgan"], ["0.0002", "learning rate of"]),
    (["--backbone=dcgan"], ["G learns by Adam, rate 0.0002", "no R1"], ["R1 gamma", "learning rate of"]),
    (["--gan=lsgan", "--method=ttur"], ["G learns by Adam, rate 0.0001, betas 0.5 and 0.999: the rate by --method=ttur"], ["rate 0.01"]),
    (["--gan=wgan", "--glr=0.003"], ["G learns by RMSprop, rate 0.003: the rate by --glr", "D learns by RMSprop, rate 5e-05"], ["G learns by RMSprop, rate 5e-05"]),
    (["--method=mode-seeking"], ["R1 gamma 0.256 = "], ["R1 gamma 0.256:"]),
    (["--gamma=3", "--lr-tail=0"], ["R1 gamma 3: --gamma, in place of 0.256", "stay as they are: --lr-tail=0"], ["fall to 0", "a rule of thumb"]),
    (["--method=mode-seeking", "--gamma=0"], ["no R1: --gamma=0"], ["R1 gamma"]),
    (["--batch=8", "--cmax=8"], ["batch size 8: --batch", "channels min(256 / r, 8) at resolution r: --cmax=8"], ["batch size 16", "sized for"]),
    (["--method=pacgan"], ["batch size 32, for as many packs"], ["batch size 16"]),
    (["--method=diffaugment"], ["no adaptive augmentation"], ["p follows D's", "use --aug=ada"]),
]  # fmt: skip


@pytest.mark.parametrize("flags, told, not_told", REASONS, ids=[" ".join(flags) for flags, *_ in REASONS])
def test_a_later_reason_takes_the_place_of_an_earlier_one(dry_run, flags, told, not_told):
    _, printed = dry_run(*flags)
    said = printed.partition("Why these values:")[2]
    why = said.partition("What it will cost")[0]
    assert all(words in said for words in told), said
    assert not [words for words in not_told if words in (said if words.startswith("use") else why)], said
