"""The claims of experiments/claims.py, as data: of the published paper, of the remedies proposed for it, of this project; and what to use when."""

from experiments.claims import Claim, Gain, Level, NotMeasured, Speed, StepTime
from experiments.default_choice import DEFAULT as OURS
from experiments.moments import PHOTO_ATTEMPT
from experiments.published_terms import PATH as TERMS_PATH

_DIGITS, _EMOJI, _EMOJI_HELD_OUT = "backbone-stacked-digits-20kimg.json", "backbone-emoji32-40kimg.json", "backbone-emoji32-train-40kimg.json"
_MNIST = "backbone-stacked-mnist-40kimg.json"
_CIFAR = "`python -m experiments.run cifar10 --outdir=OUTDIR --file cifar10=PATH`"
_WITH_PUBLISHED = "`python train.py --outdir=runs --data=ZIP --madr=1 --madr-preset="


def _toy_command(layout, folder, *methods, steps=2500):
    return f"`python toy_2d.py --layout={layout} --steps={steps} --seeds={{seeds}} --methods={','.join(methods)} --outdir=experiments/results/toy{folder}`"


def _on_ring(ours, other):
    """Modes held on the ring, and what would decide."""
    return Gain("toy/ring.json", ours, other, "modes", "modes held, of 8", 1, least=1), _toy_command("ring", "", other, ours)


def _remedy_on_ring(ours):
    """The same of the runs with the published remedies, which one command makes."""
    return Gain("toy/published/ring.json", ours, "paper", "modes", "modes held, of 8", 1, least=1), _REMEDIES_COMMAND


def _weak_d(bed, ours, other):
    """Modes of Stacked MNIST before a weak discriminator, and what would decide."""
    own_file = f" --out=experiments/results/{bed}.json" if "/" in bed else ""
    command = (
        f"`python -m experiments.digits_study --bed={bed.rpartition('/')[2]} --mnist=FOLDER --methods={other},{ours} --seeds={{seeds}}{own_file}`"
    )
    return Gain(f"{bed}.json", ours, other, "modes", "modes of 1000", 0, least=50), command


def _stylegan2(file, data, kimg, ours, other, *measure):
    """A measure of StyleGAN2, and what would decide. measure: as Gain takes it from `measure` on."""
    command = f"`python -m experiments.backbone --data {data}=ZIP --kimg={kimg} --methods={other},{ours} --seeds={{seeds}}`, then `python -m experiments.backbone_results`"
    return Gain(file, ours, other, *measure), command


def _small_modes(ours, other):
    command = _toy_command("imbalanced", "", other, ours, steps=5000)
    return Gain("toy/imbalanced.json", ours, other, "modes", "modes held, of 8", 1, least=0.5), command


def _where_known(measurement, measure, heading, digits, kind, bound):
    return Level(TERMS_PATH.name, measurement, measure, heading, digits, kind, bound), "`python -m experiments.published_terms --seeds={seeds}`"


def _step_time(bed, method, bound):
    return StepTime(bed, method, bound), "`python benchmarks/madr_cost.py` on an idle machine"


_STRENGTH = "strength with half of 20 modes missing, less that with none"
_GRADIENT = "mean gradient on the scale of a generator that is right"
_REMEDIES_COMMAND = _toy_command("ring", "/published", "paper", "paper+progressive", "paper+importance", "paper+adaptive", "enhanced")

PAPER = (
    Claim("The coverage term costs 15 to 20% of a step: StyleGAN2 of `--cfg=tiny`, 32 px, features `pca`", *_step_time("tiny", "paper", 1.2)),
    Claim("The same: DCGAN, 14 px, features `pca`", *_step_time("dcgan", "paper", 1.2)),
    Claim(
        "The same: DINO's features, 256 px",
        NotMeasured("needs a GPU and DINO's weights"),
        f"{_WITH_PUBLISHED}paper --kimg=2`, which tells the cost after 48 steps",
    ),
    Claim("Replay keeps modes that a plain GAN loses: ring of 8", *_on_ring("paper", "plain")),
    Claim("The same: Stacked MNIST before a weak D, 14 px", *_weak_d("stacked", "paper", "plain")),
    Claim("The same: Stacked MNIST before a weak D, 28 px", *_weak_d("stacked28", "paper", "plain")),
    Claim(
        "Modes are no longer lost and found in turn: ring of 8",
        Gain("toy/ring.json", "paper", "plain", "cycling", "cycling", 2, least=0.1, higher_is_better=False),
        _toy_command("ring", "", "plain", "paper"),
    ),
    Claim(
        "The equilibrium stays: where generated and real agree, the term does not move the generator",
        *_where_known("at equilibrium", "paper", _GRADIENT, 3, "equal", 0),
    ),
    Claim(
        "The strength follows recall, so that it rises where half of the modes are missing",
        *_where_known("half of the modes missing", "strength_gained", _STRENGTH, 3, "at least", 0.1),
    ),
    Claim(
        "The weights favour neglected modes",
        *_where_known(
            "half of the modes missing", "weight_of_missing", "mean weight of reals of missing modes, over that of others", 3, "at least", 2
        ),
    ),
    Claim("Stacked MNIST has 777 modes", *_where_known("triples of digits", "modes", "modes among 50,000 triples of digits", 0, "equal", 777)),
    Claim("CIFAR-10 is covered better", NotMeasured("needs a GPU"), f"{_CIFAR}, with a row for `--madr-preset=paper`"),
    Claim(
        "CelebA-HQ at 64 px is covered better",
        NotMeasured("needs a GPU"),
        "`python -m experiments.run celeba-hq-64 --outdir=OUTDIR --file celeba-hq=PATH`, with a row for `--madr-preset=paper`",
    ),
    Claim(
        "DINO's features lead better than Inception's or random ones (ablations A4 to A6)",
        NotMeasured("needs a GPU and both networks' weights"),
        f"{_WITH_PUBLISHED}paper --madr-extractor=dino` and `inception`, then `python calc_metrics.py --network=A --baseline=B --metrics=madr_coverage --metric-space=dinov2`",
    ),
    Claim(
        "A reservoir of 2048 at beta 1 is the right choice (A7 to A13)",
        NotMeasured("not run on images"),
        f"{_WITH_PUBLISHED}paper --madr-extractor=pca` with `--madr-capacity=512` and so on, over seeds, then `python compare_runs.py runs/*`",
    ),
)

REMEDIES = (
    Claim("FAISS (`IndexFlatL2`, 20 nearest) makes the coverage scores ten times as fast", Speed("faiss", 10)),
    Claim(
        "The adaptive target (auto-tau) makes the strength follow missing modes",
        *_where_known("half of the modes missing", "adaptive_strength_gained", _STRENGTH, 3, "at least", 0.1),
    ),
    Claim(
        "Importance sampling keeps what is worth remembering",
        *_where_known("outliers offered", "importance", "share of outliers remembered, of 0.05 offered", 3, "at most", 0.05),
    ),
    Claim("Auto-tau keeps more modes than the fixed target: ring of 8", *_remedy_on_ring("paper+adaptive")),
    Claim("Importance sampling keeps more modes than the reservoir: ring of 8", *_remedy_on_ring("paper+importance")),
    Claim("A progressive memory keeps more modes than the reservoir: ring of 8", *_remedy_on_ring("paper+progressive")),
    Claim(
        "All remedies but the ensemble together (20 nearest, warm bandwidth, auto-tau, progressive memory) keep more modes: ring of 8",
        *_remedy_on_ring("enhanced"),
    ),
    Claim(
        "An ensemble of DINO, CLIP and ResNet-50 leads better than DINO alone",
        NotMeasured("needs a GPU and three networks' weights"),
        f"{_WITH_PUBLISHED}enhanced` and with `--madr-extractor=dino`, then `python calc_metrics.py --network=A --baseline=B --metrics=madr_coverage --metric-space=dinov2`",
    ),
)

_DEFAULT_RING = Claim("The default keeps modes that a plain GAN loses: ring of 8", *_on_ring(OURS, "plain"))
_DEFAULT_WEAK = Claim(
    "The default hits more modes than witness and replay: Stacked MNIST before a weak D, 14 px", *_weak_d("weak-d/stacked", OURS, "witness+replay")
)
_DEFAULT_EMOJI = Claim(
    "It brings the distance to held-out images down, against the memory-free witness: StyleGAN2 on emoji, 40 kimg",
    *_stylegan2(_EMOJI_HELD_OUT, "emoji32-train", 40, OURS, "witness", "frechet", "Frechet distance, MobileNetV2", 1, 1, False),
)
_PHOTO_EMOJI = Claim(
    "Moments in a photographs' network bring the distance to held-out images down in another such network, against a plain GAN: StyleGAN2 on emoji, 40 kimg",
    *_stylegan2(_EMOJI_HELD_OUT, "emoji32-train", 40, PHOTO_ATTEMPT, "plain", "frechet", "Frechet distance, MobileNetV2", 1, 1, False),
)
_OVER_WITNESS = Claim(
    "The default brings the distance down, against the memory-free witness: StyleGAN2 on Stacked Digits",
    *_stylegan2(*(_DIGITS, "stacked-digits", 20, OURS, "witness"), *("digits_frechet", "Frechet distance, digit classifier", 1, 5, False)),
)
_MEMORY_WEAK = Claim("The replay adds modes to the witness: Stacked MNIST before a weak D, 28 px", *_weak_d("stacked28", "witness+replay", "witness"))
_MOMENTS = Claim(
    "Remembered moments bring the distance down, against moments of the batch: StyleGAN2 on Stacked Digits",
    *_stylegan2(
        *(_DIGITS, "stacked-digits", 20, "witness+moments", "witness+batch-moments"),
        *("digits_frechet", "Frechet distance, digit classifier", 1, 5, False),
    ),
)
_SHORTER_MEMORY = Claim(
    "Where a step sees 64 images a shorter memory hits more modes than the usual one: Stacked MNIST before a weak D, 14 px",
    *_weak_d("weak-d/stacked", "horizon-0.2", "witness+moments"),
)
_DEFAULT_DIGITS = Claim(
    "The default brings the distance down, against a plain GAN: StyleGAN2 on Stacked Digits",
    *_stylegan2(*(_DIGITS, "stacked-digits", 20, OURS, "plain"), *("digits_frechet", "Frechet distance, digit classifier", 1, 5, False)),
)


def _finish(other, least):
    """Distances after a short second training, over those of held-out images, and what would decide."""
    measured = ("madr_fdr_unled", "Frechet distances over those of held-out images, in spaces that led no method", 1, least, False)
    command = "`python -m experiments.run finish --outdir=OUTDIR --file digits=ZIP --file held-out=ZIP`, then `python -m experiments.report finish`"
    return Gain("finish/stacked-digits.json", "moments", other, *measured), command


_FINISH = Claim(
    "A short second training with remembered moments brings distances down, against one without: StyleGAN2 on Stacked Digits", *_finish("plain", 5)
)
_FINISH_MEMORY = Claim(
    "The same, against moments of the batch",
    _finish("batch-moments", 1)[0],
    "the study `finish` (`python -m experiments.run finish`) with {seeds} seeds in its list",
)
_TILT_SMALL = Claim("The tilt holds modes of 1 and 2%: ring with small modes", *_small_modes("tilt", "witness-weight-2"))
_TILT_FINE = Claim("Its fine sensor holds more of them than the tilt of coarse cells: the same", *_small_modes("tilt-fine", "tilt"))
_DEFAULT_SMALL = Claim("The default holds modes of 1 and 2%: ring with small modes", *_small_modes(OURS, "witness"))
_RARE = ("rare_share", "share of rare classes, over their true share", 2, 0.1)
_DEFAULT_TAIL = Claim(
    "The default gives rare classes their share: long-tailed digits",
    Gain("longtail.json", OURS, "plain", *_RARE),
    "`python -m experiments.digits_study --bed=longtail --mnist=FOLDER --methods=plain,moments+fine-tilt --seeds={seeds}`",
)
_DEFAULT_COLOUR = Claim(
    "The default gives a rare colour its share: digits of which one in a hundred is green",
    Gain("colored.json", OURS, "plain", "minority_share", "share of the rare colour, over its true share", 2, 0.1),
    "`python -m experiments.digits_study --bed=colored --mnist=FOLDER --methods=plain,moments+fine-tilt --seeds={seeds}`",
)
_TILT_EMOJI = Claim("The same: emoji, 40 kimg", *_stylegan2(_EMOJI, "emoji32", 40, "tilt", "plain", *_RARE))
_PACGAN = Claim(
    "Witness and replay hit more modes than PacGAN2: Stacked MNIST before a weak D, 28 px", *_weak_d("stacked28", "witness+replay", "pacgan2")
)

HERE = (
    _DEFAULT_RING,
    Claim(
        "The same: grid of 25, 2500 steps",
        Gain("toy/grid.json", OURS, "plain", "modes", "modes held, of 25", 1, least=1),
        _toy_command("grid", "", "plain", OURS),
    ),
    Claim(
        "It hits more of them: grid of 25, 2500 steps",
        Gain("toy/grid.json", OURS, "plain", "hit", "modes hit, of 25", 1, least=1),
        _toy_command("grid", "", "plain", OURS),
    ),
    _DEFAULT_WEAK,
    _DEFAULT_EMOJI,
    _PHOTO_EMOJI,
    Claim("Witness and replay hit more modes than PacGAN2: Stacked MNIST before a weak D, 14 px", *_weak_d("stacked", "witness+replay", "pacgan2")),
    _PACGAN,
    Claim("The witness leaves perfect generators alone", *_where_known("at equilibrium", "witness", _GRADIENT, 4, "equal", 0)),
    Claim("The replay adds modes to the witness: Stacked MNIST before a weak D, 14 px", *_weak_d("stacked", "witness+replay", "witness")),
    _MEMORY_WEAK,
    _OVER_WITNESS,
    _DEFAULT_DIGITS,
    _MOMENTS,
    Claim(
        "They raise the recall of held-out digits",
        *_stylegan2(
            *(_DIGITS, "stacked-digits", 20, "witness+moments", "witness+batch-moments"), *("recall", "recall, random convolutions", 3, 0.02)
        ),
    ),
    Claim(
        "They add modes",
        *_stylegan2(*(_DIGITS, "stacked-digits", 20, "witness+moments", "witness+batch-moments"), *("madr_modes", "modes of 1000", 0, 50)),
    ),
    Claim(
        "They add coverage of held-out images, against moments of the batch, in a space that led no method: StyleGAN2 on emoji, 40 kimg",
        *_stylegan2(
            *(_EMOJI_HELD_OUT, "emoji32-train", 40, "witness+moments", "witness+batch-moments"),
            *("held_out_coverage", "coverage, random convolutions", 3, 0.02),
        ),
    ),
    Claim(
        "The same, in a photographs' network",
        *_stylegan2(
            *(_EMOJI_HELD_OUT, "emoji32-train", 40, "witness+moments", "witness+batch-moments"), *("coverage", "coverage, MobileNetV2", 3, 0.02)
        ),
    ),
    Claim(
        "They hit modes that a plain GAN drops: StyleGAN2 on Stacked MNIST, 40 kimg",
        *_stylegan2(*(_MNIST, "stacked-mnist", 40, "witness+moments", "plain"), *("madr_modes", "modes of 1000", 0, 50)),
    ),
    Claim(
        "And that moments of the batch drop: the same",
        *_stylegan2(*(_MNIST, "stacked-mnist", 40, "witness+moments", "witness+batch-moments"), *("madr_modes", "modes of 1000", 0, 50)),
    ),
    Claim(
        "They add modes where a step sees 64 images: Stacked MNIST before a weak D, 14 px",
        *_weak_d("weak-d/stacked", "witness+moments", "witness+batch-moments"),
    ),
    _SHORTER_MEMORY,
    _FINISH,
    _FINISH_MEMORY,
    Claim("They keep more small modes than the witness: ring with small modes", *_small_modes("witness+moments", "witness")),
    _DEFAULT_SMALL,
    _TILT_SMALL,
    _TILT_FINE,
    Claim("It is the short memory that does so", *_small_modes("tilt", "tilt-without-memory")),
    _DEFAULT_TAIL,
    _DEFAULT_COLOUR,
    _TILT_EMOJI,
    Claim("The default costs at most a quarter of a step: StyleGAN2 of `--cfg=tiny`, 32 px", *_step_time("tiny", "default", 1.25)),
    Claim("Kept up to date, the published coverage scores come ten times as fast as all pairs", Speed("incremental", 10)),
)

# (your case, what to use, the claim that speaks for or against it)
RECOMMENDED = (
    ("The generator drops or cycles through modes", "`--madr=1`", _DEFAULT_RING),
    ("The discriminator is weak for its data", "`--madr=1`", _DEFAULT_WEAK),
    ("You want no memory", "`--madr=1 --madr-preset=witness`", _OVER_WITNESS),
    ("A young StyleGAN2 on digits, where distance and recall count", "`--madr=1`", _DEFAULT_DIGITS),
    ("The same, and whether its memory matters", "`--madr-moments-horizon=0` is without", _MOMENTS),
    (
        "A network is trained already",
        "`--resume=NETWORK.pkl --madr=1 --madr-preset=moments --madr-width=64 --glr=0.003 --dlr=0.003 --lr-tail=1 --kimg=6`: rates a third of those it "
        "was trained with, falling to 0 ([finish.md](finish.md))",
        _FINISH,
    ),
    ("A step sees 64 images", "`--madr=1 --madr-moments-horizon=0.2` (picked among three on the seeds of the row)", _SHORTER_MEMORY),
    ("Modes of 1 or 2% get lost", "`--madr=1`", _DEFAULT_SMALL),
    ("Rare classes of drawings get lost", "`--madr=1 --madr-preset=replay --madr-tilt=1`", _TILT_EMOJI),
    ("Rare classes of a long tail get lost", "nothing here brings them back", _DEFAULT_TAIL),
    ("A rare colour gets lost", "nothing here brings it back", _DEFAULT_COLOUR),
    (
        "Varied drawings in a StyleGAN2",
        "`--madr=1 --madr-preset=moments --madr-extractor=file:NETWORK.pt`, NETWORK of photographs; random convolutions see no gain ([moments.md](moments.md))",
        _PHOTO_EMOJI,
    ),
    (
        "Photographs",
        "nobody knows yet: `python -m experiments.run cifar10`",
        Claim("Photographs are covered better", NotMeasured("needs a GPU"), _CIFAR),
    ),
    ("You think of the published method (`--madr-preset=paper`)", "only to compare", PAPER[3]),
)
