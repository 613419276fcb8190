"""The wordings of every task, as templates.

The first wording of a task is the one that the package's own prompts use (it is listed twice where it should
come up more often); `HELD_OUT` holds paraphrases that training never sees.
"""

from __future__ import annotations

from vlm_nb.demo.scenes import BACKGROUNDS, COLOURS, SHAPES

Wordings = tuple[str, ...]

WORDINGS: dict[str, Wordings] = {
    "caption": (
        "Describe this image.",
        "Describe this image.",
        "Describe the image.",
        "Caption this image.",
        "What is in this image?",
        "What do you see?",
        "Describe this picture.",
        "Describe what you see.",
    ),
    "detect": (
        "Locate every object in the image and output the bbox coordinates in JSON format.",
        "Locate every object in the image and output the bbox coordinates in JSON format.",
        "Find every object and output the bbox coordinates in JSON format.",
        "Detect all objects.",
        "Locate all objects in the image.",
    ),
    "locate": (
        "Locate every {phrase} in the image and output the bbox coordinates in JSON format.",
        "Locate every {phrase} in the image and output the bbox coordinates in JSON format.",
        "Locate the {phrase}.",
        "Find the {phrase}.",
        "Where is the {phrase}?",
        "Detect the {phrase}.",
        "Find every {phrase} and output the bbox coordinates in JSON format.",
    ),
    "count": (
        "How many objects are there?",
        "How many shapes are there?",
        "How many objects are in the image?",
        "How many things do you see?",
        "Count the objects.",
        "How many shapes are in this image?",
    ),
    "count_kind": (
        "How many {phrase} are there?",
        "How many {phrase} are in the image?",
        "Count the {phrase}.",
        "How many {phrase} do you see?",
    ),
    "colour": (
        "What colour is the {phrase}?",
        "What color is the {phrase}?",
        "What is the colour of the {phrase}?",
        "What is the color of the {phrase}?",
        "Which colour is the {phrase}?",
        "Which color is the {phrase}?",
    ),
    "shape": (
        "What shape is the {phrase}?",
        "Which shape is the {phrase}?",
        "What is the shape of the {phrase}?",
        "What is the {phrase}?",
    ),
    "background": (
        "What colour is the background?",
        "What color is the background?",
        "What is the background colour?",
        "What is the background color?",
        "What is the color of the background?",
        "What is the colour of the background?",
    ),
    "exists": (
        "Is there a {phrase}?",
        "Is there a {phrase} in the image?",
        "Is there any {phrase}?",
        "Do you see a {phrase}?",
        "Does the image show a {phrase}?",
    ),
    "relation": (
        "Is the {phrase} {relation} the {other}?",
        "Is the {phrase} {relation} the {other} in the image?",
        "Is the {phrase} to be found {relation} the {other}?",
    ),
    "extreme": (
        "What is the {extreme} object?",
        "Which object is the {extreme}?",
        "What is the {extreme} shape?",
        "Which shape is the {extreme}?",
    ),
    "two_images": (
        "Which image has more {phrase}?",
        "Which image shows more {phrase}?",
        "Which picture has more {phrase}?",
    ),
}

HELD_OUT: dict[str, Wordings] = {
    "caption": ("Describe what is in this picture.", "What is in the picture?"),
    "detect": ("Detect every object in the image and output the bbox coordinates in JSON format.",),
    "locate": (
        "Detect every {phrase} in the image and output the bbox coordinates in JSON format.",
        "Where is the {phrase} in the image?",
    ),
    "count": ("How many shapes do you see?", "Count the shapes."),
    "count_kind": ("How many {phrase} are in this image?", "How many {phrase} do you see in the image?"),
    "colour": ("In this image, what colour is the {phrase}?", "What color is the {phrase} in the image?"),
    "shape": ("What shape is the {phrase} in the image?",),
    "background": ("Which colour is the background?", "What color is the background in this image?"),
    "exists": ("Is there a {phrase} in this image?", "Do you see any {phrase}?"),
    "relation": ("In this image, is the {phrase} {relation} the {other}?",),
    "extreme": ("Which is the {extreme} object?",),
    "two_images": ("Which of the images has more {phrase}?",),
}

#: Phrases that training puts before or after a question now and then.
BEFORE = ("In this picture,", "Look at the picture:", "Please,")
AFTER = ("in this picture", "in the photo", "here", "please")

RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below", "under"),
}

#: How often each task is drawn for training, relative to the others.
SHARES = {
    "caption": 1.0,
    "detect": 0.8,
    "locate": 3.0,
    "count": 0.5,
    "count_kind": 1.0,
    "colour": 1.4,
    "shape": 1.2,
    "background": 0.3,
    "exists": 1.8,
    "relation": 2.0,
    "extreme": 1.0,
    "follow_up": 1.0,
}


_WORDS = (
    "gray color colour object objects shape shapes thing things the a an and on to of left right above below "
    "under largest biggest smallest it many first second same background what how is are there picture photo "
    "big small"
)


def corpus() -> list[str]:
    """Every word that questions and answers use, for the tokenizer."""
    templates = [text for group in (WORDINGS, HELD_OUT) for wordings in group.values() for text in wordings]
    words = [*SHAPES, *(f"{shape}s" for shape in SHAPES), "crosses", *COLOURS, *BACKGROUNDS, *_WORDS.split()]
    plain = ["Yes", "No", "A", "An", "And", "user", "assistant", "system", "You are a helpful assistant."]
    return [*templates, *plain, *(f" {word}" for word in words), *words]
