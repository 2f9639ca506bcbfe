"""Words that depend on a number."""


def plural(count: int | str, noun: str) -> str:
    """A count with its noun: "1 network", "1,234 networks"; a count that is text stays as it is."""
    number = count if isinstance(count, str) else f"{count:,}"
    return f"{number} {noun}{'' if number == '1' else 's'}"
