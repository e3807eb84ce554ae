"""Image encoders: timm backbones, feature maps and attention maps."""
