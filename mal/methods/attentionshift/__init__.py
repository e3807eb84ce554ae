"""AttentionShift (Liao et al., "AttentionShift: Iteratively Estimated Part-Based Attention Map for Pointly Supervised
Instance Segmentation", CVPR 2023): instance masks from one point per object. One file per step of the method."""
