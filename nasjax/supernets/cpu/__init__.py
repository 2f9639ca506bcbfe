"""Layers in forms that are fast on a CPU: micro-batches that stay in its caches, convolutions chosen by shape."""
