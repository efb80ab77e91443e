"""Studies as rows: one file each, which holds a STUDY (experiments/study.py). `python -m experiments.run NAME` runs it."""
