"""A table over training runs: methods x seeds -> mean, standard error, paired difference. Runs in (training/run_set), text out."""
