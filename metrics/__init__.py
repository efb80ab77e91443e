"""Numbers that judge a generator: features -> statistics -> number.

The numbers themselves are pure functions (kernels, neighbours, modes); reading, sampling, caching and printing lie
around them. Must not know about training or about any plugin.
"""

# Part of every cache key and of every result line: raise it when a definition or the features' path changes.
METRICS_VERSION = 1
