"""Partial-RES: the masks that expressions mean, as sequences of contour points, from boxes and few masks."""
