"""The names of all metrics under their headings, and limits of flags: what --help of calc_metrics.py shows, apart from what imports torch.

NAMES is written by docs/make_reference.py from the rows of the metrics.
"""

MAX_SEED = 2**31 - 1
NUM_MODES = 1000  # of stacked digits

# fmt: off
NAMES = {
    "Recommended": ["fid50k_full", "kid50k_full", "pr50k3_full", "ppl2_wend", "is50k", "fd_dino50k_full"],
    "Older forms: at most 50,000 reals, mirrored as in the training": ["fid50k", "kid50k", "pr50k3", "ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend"],
    "Quick looks: 10,000 generated images, not comparable with 50,000": ["fid10k_full", "kid10k_full", "pr10k3_full"],
    "Stacked digits": ["madr_modes", "madr_modes5k"],
    "Diversity in the feature space of --metric-space": ["madr_precision", "madr_precision_10k", "madr_recall", "madr_recall_10k", "madr_density", "madr_density_10k", "madr_coverage", "madr_coverage_10k", "madr_prdc", "madr_prdc_10k", "madr_smooth_recall", "madr_smooth_recall_10k", "madr_vendi", "madr_vendi_10k", "madr_authenticity", "madr_authenticity_10k", "madr_ndb", "madr_ndb_10k", "madr_cycling"],
    "Against held-out reals, given with --held-out": ["madr_fdr", "madr_fdr_10k", "madr_swr", "madr_swr_10k", "madr_coverage_ratio", "madr_coverage_ratio_10k", "madr_rare_classes", "madr_rare_classes_10k"],
}
