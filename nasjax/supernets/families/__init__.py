"""Architecture families of super-networks, one file each: stages, configuration, network."""
