"""The processor of a checkpoint: tokenizer, image processor and chat template; torchvision or not."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from ...errors import LoadError, MissingDependency, ModelNotFound, OptionError, VLMError
from .failures import first_line, needs_code
from .files import Checkpoint

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
PACKAGES = {
    "torchvision": "torchvision (the build that belongs to your torch)",
    **{name: name for name in ("num2words", "sentencepiece", "tiktoken", "protobuf")},
}
"""What a processor may need beyond this package's own requirements → what to install."""
TILING = (
    "image_grid_pinpoints",
    "crop_to_patches",
    "do_image_splitting",
    "do_pan_and_scan",
    "max_image_tiles",
)


def hide_broken_torchvision() -> None:
    """Make an installed torchvision that cannot be imported count as absent.

    Beside a CPU build of torch, torchvision installs and then fails at import; transformers only looks
    whether it is installed, and would fail with it.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # type: ignore[import-not-found,unused-ignore] # noqa: F401
    except Exception:  # noqa: BLE001 - whatever it is, it cannot be used
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]
        remembered: Any = transformers.utils.import_utils.is_torchvision_available
        getattr(remembered, "cache_clear", lambda: None)()


def load_processor(checkpoint: Checkpoint, config: Any, *, trust_remote_code: bool) -> Any:
    """Return the checkpoint's processor. Raises ModelNotFound naming missing files, or a LoadError."""
    _require_files(checkpoint)
    folder = str(checkpoint.folder)
    options = {"trust_remote_code": trust_remote_code, "local_files_only": not trust_remote_code}
    try:
        processor = _load(folder, config, options)
    except VLMError:
        raise
    except Exception as error:  # noqa: BLE001 - a bad file shows in many ways
        if "trust_remote_code" in str(error):
            raise needs_code(checkpoint.name) from None
        if package := next((name for name in PACKAGES if name in str(error).lower()), None):
            raise MissingDependency(
                f"the processor of {checkpoint.name} needs {package}: pip install {PACKAGES[package]}"
            ) from None
        raise LoadError(f"the processor of {checkpoint.name} cannot be loaded: {first_line(error)}") from None
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ModelNotFound(
            f"{checkpoint.name} has no complete processor (image processor and tokenizer); save them into "
            "the folder, or name a checkpoint that has them with processor=..."
        )
    return processor


def _load(folder: str, config: Any, options: dict[str, Any]) -> Any:
    auto: Any = transformers.AutoProcessor
    try:
        return auto.from_pretrained(folder, **options)
    except (ImportError, TypeError, ValueError, OSError) as error:
        # Without torchvision no video processor can be made, and most processors ask for one.
        if "video" not in str(error).lower() and "torchvision" not in str(error).lower():
            raise
        return _without_video(folder, config, options)


def _without_video(folder: str, config: Any, options: dict[str, Any]) -> Any:
    known: Any = transformers.PROCESSOR_MAPPING
    if type(config) not in known:  # the model has code of its own, and the processor comes from elsewhere
        config = transformers.AutoConfig.from_pretrained(folder, **options)
    base: Any = known[type(config)]

    processor = images_only(base).from_pretrained(folder, **options)
    processor.video_processor = None
    return processor


def images_only(base: Any) -> Any:
    """Return the processor class ``base`` for images and text; its video processor is None."""

    class ImagesOnly(base):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in base.get_attributes() if name != "video_processor"]

        @classmethod
        def from_args_and_dict(cls, args: list[Any], *others: Any, **kwargs: Any) -> Any:
            names = list(inspect.signature(base.__init__).parameters)[1:]
            if "video_processor" in names:  # some processors have no default for it
                args.insert(names.index("video_processor"), None)
            return super().from_args_and_dict(args, *others, **kwargs)

        def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
            # the plain way: SmolVLM's own asks its video processor, whatever the messages hold
            return transformers.ProcessorMixin.apply_chat_template(self, *args, **kwargs)

    ImagesOnly.__name__ = base.__name__
    ImagesOnly.__module__ = base.__module__
    return ImagesOnly


def _require_files(checkpoint: Checkpoint) -> None:
    wanted = {"a tokenizer": TOKENIZER_FILES, "an image processor": IMAGE_FILES}
    missing = [
        f"{what} ({' or '.join(files[:2])})"
        for what, files in wanted.items()
        if not any(name in checkpoint.sizes for name in files)
    ]
    if missing:
        raise ModelNotFound(
            f"{checkpoint.name} lacks {' and '.join(missing)}. Save the processor of the original model "
            "into the folder, or name a checkpoint that has it with processor=..."
        )


def chosen_template(processor: Any, asked: str | None) -> str | None:
    """The chat template to use: ``asked`` is a template, the path of one, or a name in the checkpoint.

    None is the checkpoint's own ("default" of several). Raises OptionError, also for what is no Jinja.
    """
    own = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    named: Mapping[str, str] = own if isinstance(own, Mapping) else {}
    if asked is None:
        return named.get("default", next(iter(named.values()), None)) if named else own
    if asked in named:
        return named[asked]
    if "{{" in asked or "{%" in asked:
        return _jinja(asked)
    path = Path(asked).expanduser()
    if path.is_file():
        return _jinja(path.read_text(encoding="utf-8"))
    has = f"this checkpoint's are: {', '.join(named)}" if named else "this checkpoint has no named ones"
    raise OptionError(f"chat_template={asked!r} is no template, no file and no name; {has}.")


def _jinja(template: str) -> str:
    """The template, read once as transformers reads it: later it would fail every question."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    compile_template: Any = _compile_jinja_template
    try:
        compile_template(template)
    except Exception as error:  # noqa: BLE001 - whatever Jinja says of it
        raise OptionError(f"chat_template=: {type(error).__name__}: {error}") from None
    return template


def image_facts(processor: Any) -> dict[str, Any]:
    """What the image processor says about sizes: ``min_pixels``, ``max_pixels``, ``patch``, ``image_size``.

    ``patch`` is the step of both sides (patch size × merge size); ``image_size`` is (width, height) of a
    model that takes one size. Absent facts are left out.
    """
    images = processor.image_processor
    size = _plain(getattr(images, "size", None))
    patch, merge = getattr(images, "patch_size", None), getattr(images, "merge_size", None)
    facts: dict[str, Any] = {}
    if isinstance(patch, int) and isinstance(merge, int):
        facts["patch"] = patch * merge
        facts["min_pixels"] = getattr(images, "min_pixels", None) or size.get("shortest_edge")
        facts["max_pixels"] = getattr(images, "max_pixels", None) or size.get("longest_edge")
        return {key: value for key, value in facts.items() if value}
    tiles = getattr(images, "max_patches", None)
    if isinstance(tiles, int) and {"height", "width"} <= set(size):  # tiles of one size, as many as fit
        wide, high = int(size["width"]), int(size["height"])
        return {"image_size": (wide, high), "max_pixels": tiles * wide * high}
    if any(getattr(images, name, None) for name in TILING):
        return facts  # it cuts images up: no size is fixed
    crop = _plain(getattr(images, "crop_size", None)) if getattr(images, "do_center_crop", False) else {}
    fixed = crop if {"height", "width"} <= set(crop) else size
    if {"height", "width"} <= set(fixed):
        facts["image_size"] = (int(fixed["width"]), int(fixed["height"]))
    return facts


def _plain(size: Any) -> dict[str, Any]:
    """An image processor's size as a dict of its set values."""
    if size is None:
        return {}
    values = (
        dict(size) if isinstance(size, Mapping) else dict(vars(size)) if hasattr(size, "__dict__") else {}
    )
    return {key: value for key, value in values.items() if value is not None}
