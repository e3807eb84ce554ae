"""SimFormer (Chen et al., "Weak-Shot Semantic Segmentation via Dual Similarity Transfer", NeurIPS 2022): masks of novel
classes from image-level labels, beside base classes with masks. docs/method/simformer.md has the facts."""
