"""SimFormer (Chen et al., "Weak-shot Semantic Segmentation via Dual Similarity Transfer", NeurIPS 2022): class maps
learned from masks of some classes and image-level labels of the others; docs/method/simformer.md has the facts."""
