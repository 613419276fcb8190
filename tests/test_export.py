"""Boxes in other tools' formats, read back by those tools: non-square, turned and awkward images too."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scripted import boxes_json, picture

from vlm_nb import accessor, export, registry
from vlm_nb.export import LabelledImage, to_supervision
from vlm_nb.request import Request
from vlm_nb.results import GroundedPhrase

WIDE, TALL, TURNED = (400, 120), (90, 300), (200, 300)  # (width, height) as shown, upright


def answer(request: Request) -> str:
    """Two boxes: the left half, and the lower right quarter."""
    width, height = request.input_sizes[0]
    left = boxes_json((0, 0, width / 2, height), label="left half")
    corner = boxes_json((width / 2, height / 2, width, height), label="CORNER")
    return merged(left, corner) if "Locate" in request.messages[-1].text else "a red box"


def merged(*blocks: str) -> str:
    rows = [row for block in blocks for row in json.loads(block.strip("`").removeprefix("json"))]
    return f"```json\n{json.dumps(rows)}\n```".replace("CORNER", 'corner, \\"lower\\" <right>')


@pytest.fixture(scope="module")
def grounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pd.DataFrame]:
    accessor.register()
    folder = tmp_path_factory.mktemp("images")
    picture(*WIDE).save(folder / "wide.png")
    picture(*TALL).save(folder / "tall.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(TURNED[1], TURNED[0]).save(folder / "turned.jpg", exif=exif)
    (folder / "bad.png").write_bytes(b"no image")
    names = ["wide.png", "tall.jpg", "turned.jpg", "bad.png"]
    cells = [*(str(folder / name) for name in names), None, picture(64, 48)]
    registry.unload_all()
    registry.load("boxes", engine="scripted", script=answer)
    frame = pd.DataFrame({"image": pd.Series(cells, dtype=object, index=list("abcdef"))})
    yield frame.vlm.caption(show_progress=False).vlm.ground("x", show_progress=False)
    registry.unload_all()


SIZES = {"wide.png": WIDE, "tall.jpg": TALL, "turned.jpg": TURNED, "row_000005.png": (64, 48)}


def name_of(path: str) -> str:
    return Path(path).name


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
def test_coco_is_read_by_its_own_tool(grounded: pd.DataFrame, tmp_path: Path) -> None:
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed here")
    grounded.vlm.to_coco(tmp_path / "coco.json")
    coco = coco_module.COCO(str(tmp_path / "coco.json"))
    assert len(coco.getImgIds()) == 4
    for image in coco.loadImgs(coco.getImgIds()):
        width, height = SIZES[name_of(image["file_name"])]
        assert (image["width"], image["height"]) == (width, height)
        found = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        boxes = {coco.loadCats([a["category_id"]])[0]["name"]: a["bbox"] for a in found}
        assert boxes["left half"] == pytest.approx([0, 0, width / 2, height], abs=1)
        assert sum(a["area"] for a in found) == pytest.approx(0.75 * width * height, rel=0.03)
        assert coco.annToMask(found[0]).shape == (height, width)


def test_coco_without_its_tool(grounded: pd.DataFrame, tmp_path: Path) -> None:
    content = grounded.vlm.to_coco(tmp_path / "deep" / "coco.json")
    assert json.loads((tmp_path / "deep" / "coco.json").read_text()) == content
    assert [category["id"] for category in content["categories"]] == [1, 2]
    assert [a["id"] for a in content["annotations"]] == list(range(1, 9))
    assert not list(tmp_path.rglob("*.part"))
    turned = next(image for image in content["images"] if "turned" in image["file_name"])
    assert (turned["width"], turned["height"]) == TURNED


def test_supervision_reads_and_writes_what_we_wrote(grounded: pd.DataFrame, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed here")
    found = grounded.vlm.to_supervision()
    assert len(found) == len(grounded)
    assert [len(detections) for detections in found] == [2, 2, 2, 0, 0, 2]
    left = found[2][found[2].data["class_name"] == "left half"]
    assert left.xyxy[0] == pytest.approx([0, 0, 100, 300], abs=1)
    assert found[0].area.sum() == pytest.approx(0.75 * WIDE[0] * WIDE[1], rel=0.03)
    assert isinstance(found[3], sv.Detections)


def test_supervision_gets_every_score_there_is() -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed here")
    box = (0.0, 0.0, 0.5, 1.0)
    scores = [(0.5, None), (None,), ()]
    rows = [
        LabelledImage(
            row=row,
            name="a",
            image="a",
            size=(10, 10),
            phrases=tuple(GroundedPhrase("x", box, confidence=score) for score in row_scores),
        )
        for row, row_scores in enumerate(scores)
    ]
    found = to_supervision(rows)
    merged = sv.Detections.merge(found).confidence
    assert merged == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert len(found[0][found[0].confidence > 0.4]) == 1
    assert to_supervision(rows[1:])[0].confidence is None


def test_supervision_loads_our_coco(grounded: pd.DataFrame, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed here")
    coco = grounded.vlm.to_coco(tmp_path / "coco.json")
    dataset = sv.DetectionDataset.from_coco(
        images_directory_path="/", annotations_path=str(tmp_path / "coco.json")
    )
    assert sorted(dataset.classes) == sorted(category["name"] for category in coco["categories"])
    boxes = {name_of(path): detections.xyxy for path, detections in dataset.annotations.items()}
    assert sorted(boxes["tall.jpg"].tolist())[0] == pytest.approx([0, 0, 45, 300], abs=1)


def test_supervision_loads_our_yolo(grounded: pd.DataFrame, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed here")
    names = grounded.vlm.to_yolo(tmp_path / "yolo")
    dataset = sv.DetectionDataset.from_yolo(
        images_directory_path=str(tmp_path / "yolo" / "images"),
        annotations_directory_path=str(tmp_path / "yolo" / "labels"),
        data_yaml_path=str(tmp_path / "yolo" / "data.yaml"),
    )
    assert dataset.classes == names
    boxes = {Path(path).stem: detections for path, detections in dataset.annotations.items()}
    assert set(boxes) == {"wide", "tall", "turned", "row_000005"}
    for stem, size in (("wide", WIDE), ("tall", TALL), ("turned", TURNED)):
        left = boxes[stem].xyxy[boxes[stem].class_id == names.index("left half")][0]
        assert left == pytest.approx([0, 0, size[0] / 2, size[1]], abs=1)


def test_yolo_files_lie_upright_beside_their_labels(grounded: pd.DataFrame, tmp_path: Path) -> None:
    names = grounded.vlm.to_yolo(tmp_path)
    images = {path.stem: path for path in (tmp_path / "images").iterdir()}
    labels = {path.stem: path for path in (tmp_path / "labels").iterdir()}
    assert set(images) == set(labels) == {"wide", "tall", "turned", "row_000005"}
    assert images["wide"].read_bytes() == Path(grounded["image"].iloc[0]).read_bytes()
    with Image.open(images["turned"]) as opened:
        assert opened.size == TURNED
        assert opened.getexif().get(0x0112, 1) == 1
    lines = [line.split() for line in labels["turned"].read_text().splitlines()]
    assert [names[int(line[0])] for line in lines] == ["left half", 'corner, "lower" <right>']
    assert [float(value) for value in lines[0][1:]] == pytest.approx([0.25, 0.5, 0.5, 1.0], abs=0.01)
    assert json.dumps(names[0]) in (tmp_path / "data.yaml").read_text()


def test_yolo_names_stay_apart(tmp_path: Path) -> None:
    box = (GroundedPhrase("x", (0.1, 0.1, 0.5, 0.5)),)
    rows = [
        LabelledImage(row=i, name=f"{folder}/a.png", image=picture(), size=(112, 84), phrases=box)
        for i, folder in enumerate(("one", "two", "../three"))
    ]
    export.to_yolo(rows, tmp_path)
    assert {path.name for path in (tmp_path / "labels").iterdir()} == {"a.txt", "a_1.txt", "a_2.txt"}
    export.to_yolo(rows, tmp_path / "bare", copy_images=False)
    assert list((tmp_path / "bare" / "images").iterdir()) == []


def test_nothing_found_is_a_background_image(tmp_path: Path) -> None:
    rows = [LabelledImage(row=0, name="a.png", image=picture(), size=(112, 84))]
    assert export.to_yolo(rows, tmp_path) == []
    assert (tmp_path / "labels" / "a.txt").read_text() == ""
    content = export.to_coco(rows)
    assert (len(content["images"]), content["annotations"], content["categories"]) == (1, [], [])


def test_label_studio_tasks(grounded: pd.DataFrame, tmp_path: Path) -> None:
    tasks = grounded.vlm.to_label_studio(tmp_path / "tasks.json", prefix="/data/local-files/?d=")
    assert json.loads((tmp_path / "tasks.json").read_text()) == tasks
    by_name = {name_of(task["data"]["image"]): task for task in tasks}
    turned = by_name["turned.jpg"]
    assert turned["data"]["image"].startswith("/data/local-files/?d=/")
    assert turned["data"]["caption"] == "a red box"
    assert by_name["bad.png"]["predictions"] == []
    left = turned["predictions"][0]["result"][0]
    assert (left["original_width"], left["original_height"]) == TURNED
    assert left["type"] == "rectanglelabels"
    assert left["value"]["rectanglelabels"] == ["left half"]
    shape = {key: left["value"][key] for key in ("x", "y", "width", "height")}
    assert shape == pytest.approx({"x": 0, "y": 0, "width": 50, "height": 100}, abs=0.5)
    config = ET.fromstring((tmp_path / "tasks.config.xml").read_text())
    labels = {label.get("value") for label in config.iter("Label")}
    assert labels == {"left half", 'corner, "lower" <right>'}
    assert {node.get("name") for node in config.iter()} >= {left["from_name"], left["to_name"]}


def test_points_become_key_points_or_are_left_out_with_a_warning() -> None:
    point = GroundedPhrase("nose", (0.25, 0.5, 0.25, 0.5), point=(0.25, 0.5), confidence=0.5)
    rows = [LabelledImage(row=0, name="a.png", image=picture(), size=(112, 84), phrases=(point,))]
    result = export.to_label_studio(rows)[0]["predictions"][0]
    assert result["result"][0]["type"] == "keypointlabels"
    assert (result["result"][0]["value"]["x"], result["score"]) == (25.0, 0.5)
    with pytest.warns(UserWarning, match="1 points have no area"):
        assert export.to_coco(rows)["annotations"] == []


def test_jsonl_has_every_row(grounded: pd.DataFrame, tmp_path: Path) -> None:
    assert grounded.vlm.to_jsonl(tmp_path / "rows.jsonl") == 6
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["row"] for row in rows] == list(range(6))
    assert rows[3]["boxes"] is None
    assert rows[4]["boxes"] is None
    assert (rows[2]["width"], rows[2]["height"]) == TURNED
    assert rows[2]["boxes"][0]["bbox"] == pytest.approx([0, 0, 0.5, 1], abs=0.01)


def test_a_list_call_can_be_handed_over(grounded: pd.DataFrame, tmp_path: Path) -> None:
    model = registry.current()
    outcomes = model(source=[*grounded["image"].iloc[:2], tmp_path / "none.png"], show_progress=False)
    content = export.to_coco(export.from_outcomes(outcomes))
    assert [name_of(image["file_name"]) for image in content["images"]] == ["wide.png", "tall.jpg"]
    assert len(content["annotations"]) == 4


def test_boxes_has_a_row_for_each(grounded: pd.DataFrame) -> None:
    boxes = grounded.vlm.boxes()
    assert boxes.index.tolist() == ["a", "a", "b", "b", "c", "c", "f", "f"]
    assert boxes["phrase"].tolist()[0] == "left half"
    assert boxes.iloc[4][["x_min", "y_min", "x_max", "y_max"]].tolist() == pytest.approx(
        [0, 0, 0.5, 1], abs=0.01
    )
    pixels = grounded.vlm.boxes(pixels=True)
    assert pixels.iloc[4][["x_max", "y_max"]].tolist() == pytest.approx([100, 300], abs=2)
    assert grounded.iloc[3:5].vlm.boxes().empty


def test_boxes_survive_parquet(grounded: pd.DataFrame, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
    kept = grounded.drop(columns="image").assign(image=[str(cell) for cell in grounded["image"]])
    kept.to_parquet(tmp_path / "t.parquet")
    back = pd.read_parquet(tmp_path / "t.parquet")
    assert back.attrs["vlm"] == grounded.attrs["vlm"]
    pd.testing.assert_frame_equal(back.vlm.boxes(), grounded.vlm.boxes())
    assert back.iloc[:3].vlm.to_coco(tmp_path / "c.json")["annotations"][0]["bbox"][2] == pytest.approx(
        200, abs=1
    )


def test_show_is_a_gallery_with_errors_in_it(grounded: pd.DataFrame) -> None:
    bundle = grounded.vlm.show(6)._repr_mimebundle_()
    html = bundle["text/html"]
    assert html.count('class="vlm-nb-card"') == 6
    assert "data:image/jpeg;base64," in html
    assert "not an image" in html
    assert "&lt;right&gt;" in html
    assert "<right>" not in html
    assert "left half" in bundle["text/plain"]
    assert len(html) < 800_000
    assert len(grounded["image"].iloc[:2].vlm.show().items) == 2


def test_cards_of_errors_bear_the_error_s_own_name_once(tmp_path: Path) -> None:
    accessor.register()
    registry.load("boxes", engine="scripted", script=answer)
    cells = ["gone.png", 5, None, picture()]
    frame = pd.DataFrame({"image": pd.Series(cells, dtype=object)}).vlm.caption(show_progress=False)
    bundle = frame.vlm.show()._repr_mimebundle_()
    html, text = bundle["text/html"], bundle["text/plain"]
    assert "<b>SourceNotFound</b><br>no such file: gone.png." in html
    assert html.count("<b>SourceError</b><br>no image in") == 2, "the number, the null"
    assert "row_0" not in html, "no name of a file that there is not"
    assert html.count("<bdi>row 1</bdi>") == 1
    assert text.startswith("SourceNotFound: no such file: gone.png.")


def test_a_gallery_of_some_rows_says_so(grounded: pd.DataFrame) -> None:
    some = grounded.vlm.show(2)
    assert repr(some).endswith("2 of 6 rows; show(6) shows all")
    assert "2 of 6 rows; show(6) shows all" in some._repr_mimebundle_()["text/html"]
    assert "shows" not in grounded.vlm.show()._repr_mimebundle_()["text/html"]
    many = pd.concat([grounded["image"]] * 20).vlm.show()
    assert repr(many).endswith("12 of 120 rows; show(48) shows more")


def test_without_boxes_the_call_says_so(grounded: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"no boxes yet; df\.vlm\.ground"):
        grounded[["image"]].vlm.boxes()
    with pytest.raises(ValueError, match=r"no boxes yet; df\.vlm\.ground"):
        grounded[["image"]].vlm.to_supervision()
    with pytest.raises(ValueError, match="no column of boxes is called 'cars'"):
        grounded.vlm.to_coco("never.json", name="cars")


@pytest.mark.parametrize("export_call", ["to_coco", "to_yolo", "to_label_studio", "to_jsonl"])
def test_a_table_with_nothing_to_write_says_so_and_writes_nothing(
    grounded: pd.DataFrame, tmp_path: Path, export_call: str
) -> None:
    bare = grounded[["image"]].copy()
    bare.attrs.clear()
    with pytest.raises(ValueError, match=r"no boxes yet; df\.vlm\.ground"):
        getattr(bare.vlm, export_call)(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    nowhere = grounded.iloc[3:5]  # grounded, and no row has boxes
    getattr(nowhere.vlm, export_call)(tmp_path / "out")
    assert (tmp_path / "out").exists()


def test_captions_alone_are_enough_for_tasks_and_lines(grounded: pd.DataFrame, tmp_path: Path) -> None:
    captioned = grounded[["image"]].vlm.caption(show_progress=False)
    assert captioned.vlm.to_jsonl(tmp_path / "rows.jsonl") == 6
    assert captioned.vlm.to_label_studio(tmp_path / "tasks.json")[0]["data"]["caption"] == "a red box"
    with pytest.raises(ValueError, match="no boxes yet"):
        captioned.vlm.to_coco(tmp_path / "coco.json")
