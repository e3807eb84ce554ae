"""The words of an expression."""

DROPPED = ".,'!?\"()*#:;"
SPLITTING = "-/"
_TABLE = str.maketrans(SPLITTING, " " * len(SPLITTING), DROPPED)


def words(text: str) -> list[str]:
    """The words of an expression as the vocabulary has them: lower case, without `DROPPED`, split at spaces, `-` and
    `/` (R)."""
    return text.lower().translate(_TABLE).split()
