"""How many images are looked at for a page; apart from those who look, because --help states the numbers and should come at once."""

NUM_GEN = 5000  # generated images, by default
NUM_REAL = 10_000  # reals of the map of coverage, by default
MAX_SEARCHED = 100_000  # training images that near copies are looked for in
