"""Write ``dataframe.ipynb`` anew, without outputs; ``execute.py examples/dataframe.ipynb --update`` runs it.

``python examples/build_dataframe.py [--images 200]``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CELLS = (
    """# A table of images

Two hundred drawn images with known truth: caption them, ask, find, score the answers, look at the
failures, hand the boxes on. This notebook runs on the small **demo model** that ships with the package;
with another model only the `%vlm load` line changes. In detail: [docs/tables.md](../docs/tables.md).""",
    """import shutil
from pathlib import Path

import pandas as pd

%load_ext vlm_nb
%vlm load demo

pd.set_option("display.max_colwidth", 60)""",
    "## The table\n\nOne row an image. Three rows cannot work: a missing file, a text file, and a null.",
    """from vlm_nb.demo.scenes import draw_scene

HELD_OUT = 1 << 41  # scenes that training never draws
folder = Path("table_scenes")
folder.mkdir(exist_ok=True)

rows = []
for seed in range(IMAGES):
    scene = draw_scene(HELD_OUT + seed, size=None)
    path = folder / f"{seed:03}.png"
    scene.image.save(path)
    rows.append({"image": str(path), "objects": scene.objects, "background": scene.background})

df = pd.DataFrame(rows)
df.loc[17, "image"] = str(folder / "missing.png")
(folder / "notes.png").write_text("this is no image")
df.loc[42, "image"] = str(folder / "notes.png")
df.loc[99, "image"] = None
df.head(3)""",
    "Three rows are measured, the rest is reckoned:",
    "df.vlm.estimate()",
    """## Captions

A new frame comes back: the same index, the same columns, and `caption` with `caption_error`. Every finished
row is kept in the ledger.""",
    """df = df.vlm.caption()
df[["image", "caption", "caption_error"]].head()""",
    "The failures stand in their own rows, and cost no other row anything:",
    'df.loc[df["caption_error"].notna(), ["image", "caption", "caption_error"]]',
    "Run again, nothing is computed: the rows are in the ledger. After a crash or a restart it is the same.",
    "df = df.vlm.caption()",
    "The truth is known, so the captions can be scored, word for word:",
    """def truth(row):
    names = [f"{'an' if thing.name[0] in 'aeiou' else 'a'} {thing.name}" for thing in row["objects"]]
    listed = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return f"{listed[0].upper()}{listed[1:]} on a {row['background']} background."


answered = df[df["caption"].notna()]
exact = answered["caption"] == answered.apply(truth, axis=1)
print(f"{exact.mean():.0%} of {len(answered)} captions are exactly right")""",
    """## Questions

A question is a text, a Series, or a function of the row: no template language.""",
    """df = df.vlm.ask("How many objects are there?", name="count")
right = df["count"].dropna().astype(int) == df.loc[df["count"].notna(), "objects"].map(len)
print(f"{right.mean():.0%} of the counts are right")""",
    """first = df["objects"].map(lambda things: things[0])
colours = first.map(lambda thing: thing.colour)
df = df.vlm.ask("What shape is the " + colours + " object?", name="shape")

alone = df["objects"].map(lambda things: sum(thing.colour == things[0].colour for thing in things) == 1)
asked = df[alone & df["shape"].notna()]
right = asked["shape"].str.lower().str.strip(".") == asked["objects"].map(lambda things: things[0].shape)
print(f"{right.mean():.0%} of {len(asked)} shapes are right")""",
    """## Boxes

`ground()` without a phrase finds every object. `boxes` holds plain dicts with `bbox` in 0..1 of the upright
original image; `boxes()` makes one row a box, under the index of its image.""",
    """df = df.vlm.ground()
boxes = df.vlm.boxes()
boxes.head()""",
    """def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (area - shared)


def recalled(row):
    found = [(box["phrase"], box["bbox"]) for box in row["boxes"]]
    return [
        any(name == thing.name and overlap(bbox, thing.bbox) >= 0.5 for name, bbox in found)
        for thing in row["objects"]
    ]


hits = df[df["boxes"].notna()].apply(recalled, axis=1).explode()
print(f"{hits.mean():.0%} of {len(hits)} objects are found under their name with an IoU of 0.5 or more")""",
    "A gallery of answers, boxes and errors:",
    'df.iloc[12:18].vlm.show(name="boxes")',
    """## Repair and go on

`retry_failed` asks again about the rows that failed, once the cause is gone:""",
    """scene = draw_scene(HELD_OUT + 17, size=None)
scene.image.save(folder / "missing.png")
df = df.vlm.retry_failed("caption")
df.loc[[17, 42, 99], ["caption", "caption_error"]]""",
    """## Hand over

To COCO, YOLO, Label Studio, [supervision](https://supervision.roboflow.com) or JSON Lines, in their own
coordinates:""",
    """coco = df.vlm.to_coco(folder / "coco.json")
names = df.vlm.to_yolo(folder / "yolo")
tasks = df.vlm.to_label_studio(folder / "tasks.json")
print(len(coco["images"]), "images,", len(coco["annotations"]), "boxes,", len(coco["categories"]), "classes")
coco["annotations"][0]""",
    """import vlm_nb.ledger

for run in vlm_nb.ledger.runs()[-4:]:
    print({key: run[key] for key in ("rows", "hits", "failed", "kept")})
shutil.rmtree(folder)""",
)


def build(images: int = 200) -> nbformat.NotebookNode:
    """The notebook, without outputs."""
    notebook = new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, text in enumerate(CELLS):
        first = text.lstrip().split("\n", 1)[0]
        prose = first.startswith("#") or (first[:1].isupper() and not first.startswith("df"))
        cell = new_markdown_cell(text) if prose else new_code_cell(text.replace("IMAGES", str(images)))
        cell["id"] = f"table-{number:02}"
        notebook.cells.append(cell)
    return notebook


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    target = Path(__file__).with_name("dataframe.ipynb")
    nbformat.write(build(parser.parse_args().images), target)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
