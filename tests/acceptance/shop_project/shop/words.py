"""Words of a customer's text."""

LIMIT = 4
STOP_WORD = "the"

is_loud = lambda text: text.endswith("parcel")


def shorten(text: str, limit: int) -> str:
    """The first words that matter."""
    words = [word for word in text.split() if word != STOP_WORD]
    return " ".join(words[:limit])


def number_of(text: str) -> int:
    return int(next(word for word in text.split() if word.isdigit()))
