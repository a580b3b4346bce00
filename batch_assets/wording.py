"""Words for people that more than one room needs."""


def counted(number: int, thing: str) -> str:
    """Says how many there are of a thing: "1 value", "5,000 values"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
