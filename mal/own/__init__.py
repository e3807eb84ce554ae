"""Masks for files of one's own: what the commands label, autolabel, check and review do."""
