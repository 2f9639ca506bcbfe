"""What is raised for invalid settings, files and data."""


class ConfigError(ValueError):
    """A person's mistake: what is wrong, where, what is allowed and what to do, in one line.

    The command line prints it and exits with code 2. Every other exception is a bug of nasjax, keeps its traceback and
    exits with code 1.
    """
