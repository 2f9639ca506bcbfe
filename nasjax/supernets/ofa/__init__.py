"""What Once-for-All published: its names of tensors, its lists of choices."""
