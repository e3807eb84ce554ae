"""The words of an expression."""

from unicodedata import normalize

DROPPED = ".,'!?\"()*#:;"
SPLITTING = "-/"
# the same in print and in other scripts' widths, which stand without spaces, and what has no width at all
_DROPPED_TOO = "‘’‚‛“”„‟«»‹›…·•＂＇＃＊（）\u00ad\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff"
_SPLITTING_TOO = "‐‑‒–—―−／－、。，．！？：；"
_SPLITTING = SPLITTING + _SPLITTING_TOO
_TABLE = str.maketrans(_SPLITTING, " " * len(_SPLITTING), DROPPED + _DROPPED_TOO)


def words(text: str) -> list[str]:
    """The words of an expression as the vocabulary has them: lower case, without `DROPPED`, split at spaces, `-` and
    `/` (R), and the same of typographic quotes, dots and dashes and of other scripts' (D). A letter and its accent are
    one character (NFC), however they were typed."""
    return normalize("NFC", text.lower()).translate(_TABLE).split()
