"""Quantities as plans and messages print them."""

import math


def clock(seconds: float) -> str:
    """Hours and minutes, rounded up: `1:05 h`."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02} h"


def spaced(value: float) -> str:
    """To a tenth, thousands apart."""
    return f"{value:,.1f}".replace(",", " ")


def times(count: int) -> str:
    """How often."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
