"""The words of an expression."""

from unicodedata import normalize

DROPPED = ".,'!?\"()*#:;"
SPLITTING = "-/"
_TABLE = str.maketrans(SPLITTING, " " * len(SPLITTING), DROPPED)


def words(text: str) -> list[str]:
    """The words of an expression as the vocabulary has them: lower case, without `DROPPED`, split at spaces, `-` and
    `/` (R). A letter and its accent are one character (NFC), however they were typed."""
    return normalize("NFC", text.lower()).translate(_TABLE).split()
