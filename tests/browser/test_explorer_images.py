"""The Explorer's acceptance list, "Images": adding, large photos, paging, broken files."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

import pytest
from PIL import Image

from .explorer_page import ExplorerPage
from .jupyter_server import NotebookPage

pytestmark = pytest.mark.browser

SHOWN = "n => document.querySelector('.vlmx-stage').getAttribute('aria-label').startsWith(`Image ${n} of `)"
NATURAL = "() => document.querySelector('.vlmx-picture').naturalWidth"


def png(size: tuple[int, int] = (300, 200), *, noise: bool = False) -> bytes:
    stream = io.BytesIO()
    pixels = random.Random(0).randbytes(size[0] * size[1] * 3) if noise else None
    image = Image.frombytes("RGB", size, pixels) if pixels else Image.new("RGB", size, "teal")
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def give(x: ExplorerPage, how: str, name: str, mime: str, data: bytes) -> None:
    """Drop or paste a file onto the widget."""
    x.root.evaluate(
        """(node, [how, name, type, data]) => {
          const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, {type}));
          const options = {bubbles: true, cancelable: true};
          node.dispatchEvent(how === "drop" ? new DragEvent("drop", {...options, dataTransfer: transfer})
            : new ClipboardEvent("paste", {...options, clipboardData: transfer}));
        }""",
        [how, name, mime, base64.b64encode(data).decode()],
    )


def test_15_pick_drop_paste_and_upload(notebook: NotebookPage, tmp_path: Path) -> None:
    x = ExplorerPage.start(notebook, "vlm_nb.explore()")
    (notebook.server.root / "picked.png").write_bytes(png())
    x.root.get_by_label("Images", exact=True).fill("picked.png")
    x.button("Add").click()
    x.stage.and_(x.root.get_by_label("picked.png, 300 by 200")).wait_for()
    give(x, "drop", "dropped.png", "image/png", png((310, 200)))
    x.stage.and_(x.root.get_by_label("dropped.png, 310 by 200")).wait_for()
    give(x, "paste", "", "image/png", png((320, 200)))
    x.stage.and_(x.root.get_by_label("320 by 200")).wait_for()
    x.root.locator("input[type=file]").set_input_files(
        {"name": "sent.png", "mimeType": "image/png", "buffer": png((330, 200))}
    )
    x.stage.and_(x.root.get_by_label("sent.png, 330 by 200")).wait_for()
    x.page.wait_for_function("() => document.querySelectorAll('.vlmx-thumb img').length === 4")
    give(x, "drop", "notes.txt", "text/plain", b"hello")
    x.alerts.filter(has_text="notes.txt is not an image").wait_for()
    give(x, "drop", "fake.png", "image/png", b"hello")
    x.alerts.filter(has_text="fake.png").filter(has_text="not an image").wait_for()
    assert x.python("print(len(x._album.items))") == "4"


def test_15_an_error_under_add_goes_with_the_next_word_and_the_next_success(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook)
    x.wait_image()
    (notebook.server.root / "picked.png").write_bytes(png())
    source, alert = x.root.get_by_label("Images", exact=True), x.alerts.filter(has_text="no such file")
    source.fill("nowhere.png")
    x.button("Add").click()
    alert.wait_for()
    source.press("p")
    alert.wait_for(state="detached")
    source.fill("nowhere.png")
    x.button("Add").click()
    alert.wait_for()
    x.python("x.add('picked.png')")
    alert.wait_for(state="detached")


def test_18_the_strip_fills_its_row_with_whole_images(notebook: NotebookPage, screenshots: Path) -> None:
    x = ExplorerPage.start(notebook, "vlm_nb.explore([scene(i, (96, 54 + 3 * i)) for i in range(60)])")
    x.wait_image()
    row = x.rects(".vlmx-strip")[0]
    x.page.wait_for_function(
        "row => document.querySelectorAll('.vlmx-thumb img').length > row / 52", arg=row["w"]
    )
    thumbs = x.rects(".vlmx-thumb")
    assert 0 <= row["x"] + row["w"] - thumbs[-1]["x"] - thumbs[-1]["w"] < 48
    fit = x.root.locator(".vlmx-thumb img").first.evaluate("node => getComputedStyle(node).objectFit")
    assert fit == "contain"
    x.shoot(screenshots / f"explorer-{notebook.server.app}-strip.png")
    x.root.evaluate("node => { node.style.width = '400px'; }")
    x.page.wait_for_function("() => document.querySelectorAll('.vlmx-thumb').length < 9")


def test_15_a_15_mb_file_arrives_and_the_kernel_stays(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, "vlm_nb.explore()")
    data = png((2600, 2000), noise=True)
    assert len(data) > 15_000_000
    x.root.locator("input[type=file]").set_input_files(
        {"name": "big.png", "mimeType": "image/png", "buffer": data}
    )
    x.stage.and_(x.root.get_by_label("big.png, 2600 by 2000")).wait_for(timeout=60_000)
    assert x.python("print(len(x._album.items[0].payload))") == str(len(data))


def test_16_twelve_megapixels_map_back_and_zoom_sharp(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, "vlm_nb.explore(scene(1, (4000, 3000)))")
    x.wait_image()
    x.page.wait_for_function("() => document.querySelector('.vlmx-picture').naturalWidth > 1000")
    assert x.page.evaluate(NATURAL) == 1536
    x.drag((0.25, 0.3), (0.6, 0.7))
    x.prompt.fill("mine")
    x.root.get_by_role("button", name="Keep the region as a box").click()
    x.boxes.get_by_role("option").wait_for()
    bbox = [float(v) for v in x.python("print(*x.prediction.grounded_phrases[0].bbox)").split()]
    one_pixel = max(1 / x.image_rect()["w"], 1 / x.image_rect()["h"])
    assert bbox == pytest.approx([0.25, 0.3, 0.6, 0.7], abs=one_pixel)
    for _ in range(7):
        x.root.get_by_role("button", name="Zoom in").click()
    x.page.wait_for_function("() => document.querySelector('.vlmx-sharp').naturalWidth > 0")
    sharp = x.rects(".vlmx-sharp")[0]
    density = x.page.evaluate("() => document.querySelector('.vlmx-sharp').naturalWidth") / sharp["w"]
    assert density > 2 * 1536 / x.image_rect()["w"]


def test_17_a_turned_photo_is_upright_everywhere(notebook: NotebookPage) -> None:
    make = (
        "photo = scene(0, (400, 300)).rotate(90, expand=True)\n"
        "exif = Image.Exif(); exif[0x0112] = 6\n"
        "photo.save('turned.jpg', exif=exif, quality=95)\n"
        "scripted()\nNone"
    )
    x = ExplorerPage.start(notebook, "vlm_nb.explore('turned.jpg')", make)
    x.wait_image()
    image = x.image_rect()
    assert image["w"] / image["h"] == pytest.approx(4 / 3, abs=0.02)
    x.ask("", "Find")
    edge = x.rects(".vlmx-edge")[0]
    blue = next(r for r in x.rects(".vlmx-edge") if r["x"] - image["x"] > image["w"] * 0.4)
    assert edge
    assert (blue["x"] - image["x"]) / image["w"] == pytest.approx(0.5, abs=0.02)
    colour = x.python(
        "im = vlm_nb.load_image('turned.jpg'); p = x.prediction.grounded_phrases[1].pixels(*im.size)\n"
        "print(*im.getpixel(((p[0] + p[2]) // 2, (p[1] + p[3]) // 2)), *x.prediction.image_size)"
    )
    red, _, blue_, *size = map(int, colour.split())
    assert size == [400, 300]
    assert blue_ > 150 > red


def test_18_a_thousand_images(notebook: NotebookPage) -> None:
    x = ExplorerPage.start(notebook, "vlm_nb.explore([scene(i, (96, 72)) for i in range(1000)])")
    x.wait_image()
    number = x.root.get_by_role("textbox", name="Image number")
    number.fill("731")
    number.press("Enter")
    x.page.wait_for_function(SHOWN, arg=731)
    number.press("ArrowRight")
    x.page.wait_for_function(SHOWN, arg=732)
    number.press("Home")
    x.page.wait_for_function(SHOWN, arg=1)
    number.press("End")
    x.page.wait_for_function(SHOWN, arg=1000)
    for _ in range(60):
        number.press("ArrowLeft", no_wait_after=True)
    x.page.wait_for_function(SHOWN, arg=940)
    x.page.wait_for_timeout(1500)
    assert x.python("print(x._album.index, x.ui_picture['index'])") == "939 939"
    assert x.page.evaluate("document.querySelectorAll('.vlmx img').length") <= 60
    assert x.python("print(len(x._album._kept))") in ("1", "2", "3")
    assert not notebook.console_errors


def test_19_a_broken_file_is_a_placeholder_with_its_reason(notebook: NotebookPage) -> None:
    make = "open('bad.jpg', 'w').write('no image'); scene(0).save('good.png'); scripted()\nNone"
    x = ExplorerPage.start(notebook, "vlm_nb.explore(['good.png', 'bad.jpg', 'gone.jpg', 'good.png'])", make)
    x.wait_image()
    for reason in ("not an image", "no such file"):
        x.button("Next image").click()
        x.root.locator(".vlmx-broken").filter(has_text=reason).wait_for()
        assert not x.root.locator(".vlmx-picture").first.is_visible()
    x.button("Next image").click()
    x.stage.and_(x.root.get_by_label("good.png, 640 by 480")).wait_for()
    assert x.root.locator(".vlmx-picture").first.is_visible()
    x.ask("What colour?")
