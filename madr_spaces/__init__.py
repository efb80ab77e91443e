"""Feature spaces, and what is computed in them: one shelf under the metrics and the plugin, in forks as here.

names.py has the names, registry.py makes a space from its name. torch and numpy alone are imported with it; timm, faiss,
safetensors and the model hub's client when a space needs them. Must not know a host, a data set class, a metric or a loss.
"""
