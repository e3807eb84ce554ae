"""Detectors that propose regions and read each: Mask R-CNN and Cascade Mask R-CNN, on torchvision or detectron2."""
