"""Layers in the forms that a CPU runs fast: micro-batches that stay in its caches, convolutions by shape."""
