"""AttentionShift: instance masks learned from points; docs/method/attentionshift.md has the facts."""
