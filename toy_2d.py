"""Compare methods on a ring or grid of Gaussians in a minute; the work is done by experiments/toy_2d.py.

python toy_2d.py --layout=grid --seeds=3
"""

from dnnlib import cli
from experiments.toy_2d import main

if __name__ == "__main__":
    cli.run(main)
