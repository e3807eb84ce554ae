"""AttentionShift (Liao et al., "AttentionShift: Iteratively Estimated Part-Based Attention Map for Pointly Supervised
Instance Segmentation", CVPR 2023): instance masks learned from points. One file per step of the method;
docs/method/attentionshift.md has the facts."""
