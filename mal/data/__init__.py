"""Files of annotations and images: read, check, draw, crop, write."""
