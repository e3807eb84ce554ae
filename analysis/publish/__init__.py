"""Results that others may have: `python -m analysis.publish`."""
