# ruff: noqa: E501 - one row a line
"""Location tokens. PaliGemma ``§L[A]``: four tokens of box A; Florence-2 likewise; Kosmos-2 has grid cells."""

from __future__ import annotations

from . import A, B, Case

CAT, DOG = ("cat", A), ("dog", B)


def quad(*values: int) -> str:
    return "".join(f"<loc_{value}>" for value in values)


PALIGEMMA = (
    Case("one box", "§L[A] cat", (CAT,), caption="cat"),
    Case("two boxes", "§L[A] cat ; §L[B] dog", (CAT, DOG), caption="cat ; dog"),
    Case("no space before the phrase", "§L[A]cat", (CAT,)),
    Case("no space around the separator", "§L[A] cat;§L[B] dog", (CAT, DOG)),
    Case("lost separator", "§L[A] cat §L[B] dog", (CAT, DOG)),
    Case("newline for a separator", "§L[A] cat\n§L[B] dog", (CAT, DOG)),
    Case("no phrase", "§L[A]", (("", A),), caption=""),
    Case("several words", "§L[A] the cat's red hat", (("the cat's red hat", A),)),
    Case("unicode phrase", "§L[A] 赤い車", (("赤い車", A),)),
    Case("two boxes of one phrase", "§L[A]§L[B] cat", (CAT, ("cat", B))),
    Case("spaces between the tokens", "§S[A] cat", (CAT,)),
    Case("segmentation tokens", "§L[A]<seg000><seg127><seg003> cat", (CAT,), caption="cat"),
    Case("markup without being asked", "§L[A] cat", (CAT,), asked=False),
    Case("end token kept", "§L[A] cat<eos>", (CAT,), caption="cat"),
    Case("padding kept", "<bos>§L[A] cat<eos><pad><pad>", (CAT,), caption="cat"),
    Case("text before", "Detected: §L[A] cat", (CAT,), caption="Detected: cat"),
    Case("reversed corners", "§V[A] cat", (CAT,)),
    Case("the far corner", "<loc0000><loc0000><loc1023><loc1023> all", (("all", (0, 0, 999, 999)),)),
    Case("exact repeats", "§L[A] cat ; " * 40, (CAT,), note="39 exact repeats"),
    Case("empty means none", "", (), "none"),
    Case("only the end token means none", "<eos>", (), "none"),
    Case("empty, not asked", "", (), None, asked=False),
    Case("a plain answer, not asked", "a cat", (), None, asked=False, caption="a cat"),
    Case("a plain answer, asked", "a cat", (), "unparsed"),
    Case("plainly none", "no cat in the image", (), "none"),
    Case("cut inside the second box", "§L[A] cat ; <loc0500><loc0600><loc07", (CAT,), note="ends inside"),
    Case("cut after two tokens", "§L[A] cat ; <loc0500><loc0600>", (CAT,), note="ends inside"),
    Case("cut inside the first box", "<loc0500><loc0600>", (), "unparsed", note="ends inside"),
    Case(
        "three tokens, then a phrase", "<loc0500><loc0600><loc0001> owl ; §L[B] dog", (DOG,), note="could not"
    ),
    Case(
        "a token out of range",
        "<loc5000><loc6000><loc7000><loc8000> owl ; §L[B] dog",
        (DOG,),
        note="could not",
    ),
    Case("a token of five digits", "<loc00001><loc00002><loc00003><loc00004> cat", (), "unparsed"),
    Case("tokens without end", "<loc0001>" * 4001, (), "unparsed"),
    Case("half tokens", "<loc" * 3000, (), "unparsed"),
    Case("separators only", ";" * 3000, (), "unparsed"),
    Case("HTML in a phrase", "§L[A] &lt;b&gt;", (("&lt", A),)),
)

FLORENCE = (
    Case("one object", "cat§L[A]", (CAT,), caption="cat"),
    Case("two objects", "cat§L[A]dog§L[B]", (CAT, DOG), caption="cat, dog"),
    Case("two boxes of one object", "cat§L[A]§L[B]", (CAT, ("cat", B)), caption="cat"),
    Case("special tokens kept", "</s><s>cat§L[A]</s>", (CAT,), caption="cat"),
    Case("padding kept", "<s>cat§L[A]</s><pad><pad>", (CAT,), caption="cat"),
    Case("phrase grounding", "A cat§L[A] and a dog§L[B] play.", (("A cat", A), ("and a dog", B))),
    Case("spaces around", " cat §L[A] dog §L[B]", (CAT, DOG)),
    Case("comma between", "cat§L[A], dog§L[B]", (CAT, DOG)),
    Case("newline between", "cat§L[A]\ndog§L[B]", (CAT, DOG)),
    Case("no phrase", "§L[A]", (("", A),), caption=""),
    Case("unicode phrase", "赤い車§L[A]", (("赤い車", A),)),
    Case("several words", "human face§L[A]", (("human face", A),)),
    Case("markup without being asked", "cat§L[A]", (CAT,), asked=False),
    Case("reversed corners", "cat§V[A]", (CAT,)),
    Case(
        "a text region",
        f"SALE{quad(100, 200, 300, 205, 298, 260, 99, 255)}",
        (("SALE", (99, 200, 300, 260)),),
    ),
    Case("an upright region", f"A{quad(10, 20, 30, 20, 30, 40, 10, 40)}", (("A", (10, 20, 30, 40)),)),
    Case("a region on its side", f"A{quad(30, 20, 30, 40, 10, 40, 10, 20)}", (("A", (10, 20, 30, 40)),)),
    Case("a region upside down", f"A{quad(30, 40, 10, 40, 10, 20, 30, 20)}", (("A", (10, 20, 30, 40)),)),
    Case(
        "two text regions",
        f"</s><s>A B{quad(1, 2, 30, 2, 30, 40, 1, 40)}C{quad(500, 2, 530, 2, 530, 40, 500, 40)}</s>",
        (("A B", (1, 2, 30, 40)), ("C", (500, 2, 530, 40))),
        caption="A B, C",
    ),
    Case(
        "a text region cut off",
        f"A{quad(1, 2, 30, 2, 30, 40, 1)}",
        (("A", (1, 2, 30, 2)),),
        note="ends inside",
    ),
    Case("whole image", "all<loc_0><loc_0><loc_999><loc_999>", (("all", (0, 0, 999, 999)),)),
    Case("exact repeats", "cat§L[A]" * 30, (CAT,), note="29 exact repeats"),
    Case("empty means none", "", (), "none"),
    Case("only special tokens means none", "</s><s></s>", (), "none"),
    Case("empty, not asked", "", (), None, asked=False),
    Case(
        "a caption, not asked", "</s><s>a cat on a sofa</s>", (), None, asked=False, caption="a cat on a sofa"
    ),
    Case("a caption, asked", "a cat on a sofa", (), "unparsed"),
    Case("plainly none", "There are no dogs in the image.", (), "none"),
    Case("cut inside the second box", "cat§L[A]dog<loc_500><loc_600><loc_7", (CAT,), note="ends inside"),
    Case("cut after two tokens", "cat§L[A]dog<loc_500><loc_600>", (CAT,), note="ends inside"),
    Case("cut inside the first box", "cat<loc_500><loc_600>", (), "unparsed", note="ends inside"),
    Case("three tokens, then text", "owl<loc_5><loc_6><loc_7>dog§L[B]", (DOG,), note="could not"),
    Case(
        "a token out of range",
        "owl<loc_5000><loc_6000><loc_7000><loc_8000>dog§L[B]",
        (DOG,),
        note="could not",
    ),
    Case("tokens without end", "cat" + "<loc_1>" * 4001, (("cat", (1, 1, 1, 1)),), note="exact repeats"),
    Case("half tokens", "<loc_" * 3000, (), "unparsed"),
    Case("openers", "<" * 3000, (), "unparsed"),
)

SNOW = ("a snowman", (391, 46, 641, 859))
SNOW_TEXT = "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0884></object>"
FIRE = ("a fire", (172, 16, 484, 891))
FIRE_TEXT = "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>"

KOSMOS = (
    Case("published example", f"<grounding> An image of{SNOW_TEXT} warming himself by{FIRE_TEXT}.", (SNOW, FIRE)),
    Case("caption", f"An image of{SNOW_TEXT}.", (SNOW,), caption="An image of a snowman."),
    Case("one object", SNOW_TEXT, (SNOW,), caption="a snowman"),
    Case(
        "two boxes of one phrase",
        "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0884>"
        "</delimiter_of_multi_objects/><patch_index_0005><patch_index_0911></object>",
        (SNOW, ("a snowman", FIRE[1])),
    ),
    Case("no phrase", "<object><patch_index_0044><patch_index_0884></object>", (("", SNOW[1]),), caption=""),
    Case("one cell", "<phrase>x</phrase><object><patch_index_0000><patch_index_0000></object>", (("x", (0, 0, 31, 31)),)),
    Case("one row", "<phrase>x</phrase><object><patch_index_0000><patch_index_0031></object>", (("x", (0, 0, 1000, 31)),)),
    Case("whole image", "<phrase>x</phrase><object><patch_index_0000><patch_index_1023></object>", (("x", (16, 16, 984, 984)),)),
    Case("reversed cells", "<phrase>x</phrase><object><patch_index_0884><patch_index_0044></object>", (("x", SNOW[1]),)),
    Case("markup without being asked", SNOW_TEXT, (SNOW,), asked=False),
    Case("end tokens kept", f"<s>{SNOW_TEXT}</s>", (SNOW,), caption="a snowman"),
    Case("lost phrase end", "<phrase> a snowman<object><patch_index_0044><patch_index_0884></object>", (("", SNOW[1]),)),
    Case("lost object end", f"<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0884>{FIRE_TEXT}", (SNOW, FIRE)),
    Case("lost object start", "<phrase> a snowman</phrase><patch_index_0044><patch_index_0884></object>", (SNOW,)),
    Case("space between the cells", SNOW_TEXT.replace("><p", "> <p"), (SNOW,)),
    Case("exact repeats", SNOW_TEXT * 20, (SNOW,), note="19 exact repeats"),
    Case("a plain caption, not asked", "An image of a cat.", (), None, asked=False, caption="An image of a cat."),
    Case("a plain caption, asked", "An image of a cat.", (), "unparsed"),
    Case("a phrase without a place", "<phrase> a cat</phrase> sits", (), None, asked=False, caption="a cat sits"),
    Case("plainly none", "There is no snowman in the image.", (), "none"),
    Case("empty", "", (), "unparsed"),
    Case("an empty object", "<phrase>x</phrase><object></object>", (), "unparsed"),
    Case("one cell only", f"<phrase>x</phrase><object><patch_index_0044></object>{FIRE_TEXT}", (FIRE,), note="could not"),
    Case("a cell out of range", f"<phrase>x</phrase><object><patch_index_0044><patch_index_1024></object>{FIRE_TEXT}", (FIRE,)),
    Case("cut inside the second object", f"{SNOW_TEXT}<phrase> a fire</phrase><object><patch_index_0005><patch_in", (SNOW,), note="ends inside"),
    Case("cut after one cell", f"{SNOW_TEXT}<phrase> a fire</phrase><object><patch_index_0005>", (SNOW,), note="ends inside"),
    Case("cut inside the first object", "<phrase> a fire</phrase><object><patch_index_0005>", (), "unparsed", note="ends inside"),
    Case("phrases only", "<phrase>" * 2000, (), "unparsed"),
    Case("objects only", "<object>" * 2000, (), "unparsed"),
    Case("cells only", "<patch_index_0001>" * 2001, (("", (31, 0, 62, 31)),), note="exact repeats"),
)  # fmt: skip
