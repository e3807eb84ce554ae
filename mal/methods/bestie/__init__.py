"""BESTIE (Kim et al., CVPR 2022) learned from points: class maps, then centres and offsets. docs/method/bestie.md."""
