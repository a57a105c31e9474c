"""The compiled sums beside the products of :class:`medsynth.skin.upsampling._Places`."""

from medsynth.compiled import compiled


@compiled
def placed(products, bias, height, width, out):  # type: ignore[no-untyped-def]
    """A picture twice as large, of the sixteen times ``len(bias)`` numbers that each pixel has; all arrays are flat."""
    size = len(bias)
    for y in range(2 * height):
        above = (y + 1) // 2 - 1
        for x in range(2 * width):
            left = (x + 1) // 2 - 1
            at = (y * 2 * width + x) * size
            for c in range(size):
                out[at + c] = bias[c]
            # A pixel's sixteen lie around it, from (2 i - 1, 2 j - 1) on.
            for i in range(max(above, 0), min(above + 2, height)):
                for j in range(max(left, 0), min(left + 2, width)):
                    start = ((i * width + j) * 16 + (y + 1 - 2 * i) * 4 + x + 1 - 2 * j) * size
                    for c in range(size):
                        out[at + c] += products[start + c]


@compiled
def placed_back(gradient, height, width, products):  # type: ignore[no-untyped-def]
    """The gradient of the numbers that each pixel has, from that of a picture twice as large; all arrays are flat."""
    size = len(gradient) // (4 * height * width)
    for i in range(height):
        for j in range(width):
            for place in range(16):
                y, x = 2 * i - 1 + place // 4, 2 * j - 1 + place % 4
                inside = 0 <= y < 2 * height and 0 <= x < 2 * width
                start = ((i * width + j) * 16 + place) * size
                for c in range(size):
                    products[start + c] = gradient[(y * 2 * width + x) * size + c] if inside else 0
