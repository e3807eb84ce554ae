"""report.html: one self-contained page of all that a store holds. `python -m analysis.report` writes it."""
