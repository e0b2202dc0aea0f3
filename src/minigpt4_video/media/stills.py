"""A picture alone, by Pillow: data sets have them in archives too, and frames of videos as files."""

from contextlib import suppress
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from minigpt4_video.errors import MediaError
from minigpt4_video.media.animations import PICTURE_ERRORS, PICTURES, opened_picture
from minigpt4_video.media.sources import shown

FORMATS = [*PICTURES, "WEBP", "AVIF"]
"""Of which people have pictures, whatever their suffix; Pillow has dozens more, seldom used and the less tried."""
UPRIGHT: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_still(path: str | PathLike[str], content: bytes | None = None) -> Image.Image:
    """The picture in a file, or in the `content` of one, upright and RGB; of an animation the first. Raises
    MediaError."""
    file = Path(path)
    try:
        with opened_picture(file, file if content is None else BytesIO(content), FORMATS) as opened:
            picture = opened.convert("RGB")
            turn = None
            with suppress(*PICTURE_ERRORS):  # damaged remarks are no damage to the picture
                turn = UPRIGHT.get(opened.getexif().get(ExifTags.Base.Orientation))
            return picture if turn is None else picture.transpose(turn)
    except PICTURE_ERRORS as error:
        raise MediaError(f"{shown(file)} is not a picture that can be read: {error}.") from error
