"""Words for people, and texts of theirs, that more than one room needs."""

_VERSION_CHARACTERS = 12


def counted(number: int, thing: str) -> str:
    """Says how many there are of a thing: "1 value", "5,000 values"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def short_version(version: str) -> str:
    """Returns as much of the SHA-256 of a model as a person needs to tell two apart."""
    return version[:_VERSION_CHARACTERS]


def is_unicode(text: str) -> bool:
    """Returns whether a text can be encoded: an escape in JSON may leave half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
