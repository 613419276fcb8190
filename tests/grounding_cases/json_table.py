"""JSON boxes (Qwen2.5-VL, Qwen3-VL, Kimi-VL, Gemini): ``§K`` is the format's box key."""

from __future__ import annotations

from . import A, B, Case, P, Q

CAT, DOG = ("cat", A), ("dog", B)
ONE = '{"§K": [§A], "label": "cat"}'
TWO = '{"§K": [§B], "label": "dog"}'

CASES = (
    # clean
    Case("fenced list", f"```json\n[\n\t{ONE},\n\t{TWO}\n]\n```", (CAT, DOG), caption=""),
    Case("no fence", f"[{ONE}, {TWO}]", (CAT, DOG), caption=""),
    Case("one object, no list", ONE, (CAT,), caption=""),
    Case("fence without a language", f"```\n[{ONE}]\n```", (CAT,), caption=""),
    Case("minified", ONE.replace(" ", ""), (CAT,)),
    Case("markup without being asked", f"[{ONE}]", (CAT,), asked=False, caption=""),
    Case("a point", '[{"point_2d": [§P], "label": "cup"}]', (("cup", P),)),
    Case(
        "two points",
        '[{"point_2d": [§P], "label": "a"}, {"point_2d": [§Q], "label": "b"}]',
        (("a", P), ("b", Q)),
    ),
    Case("unicode label", '[{"§K": [§A], "label": "赤い車 🚗"}]', (("赤い車 🚗", A),)),
    Case("escaped unicode label", '[{"§K": [§A], "label": "caf\\u00e9"}]', (("café", A),)),
    Case("confidence", '[{"§K": [§A], "label": "cat", "confidence": 0.9}]', (CAT,)),
    Case("empty list says none", "[]", (), "none", caption=""),
    Case("empty fenced list says none", "```json\n[]\n```", (), "none", caption=""),
    Case("empty wrapped list says none", '{"boxes": []}', (), "none"),
    Case("empty list means nothing when not asked", "[]", (), None, asked=False, caption="[]"),
    # messy
    Case(
        "prose around",
        f"Here you are:\n[{ONE}]\nAnything else?",
        (CAT,),
        caption="Here you are:\n\nAnything else?",
    ),
    Case("single quotes", "[{'§K': [§A], 'label': 'cat'}]", (CAT,)),
    Case(
        "single quotes with an apostrophe",
        "[{'§K': [§A], 'label': 'the man's hat'}]",
        (("the man's hat", A),),
    ),
    Case("trailing commas", '[{"§K": [§A,], "label": "cat",},]', (CAT,)),
    Case("bbox for bbox_2d", '[{"bbox": [§A], "label": "cat"}]', (CAT,)),
    Case("a loose key, asked", '[{"box": [§A], "label": "cat"}]', (CAT,)),
    Case("a loose key, not asked", '{"position": [§A]}', (), None, asked=False, caption='{"position": [§A]}'),
    Case("name for label", '[{"§K": [§A], "name": "cat"}]', (CAT,)),
    Case("missing label", '[{"§K": [§A]}]', (("", A),)),
    Case("numeric label", '[{"§K": [§A], "label": 7}]', (("7", A),)),
    Case("a label that looks like a number", '[{"§K": [§A], "label": "007"}]', (("007", A),)),
    Case("null label", '[{"§K": [§A], "label": null}]', (("", A),)),
    Case("label first", '[{"label": "cat", "§K": [§A]}]', (CAT,)),
    Case("reversed corners", '[{"§K": [§A3, §A4, §A1, §A2], "label": "cat"}]', (CAT,)),
    Case("numbers as strings", '[{"§K": ["§A1", "§A2", "§A3", "§A4"], "label": "cat"}]', (CAT,)),
    Case("a box as a string", '[{"§K": "[§A]", "label": "cat"}]', (CAT,)),
    Case("nested corners", '[{"§K": [[§A1, §A2], [§A3, §A4]], "label": "cat"}]', (CAT,)),
    Case("a list of boxes under one label", '{"§K": [[§A], [§B]], "label": "cat"}', (CAT, ("cat", B))),
    Case("parallel lists", '{"boxes": [[§A], [§B]], "labels": ["cat", "dog"]}', (CAT, DOG)),
    Case("wrapped in an object", f'{{"boxes": [{ONE}, {TWO}]}}', (CAT, DOG)),
    Case("phrases as keys", '{"cat": [§A], "dog": [§B]}', (CAT, DOG)),
    Case("phrases around objects", '{"cat": {"§K": [§A]}, "dog": {"§K": [§B]}}', (CAT, DOG)),
    Case(
        "two fenced blocks", f"```json\n[{ONE}]\n```\nand\n```json\n[{TWO}]\n```", (CAT, DOG), caption="and"
    ),
    Case("one object a line", f"{ONE}\n{TWO}", (CAT, DOG), caption=""),
    Case("missing comma between objects", f"[{ONE}\n{TWO}]", (CAT, DOG)),
    Case("missing closing bracket of the box", '[{"§K": [§A, "label": "cat"}]', (CAT,)),
    Case("missing closing quote of a label", f'[{{"§K": [§A], "label": "cat}}, {TWO}]', (CAT, DOG)),
    Case("unquoted keys", "[{§K: [§A], label: cat}]", (CAT,)),
    Case("tuple for a list", "[{'§K': (§A), 'label': 'cat'}]", (CAT,)),
    Case("inner quotes in a label", '[{"§K": [§A], "label": "a "big" cat"}]', (('a "big" cat', A),)),
    Case("braces in a label", '[{"§K": [§A], "label": "a {b} c"}]', (("a {b} c", A),)),
    Case("JSON inside a JSON string", '"[{\\"§K\\": [§A], \\"label\\": \\"cat\\"}]"', (CAT,)),
    Case("typographic quotes", "[{“§K”: [§A], “label”: “cat”}]", (CAT,)),
    Case("full-width colons", '[{"§K"：[§A]，"label"："cat"}]', (CAT,)),
    Case("bare list, asked", "[§A]", (("", A),), caption=""),
    Case("bare lists with names, asked", "1. **Cat**: [§A]\n2. Dog: [§B]", (("Cat", A), ("Dog", B))),
    Case("bare list, not asked", "The answer is [§A].", (), None, asked=False, caption="The answer is [§A]."),
    Case("exact repeats", f"[{ONE}, {ONE}, {ONE}]", (CAT,), note="repeat"),
    Case("thinking before", f"<think>It is left: [§B]</think>[{ONE}]", (CAT,)),
    Case("thinking without its opening tag", f"it is left [§B]\n</think>\n[{ONE}]", (CAT,)),
    Case("answer tags", f"<answer>[{ONE}]</answer>", (CAT,)),
    Case(
        "think and answer",
        f"<think>Hm.</think>\n<answer>\n```json\n[{ONE}]\n```\n</answer>",
        (CAT,),
        caption="",
    ),
    # nothing there
    Case(
        "plainly none",
        "There are no cats in the image.",
        (),
        "none",
        caption="There are no cats in the image.",
    ),
    Case("does not see any", "I don't see any red cars.", (), "none"),
    Case("is not visible", "The dog is not visible here.", (), "none"),
    Case("plainly none, not asked", "There are no cats in the image.", (), None, asked=False),
    Case("none in words", "None", (), "none"),
    # unreadable
    Case("prose instead of boxes", "The cat is on the left of the sofa.", (), "unparsed"),
    Case("prose, not asked", "The cat is on the left of the sofa.", (), None, asked=False),
    Case("empty answer", "", (), "unparsed"),
    Case("refusal is not none", "I cannot see the image you mention.", (), "unparsed"),
    Case("three numbers", '[{"§K": [§A1, §A2, §A3], "label": "cat"}]', (), "unparsed"),
    Case(
        "NaN in the box", '[{"§K": [NaN, §A2, §A3, §A4], "label": "cat"}]', (), "unparsed", note="could not"
    ),
    Case(
        "infinity in the box",
        f'[{{"§K": [§A1, 1e999, §A3, §A4], "label": "cat"}}, {TWO}]',
        (DOG,),
        note="could not",
    ),
    Case(
        "absurd number",
        f'[{{"§K": [§A1, §A2, 99999999, §A4], "label": "cat"}}, {TWO}]',
        (DOG,),
        note="could not",
    ),
    Case(
        "null in the box",
        f'[{{"§K": [null, §A2, §A3, §A4], "label": "cat"}}, {TWO}]',
        (DOG,),
        note="could not",
    ),
    Case("words in the box", f'[{{"§K": ["left", "top"], "label": "cat"}}, {TWO}]', (DOG,), note="could not"),
    Case(
        "placeholders for numbers",
        '[{"§K": [x1, y1, x2, y2], "label": "cat"}]',
        (),
        "unparsed",
        note="could not",
    ),
    Case("dots for numbers", '[{"§K": [...], "label": "cat"}]', (), "unparsed", note="could not"),
    Case("dots for everything", "[...]", (), "unparsed"),
    Case("numbers with a unit", '[{"§K": [§A1px, §A2px, §A3px, §A4px], "label": "cat"}]', (CAT,)),
    Case("JSON about something else", '{"answer": "yes"}', (), "unparsed"),
    # truncated
    Case(
        "cut inside the second box",
        f'```json\n[{ONE}, {{"§K": [§B1, §B2',
        (CAT,),
        caption="",
        note="ends inside",
    ),
    Case("cut after the last number", f'[{ONE}, {{"§K": [§B', (CAT,), note="ends inside"),
    Case("cut before the label", f'[{ONE}, {{"§K": [§B], ', (CAT, ("", B)), note="ends inside"),
    Case("cut inside the label", f'[{ONE}, {{"§K": [§B], "label": "do', (CAT, ("do", B)), note="ends inside"),
    Case("cut before the closing bracket", f"[{ONE}, {TWO}", (CAT, DOG), note="ends inside"),
    Case("cut inside the first box", '[{"§K": [§A1, §A2', (), "unparsed"),
    Case("cut inside the reasoning", "<think>The cat is at [§A", (), "unparsed", note="reasoning"),
    # hostile
    Case("openers only", "[" * 3000, (), "unparsed"),
    Case("deep nesting around a box", "[" * 200 + ONE, (CAT,)),
    Case("closers first", "]]]}}}" + ONE, (CAT,)),
    Case("mixed brackets", "[{(" * 500 + ")}]" * 500, (), "unparsed"),
    Case("a long label", f'[{{"§K": [§A], "label": "{"x" * 5000}"}}]', (("x" * 500, A),)),
    Case(
        "HTML in a label",
        '[{"§K": [§A], "label": "<script>alert(1)</script>"}]',
        (("<script>alert(1)</script>", A),),
    ),
    Case("a NUL and controls", '[{"§K": [§A], "label": "c\\u0000at"}]', (("c\x00at", A),)),
    Case("a lone surrogate", '[{"§K": [§A], "label": "c\\ud800"}]', (("c\ufffd", A),)),
)
