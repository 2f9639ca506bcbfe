"""Facts about the super-networks that Hardware-aware Transformers publishes."""
