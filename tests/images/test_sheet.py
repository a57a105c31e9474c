import io

import numpy as np
import pytest
from PIL import Image

from medsynth.images.sheet import contact_sheet


def test_pictures_stand_where_they_belong() -> None:
    red, blue = np.zeros((2, 128, 128, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    drawn = np.asarray(Image.open(io.BytesIO(contact_sheet([[red, None], [None, blue]], ["a", "b"], ["0", "1"]))))
    assert (drawn == (255, 0, 0)).all(-1).sum() == 128 * 128
    assert (drawn == (0, 0, 255)).all(-1).sum() == 128 * 128
    where_red, where_blue = (np.argwhere((drawn == colour).all(-1)).min(0) for colour in ((255, 0, 0), (0, 0, 255)))
    assert (where_blue - where_red == 132).all()


@pytest.mark.parametrize(("cell", "shown"), [(128, 128 * 64), (256, 256 * 128)])
def test_pictures_larger_than_a_cell_are_drawn_smaller(cell: int, shown: int) -> None:
    tile = np.full((512, 256, 3), (9, 99, 199), np.uint8)
    drawn = np.asarray(Image.open(io.BytesIO(contact_sheet([[tile]], ["tile"], ["0"], cell))))
    assert (drawn == (9, 99, 199)).all(-1).sum() == shown


def test_labels_must_match() -> None:
    with pytest.raises(ValueError, match="label"):
        contact_sheet([[None]], ["a", "b"], ["0"])
