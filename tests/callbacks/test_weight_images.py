"""When the weights are drawn."""

import io

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_images_over_time(run):
    folder = run("experiment=report_l2", "l2=[0,2]", "epochs=2")
    events = EventAccumulator(str(folder), {"images": 0}).Reload()
    images = events.Images("weights")
    assert [image.step for image in images] == [28, 56, 112, 224, 280]
    picture = Image.open(io.BytesIO(images[-1].encoded_image_string))
    assert picture.size == (images[-1].width, images[-1].height) == (10 * 60, 2 * 60)
