"""Settings of one kind against each other, such as encoders: `python -m analysis.compare`."""
