"""A table over training runs: methods x seeds -> mean, standard error, paired difference. Reads run folders, writes nothing."""
