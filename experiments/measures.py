"""Names the measures that the tables of the studies show: (name in the file, heading, digits, whether more is better)."""

STACKED = [
    ("modes", "modes of 1000", 0, True),
    ("modes_5hits", "hit 5 times", 0, True),
    ("kl", "KL (nats)", 2, False),
    ("frechet", "Frechet distance", 1, False),
    ("confidence", "confidence", 2, True),
    ("seconds", "CPU s", 0, False),
]
DIGITS = {
    "stacked": STACKED,
    "stacked28": STACKED,
    "longtail": [
        ("rare_share", "rare classes' share / true", 2, True),
        ("classes", "classes held, of 10", 1, True),
        ("rare_classes", "rare ones, of 4", 1, True),
        ("clear", "clear images", 2, True),
        ("total_variation", "classes' shares off by", 3, False),
        ("frechet", "Frechet distance", 1, False),
        ("seconds", "CPU s", 0, False),
    ],
    "colored": [
        ("minority_share", "rare colour / true", 2, True),
        ("minority_clear", "clear ones of it", 2, True),
        ("clear", "clear images", 2, True),
        ("blended", "of both colours", 3, False),
        ("frechet", "Frechet distance", 1, False),
        ("seconds", "CPU s", 0, False),
    ],
}
BACKBONE = [
    ("coverage", "coverage", 3, True),
    ("recall", "recall", 3, True),
    ("precision", "precision", 3, True),
    ("frechet", "Frechet distance", 1, False),
    ("held_out_coverage", "coverage, random conv.", 3, True),
    ("held_out_frechet", "Frechet, random conv.", 3, False),
]
EXTRA = {
    "emoji32": [("rare_share", "rare share / true", 2, True)],
    "stacked-mnist": [("madr_modes", "modes of 1000", 0, True), ("madr_modes_kl", "KL (nats)", 2, False)],
}
# Of the study of remembered moments.
TIME = ("seconds_per_kimg", "s per kimg", 1, False)
STACKED32 = [
    ("madr_modes", "modes of 1000", 0, True),
    ("madr_modes_5hits", "hit 5 times", 0, True),
    ("madr_modes_kl", "KL (nats)", 2, False),
    ("digits_frechet", "Frechet, digit classifier", 1, False),
    ("recall", "recall, random conv.", 3, True),
    ("coverage", "coverage, random conv.", 3, True),
    ("frechet", "Frechet, random conv.", 3, False),
    TIME,
]
EMOJI_PARTS = [
    ("coverage", "coverage", 3, True),
    ("recall", "recall", 3, True),
    ("precision", "precision", 3, True),
    ("density", "density", 3, True),
    ("frechet", "Frechet distance", 1, False),
    ("frechet_over_held_out", "over that of the held-out part", 2, False),
    ("authenticity", "authenticity, %", 1, True),
    ("held_out_coverage", "coverage, random conv.", 3, True),
    ("held_out_recall", "recall, random conv.", 3, True),
    ("held_out_frechet", "Frechet, random conv.", 3, False),
    ("rare_share", "rare share / true", 2, True),
    TIME,
]
TOY = [
    ("modes", "modes held", 1, True),
    ("hit", "modes hit", 1, True),
    ("quality", "high quality", 2, True),
    ("kl", "KL", 3, False),
    ("seconds", "CPU s", 0, False),
]

PLANTED = [
    ("clear", "drawn over truth", 2, True),
    ("unclear", "with unclear images", 2, True),
    ("perfect", "a perfect sensor", 2, True),
    ("rarest_clear", "rarest class", 2, True),
    ("rarest_unclear", "rarest, unclear images", 2, True),
    ("at_rest", "nothing left out", 2, True),
    ("moved", "moved then", 3, False),
]
FORGETTING = [("forgetting", "forgetting (nats)", 3, False), ("cycling", "cycling", 2, False), ("modes", "modes held, of 8", 1, True)]
