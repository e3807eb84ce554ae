"""Images with an alpha channel or a transparent colour, as viewers on a light page show them."""

from PIL import Image


def on_white(image: Image.Image) -> Image.Image:
    """An image composited over white, RGBA; the same image where nothing of it is transparent."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
