"""Tagged boxes (Qwen-VL, Qwen2-VL, InternVL, DeepSeek-VL2, MiniCPM-V, GLM-V).

``§R``/``§r`` open and close a phrase, ``§X``/``§x`` a box, ``§[A]`` is box A in the family's brackets.
"""

from __future__ import annotations

from . import A, B, Case

CAT, DOG = ("cat", A), ("dog", B)
ONE = "§Rcat§r§X§[A]§x"
TWO = "§Rdog§r§X§[B]§x"

CASES = (
    # clean
    Case("one box", ONE, (CAT,), caption="cat"),
    Case("two boxes", f"{ONE}{TWO}", (CAT, DOG)),
    Case("in a sentence", f"A {ONE} and a {TWO} play.", (CAT, DOG), caption="A cat and a dog play."),
    Case("markup without being asked", f"A {ONE}.", (CAT,), asked=False, caption="A cat."),
    Case("one a line", f"{ONE}\n{TWO}", (CAT, DOG), caption="cat\ndog"),
    Case("fenced", f"Sure.\n```\n{ONE}\n{TWO}\n```", (CAT, DOG), caption="Sure.\ncat\ndog"),
    Case("unicode phrase", "§R赤い車§r§X§[A]§x", (("赤い車", A),)),
    Case("spaces in the phrase tags", "§R cat §r§X§[A]§x", (CAT,)),
    Case("two boxes of one phrase", "§Rcat§r§X§[A]§x§X§[B]§x", (CAT, ("cat", B)), caption="cat"),
    # messy
    Case("no phrase", "§X§[A]§x", (("", A),), caption=""),
    Case("a list in one pair of tags", "§Rcat§r§X[[§A], [§B]]§x", (CAT, ("cat", B))),
    Case("single brackets", "§Rcat§r§X[§A]§x", (CAT,)),
    Case("round brackets", "§Rcat§r§X(§A)§x", (CAT,)),
    Case("corner pairs", "§Rcat§r§X(§A1,§A2),(§A3,§A4)§x", (CAT,)),
    Case("bare numbers", "§Rcat§r§X§A1 §A2 §A3 §A4§x", (CAT,)),
    Case("commas only", "§Rcat§r§X§A§x", (CAT,)),
    Case("spaces and newlines inside", "§Rcat§r§X\n [ [ §A ] ] \n§x", (CAT,)),
    Case("reversed corners", "§Rcat§r§X[[§A3, §A4, §A1, §A2]]§x", (CAT,)),
    Case("lost phrase closing tag", "§Rcat§X§[A]§x", (CAT,)),
    Case("lost box closing tag", f"§Rcat§r§X§[A] {TWO}", (CAT, DOG)),
    Case("stray closing tags", f"§x§r{ONE}§x", (CAT,), caption="cat"),
    Case("words between phrase and box", "§Rcat§r is at §X§[A]§x", (CAT,)),
    Case("a later box is not the cat", "§Rcat§r§X§[A]§x and also §X§[B]§x", (CAT, ("", B))),
    Case("trailing comma", "§Rcat§r§X[[§A,],]§x", (CAT,)),
    Case("JSON in its place", '[{"bbox_2d": [§A], "label": "cat"}]', (CAT,)),
    Case("bare list, asked", "cat: [§A]", (CAT,)),
    Case("bare list, not asked", "It is [§A].", (), None, asked=False, caption="It is [§A]."),
    Case("exact repeats", ONE * 50, (CAT,), note="49 exact repeats"),
    Case("thinking before", f"<think>§X[[1, 2, 3, 4]]§x?</think>{ONE}", (CAT,), caption="cat"),
    Case("answer tags", f"<answer>{ONE}</answer>", (CAT,), caption="cat"),
    # nothing there
    Case("plainly none", "There is no cat in the image.", (), "none"),
    Case("empty list", "[]", (), "none"),
    # unreadable
    Case("three numbers", "§Rcat§r§X[[§A1, §A2, §A3]]§x", (), "unparsed", note="could not"),
    Case("three numbers, then a good box", f"§Rowl§r§X[[§A1, §A2, §A3]]§x{TWO}", (DOG,), note="could not"),
    Case("empty box", "§Rcat§r§X§x", (), "unparsed"),
    Case("empty brackets", "§Rcat§r§X[[]]§x", (), "unparsed", asked=False),
    Case("absurd number", f"§Rcat§r§X[[§A1, §A2, 1e30, §A4]]§x{TWO}", (DOG,), note="could not"),
    Case("wholly off the image", f"§Rcat§r§X[[2000, 2000, 3000, 3000]]§x{TWO}", (DOG,), note="could not"),
    Case("prose", "The cat sits there.", (), "unparsed"),
    Case("prose, not asked", "The cat sits there.", (), None, asked=False),
    # truncated
    Case("cut inside the second box", f"{ONE}§Rdog§r§X[[§B1, §B2", (CAT,), note="ends inside"),
    Case("cut inside the list", "§Rcat§r§X[[§A], [§B1, §B2", (CAT,), note="ends inside"),
    Case("cut before the closing tag", "§Rcat§r§X[[§A]]", (CAT,), note="ends inside"),
    Case("cut inside a phrase", f"{ONE}§Rdo", (CAT,)),
    Case("cut inside the first box", "§Rcat§r§X[[§A1", (), "unparsed", note="ends inside"),
    # hostile
    Case("opening tags only", "§X" * 2000, (), "unparsed"),
    Case("closing tags only", "§x" * 2000, (), "unparsed", asked=True),
    Case("phrase tags only", "§R" * 2000, (), "unparsed"),
    Case("brackets in a box", f"§X{'[' * 3000}§x{TWO}", (DOG,)),
    Case("HTML in a phrase", "§R<b>x</b>§r§X§[A]§x", (("<b>x</b>", A),)),
    Case("a long phrase", f"§R{'x' * 5000}§r§X§[A]§x", (("x" * 500, A),)),
)

GLM = (
    Case("words in the answer tags", "It is <|begin_of_box|>42<|end_of_box|>", (), None, asked=False),
    Case(
        "a word in the answer tags", "<|begin_of_box|>red<|end_of_box|>", (), None, asked=False, caption="red"
    ),
    Case("angle brackets", "<|begin_of_box|><§A><|end_of_box|>", (("", A),)),
    Case(
        "JSON in the answer tags",
        'Found:<|begin_of_box|>[{"bbox_2d": [§A], "label": "cat"}]<|end_of_box|>',
        (CAT,),
        caption="Found:",
    ),
)

QWEN2 = (
    Case("special tokens lost", "a dog(§A1,§A2),(§A3,§A4)", (("a dog", A),), caption="a dog"),
    Case("special tokens lost, not asked", "a dog(§A1,§A2),(§A3,§A4)", (), None, asked=False),
    Case("end tokens kept", f"{ONE}<|im_end|><|endoftext|>", (CAT,), caption="cat"),
    Case("points", "§Rcup§r<|point_start|>(250,750)<|point_end|>", (("cup", (250, 750)),)),
)
