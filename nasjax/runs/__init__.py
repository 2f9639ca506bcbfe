"""What a search leaves on disk: the run folder, the archive of measurements, and how both are read again."""
