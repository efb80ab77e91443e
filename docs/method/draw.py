"""Draws the figure of docs/method.md: python docs/method/draw.py, which writes docs/method/method.png."""

import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import patches, pyplot as plt

OUT = pathlib.Path(__file__).with_name("method.png")
HOST, MADR, REALS = "#5b6470", "#c2410c", "#1d4ed8"
FILLS = {HOST: "#f1f3f5", MADR: "#fff1e6", REALS: "#e8efff"}

# name: (left, bottom, width, height, colour, text)
BOXES = {
    "z": (0.2, 7.7, 1.9, 1.1, HOST, "latents z"),
    "G": (3.2, 7.7, 1.7, 1.1, HOST, "generator G"),
    "image": (6.0, 7.7, 1.9, 1.1, HOST, "image"),
    "augment": (9.3, 7.7, 2.2, 1.1, HOST, "augmentation"),
    "D": (12.6, 7.7, 2.0, 1.1, HOST, "discriminator D"),
    "loss": (15.8, 7.7, 2.2, 1.1, HOST, "adversarial\nloss"),
    "reals": (15.2, 5.7, 2.8, 1.0, REALS, "real images"),
    "real features": (14.6, 3.6, 3.4, 1.2, REALS, "their features φ\nin k-means cells"),
    "phi": (5.6, 4.6, 2.5, 1.1, MADR, "frozen\nfeatures φ"),
    "witness": (9.3, 4.4, 3.4, 1.4, MADR, "witness: push apart\nwhere crowded, pull\nto reals left out"),
    "strength": (9.3, 6.25, 3.4, 1.0, MADR, "strength λ: balance\n× measured signal"),
    "memory": (5.0, 2.55, 3.4, 1.4, MADR, "memory: mean and\ncovariance of what was\ngenerated lately"),
    "moments": (9.3, 2.55, 3.4, 1.4, MADR, "moments: push these,\nwith the batch blended in,\nto those of the reals"),
    "cells": (9.3, 0.6, 3.9, 1.4, MADR, "deficits: fine cells that\nthe last thousands of\nimages leave out"),
}
# (points, colour, dashed, label, place of the label, its alignment)
ARROWS = [
    ([(2.1, 8.25), (3.2, 8.25)], HOST, False, None, None, None),
    ([(4.9, 8.25), (6.0, 8.25)], HOST, False, None, None, None),
    ([(7.9, 8.25), (9.3, 8.25)], HOST, False, None, None, None),
    ([(11.5, 8.25), (12.6, 8.25)], HOST, False, None, None, None),
    ([(14.6, 8.25), (15.8, 8.25)], HOST, False, None, None, None),
    ([(16.9, 8.8), (16.9, 9.6), (6.95, 9.6), (6.95, 8.8)], HOST, True, "adversarial gradient, on its way to G", (11.9, 9.75), "center"),
    ([(6.95, 9.6), (4.05, 9.6), (4.05, 8.8)], HOST, True, None, None, None),
    ([(15.2, 6.2), (13.6, 6.2), (13.6, 7.7)], REALS, False, None, None, None),
    ([(16.6, 5.7), (16.6, 4.8)], REALS, False, None, None, None),
    ([(14.6, 4.65), (12.7, 4.65)], REALS, False, None, None, None),
    ([(14.6, 3.78), (12.7, 3.78)], REALS, False, None, None, None),
    ([(15.6, 3.6), (15.6, 1.6), (13.2, 1.6)], REALS, False, None, None, None),
    ([(6.4, 7.7), (6.4, 5.7)], MADR, False, None, None, None),
    ([(8.1, 5.15), (9.3, 5.15)], MADR, False, None, None, None),
    ([(11.0, 5.8), (11.0, 6.25)], MADR, False, None, None, None),
    ([(9.3, 3.6), (8.85, 3.6), (8.85, 6.5), (9.3, 6.5)], MADR, False, None, None, None),
    ([(9.3, 6.95), (7.5, 6.95), (7.5, 7.7)], MADR, False, "the tap", (7.7, 7.3), "left"),
    ([(6.8, 4.6), (6.8, 3.95)], MADR, False, None, None, None),
    ([(8.4, 3.1), (9.3, 3.1)], MADR, False, None, None, None),
    ([(5.6, 5.15), (4.4, 5.15), (4.4, 1.3), (9.3, 1.3)], MADR, False, None, None, None),
    ([(13.2, 1.0), (18.5, 1.0), (18.5, 6.2), (18.0, 6.2)], MADR, False, "tilt: D and the witness see more of these", (15.9, 0.6), "center"),
]


def main():
    """Write the figure."""
    figure, axes = plt.subplots(figsize=(9.6, 5.2), dpi=200)
    axes.set_xlim(0, 18.8)
    axes.set_ylim(0, 10.2)
    axes.axis("off")
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.995)
    for left, bottom, width, height, colour, words in BOXES.values():
        axes.add_patch(
            patches.FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.15", ec=colour, fc=FILLS[colour], lw=1.3)
        )
        axes.text(left + width / 2, bottom + height / 2, words, ha="center", va="center", fontsize=8.3, color="#111827")
    for points, colour, dashed, label, place, alignment in ARROWS:
        style = dict(color=colour, lw=1.5, ls=(0, (4, 2)) if dashed else "solid")
        if len(points) > 2:
            axes.plot(*zip(*points[:-1]), solid_joinstyle="miter", solid_capstyle="butt", **style)
        axes.annotate("", points[-1], points[-2], arrowprops=dict(arrowstyle="-|>", shrinkA=0, shrinkB=0, mutation_scale=11, **style))
        if label:
            axes.text(*place, label, ha=alignment, va="center", fontsize=7.8, color=colour)
    figure.savefig(OUT, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
