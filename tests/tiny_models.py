"""Tiny random checkpoints of real model classes, with real processors: nothing is downloaded.

``make_tiny("llava", folder)`` saves a folder that ``AutoModelForImageTextToText.from_pretrained`` and the
transformers engine load: config, safetensors weights, tokenizer, image processor, processor config and chat
template. ``load_tiny(folder)`` loads it again without torchvision. ``TINY`` names the model types.

The tokenizer is one byte a token plus the family's special tokens. Templates have the shape of the published
ones: roles, where the image stands, how the assistant's turn opens. Molmo2 and Mistral 3 are missing: there
is no processor of theirs without torchvision. SmolVLM's needs num2words.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from examples.tiny_models.recipe import chatml, template
from vlm_nb.engines.hf.processor import images_only

HIDDEN = 32
Builder = Callable[[Path], None]


def byte_tokenizer(specials: tuple[str, ...], **names: Any) -> PreTrainedTokenizerFast:
    """One token a byte, then ``specials``; ``names`` are bos_token, eos_token, … and image tokens by name."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)


def save(config: Any, tokenizer: Any, processor: Any, folder: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)


def load_tiny(folder: Path) -> tuple[Any, Any]:
    """Return (model, processor) of a saved folder."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    name = json.loads((folder / "processor_config.json").read_text())["processor_class"]
    base = getattr(transformers, name)
    takes_video = "video_processor" in base.get_attributes()
    return model, (images_only(base) if takes_video else base).from_pretrained(folder)


def decoder(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """Settings of a two-layer text model."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def tower(size: int, patch: int = 14, **more: Any) -> dict[str, Any]:
    """Settings of a two-layer vision tower for square images of ``size`` pixels."""
    return {
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": size,
        "patch_size": patch,
        **more,
    }


# Qwen ---------------------------------------------------------------------------------------------------

QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    *("<|video_pad|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(QWEN, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    tokenizer.chat_template = chatml(QWEN_IMAGE)
    return tokenizer


def qwen_ids(tokenizer: Any) -> dict[str, int]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def qwen_processor(name: str, tokenizer: Any, patch: int) -> Any:
    images = transformers.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * patch**2, "longest_edge": 256 * patch**2}, patch_size=patch
    )
    base = images_only(getattr(transformers, name))
    return base(images, tokenizer, chat_template=tokenizer.chat_template)


def rope(sections: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections, **more}


def make_qwen2_vl(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    config = transformers.Qwen2VLConfig(
        text_config=decoder(tokenizer, rope_parameters=rope([2, 1, 1])),
        vision_config={"depth": 2, "embed_dim": HIDDEN, "hidden_size": HIDDEN, "num_heads": 2},
        **qwen_ids(tokenizer),
    )
    save(config, tokenizer, qwen_processor("Qwen2VLProcessor", tokenizer, 14), folder)


def make_qwen2_5_vl(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    vision = {
        "depth": 2, "hidden_size": HIDDEN, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": HIDDEN,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = transformers.Qwen2_5_VLConfig(
        text_config=decoder(tokenizer, rope_parameters=rope([2, 1, 1])),
        vision_config=vision,
        **qwen_ids(tokenizer),
    )
    save(config, tokenizer, qwen_processor("Qwen2_5_VLProcessor", tokenizer, 14), folder)


QWEN3_VISION = {
    "depth": 2, "hidden_size": HIDDEN, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": HIDDEN,
    "num_position_embeddings": 64,
}  # fmt: skip


def make_qwen3_vl(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    config = transformers.Qwen3VLConfig(
        text_config=decoder(tokenizer, head_dim=8, rope_parameters=rope([2, 1, 1], mrope_interleaved=True)),
        vision_config={**QWEN3_VISION, "deepstack_visual_indexes": [0]},
        **qwen_ids(tokenizer),
    )
    save(config, tokenizer, qwen_processor("Qwen3VLProcessor", tokenizer, 16), folder)


def make_qwen3_vl_moe(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    config = transformers.Qwen3VLMoeConfig(
        text_config=decoder(tokenizer, **experts, rope_parameters=rope([2, 1, 1], mrope_interleaved=True)),
        vision_config={**QWEN3_VISION, "deepstack_visual_indexes": [0]},
        **qwen_ids(tokenizer),
    )
    save(config, tokenizer, qwen_processor("Qwen3VLProcessor", tokenizer, 16), folder)


def make_qwen3_5(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    linear = {
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "head_dim": 32,
        "layer_types": ["linear_attention", "full_attention"],
    }  # fmt: skip
    parameters = rope([2, 1, 1], mrope_interleaved=True, partial_rotary_factor=0.25)
    config = transformers.Qwen3_5Config(
        text_config=decoder(tokenizer, **linear, rope_parameters=parameters),
        vision_config=QWEN3_VISION,
        **qwen_ids(tokenizer),
    )
    save(config, tokenizer, qwen_processor("Qwen3VLProcessor", tokenizer, 16), folder)


# InternVL -----------------------------------------------------------------------------------------------


def make_internvl(folder: Path) -> None:
    specials = (
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        *("<ref>", "</ref>", "<box>", "</box>"),
    )
    named = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tokenizer = byte_tokenizer(
        specials, pad_token="<|endoftext|>", eos_token="<|im_end|>", extra_special_tokens=named
    )
    tokenizer.chat_template = chatml("<IMG_CONTEXT>\\n")
    images = transformers.GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=4)
    processor = images_only(transformers.InternVLProcessor)(
        images, tokenizer, image_seq_length=4, chat_template=tokenizer.chat_template
    )
    config = transformers.InternVLConfig(
        text_config={"model_type": "qwen2", **decoder(tokenizer)},
        vision_config=tower(56) | {"image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    save(config, tokenizer, processor, folder)


# LLaVA --------------------------------------------------------------------------------------------------


def llava_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(
        ("<s>", "</s>", "<pad>", "<image>"), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = template("ROLE: ", "<image>\\n", " ", "ASSISTANT:", "message['role'] | upper")
    return tokenizer


def llava_config(base: Any, tokenizer: Any, **more: Any) -> Any:
    return base(
        text_config={"model_type": "llama", **decoder(tokenizer)},
        vision_config={"model_type": "clip_vision_model", **tower(56)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        **more,
    )


def llava_options(tokenizer: Any) -> dict[str, Any]:
    return {
        "patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
        "chat_template": tokenizer.chat_template,
    }  # fmt: skip


def make_llava(folder: Path) -> None:
    tokenizer = llava_tokenizer()
    images = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    processor = transformers.LlavaProcessor(images, tokenizer, **llava_options(tokenizer))
    save(llava_config(transformers.LlavaConfig, tokenizer), tokenizer, processor, folder)


def make_llava_next(folder: Path) -> None:
    tokenizer = llava_tokenizer()
    grid = [[56, 112], [112, 56], [112, 112]]
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=grid
    )
    processor = transformers.LlavaNextProcessor(images, tokenizer, **llava_options(tokenizer))
    config = llava_config(transformers.LlavaNextConfig, tokenizer, image_grid_pinpoints=grid)
    save(config, tokenizer, processor, folder)


# Google -------------------------------------------------------------------------------------------------


def make_paligemma(folder: Path) -> None:
    tokenizer = byte_tokenizer(
        ("<pad>", "<eos>", "<bos>"), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    images = transformers.SiglipImageProcessorPil(size={"height": 56, "width": 56})
    images.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(images, tokenizer)
    config = transformers.PaliGemmaConfig(
        text_config={"model_type": "gemma", **decoder(tokenizer, head_dim=8)},
        vision_config={"model_type": "siglip_vision_model", **tower(56), "projection_dim": HIDDEN},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
    )
    save(config, tokenizer, processor, folder)


def make_gemma3(folder: Path) -> None:
    specials = (
        *("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    )
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = byte_tokenizer(
        specials, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", extra_special_tokens=named
    )
    tokenizer.chat_template = template(
        "<start_of_turn>ROLE\\n", "<start_of_image>", "<end_of_turn>\\n", "<start_of_turn>model\\n"
    )
    images = transformers.Gemma3ImageProcessorPil(size={"height": 56, "width": 56})
    processor = transformers.Gemma3Processor(
        images, tokenizer, image_seq_length=4, chat_template=tokenizer.chat_template
    )
    ids = tokenizer.convert_tokens_to_ids
    config = transformers.Gemma3Config(
        text_config=decoder(tokenizer, head_dim=8),
        vision_config=tower(56),
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    save(config, tokenizer, processor, folder)


# Microsoft ----------------------------------------------------------------------------------------------


def make_florence2(folder: Path) -> None:
    specials = ("<s>", "<pad>", "</s>", "<unk>", "<image>", *(f"<loc_{i}>" for i in range(1000)))
    tokenizer = byte_tokenizer(
        specials,
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    images = transformers.CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64}, do_center_crop=False
    )
    images.image_seq_length = 5
    processor = transformers.Florence2Processor(images, tokenizer, num_additional_image_tokens=1)
    text = {
        "vocab_size": len(tokenizer), "d_model": HIDDEN, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "max_position_embeddings": 512, "bos_token_id": 256, "pad_token_id": 257, "eos_token_id": 258,
        "decoder_start_token_id": 258, "forced_eos_token_id": 258,
    }  # fmt: skip
    vision = {
        "depths": [1, 1, 1, 1], "embed_dim": [8, 16, 16, 16], "num_heads": [1, 2, 2, 2],
        "num_groups": [1, 2, 2, 2], "window_size": 2, "projection_dim": HIDDEN,
    }  # fmt: skip
    config = transformers.Florence2Config(
        text_config={"model_type": "bart", **text},
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    save(config, tokenizer, processor, folder)


def make_kosmos2(folder: Path) -> None:
    specials = ("<s>", "<pad>", "</s>", "<unk>")
    tokenizer = byte_tokenizer(
        specials, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    images = transformers.CLIPImageProcessorPil(
        size={"height": 56, "width": 56}, crop_size={"height": 56, "width": 56}
    )
    processor = transformers.Kosmos2Processor(images, tokenizer)
    config = transformers.Kosmos2Config(
        text_config={
            "vocab_size": len(tokenizer), "embed_dim": HIDDEN, "layers": 2, "ffn_dim": 64,
            "attention_heads": 2,
            "max_position_embeddings": 512, "bos_token_id": 256, "pad_token_id": 257, "eos_token_id": 258,
        },
        vision_config=tower(56),
        latent_query_num=64,
    )  # fmt: skip
    save(config, tokenizer, processor, folder)


# Others -------------------------------------------------------------------------------------------------


def make_glm4v(folder: Path) -> None:
    specials = (
        *(
            "<|endoftext|>",
            "[gMASK]",
            "<sop>",
            "<|user|>",
            "<|assistant|>",
            "<|begin_of_image|>",
            "<|image|>",
        ),
        *("<|end_of_image|>", "<|begin_of_video|>", "<|video|>", "<|end_of_video|>"),
        *("<|begin_of_box|>", "<|end_of_box|>"),
    )
    tokenizer = byte_tokenizer(specials, pad_token="<|endoftext|>", eos_token="<|endoftext|>")
    tokenizer.chat_template = "[gMASK]<sop>" + template(
        "<|ROLE|>\\n", "<|begin_of_image|><|image|><|end_of_image|>", "", "<|assistant|>\\n"
    )
    images = transformers.Glm4vImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 401_408})
    processor = images_only(transformers.Glm4vProcessor)(
        images, tokenizer, chat_template=tokenizer.chat_template
    )
    ids = tokenizer.convert_tokens_to_ids
    vision = {
        "depth": 2, "hidden_size": HIDDEN, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": HIDDEN,
        "image_size": 56,
    }  # fmt: skip
    config = transformers.Glm4vConfig(
        text_config=decoder(tokenizer, rope_parameters=rope([1, 1, 0], partial_rotary_factor=0.5)),
        vision_config=vision,
        image_token_id=ids("<|image|>"),
        video_token_id=ids("<|video|>"),
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        video_start_token_id=ids("<|begin_of_video|>"),
        video_end_token_id=ids("<|end_of_video|>"),
    )
    save(config, tokenizer, processor, folder)


def idefics_tokenizer(bos: str) -> Any:
    """The tokens that mark the tiles of an image, and ``bos`` as the first."""
    rows = tuple(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7))
    marks = ("<end_of_utterance>", "<pad>", "<image>", "<fake_token_around_image>", "<global-img>", *rows)
    tokenizer = byte_tokenizer((bos, *marks), bos_token=bos, eos_token=marks[0], pad_token=marks[1])
    tokenizer.chat_template = template("ROLE: ", "<image>", "<end_of_utterance>\\n", "Assistant:")
    return tokenizer


def idefics_config(kind: Any, tokenizer: Any) -> Any:
    return kind(
        text_config={"model_type": "llama", **decoder(tokenizer)},
        vision_config=tower(56),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_idefics3(folder: Path) -> None:
    tokenizer = idefics_tokenizer("<|begin_of_text|>")
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
    )
    processor = transformers.Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template=tokenizer.chat_template
    )
    save(idefics_config(transformers.Idefics3Config, tokenizer), tokenizer, processor, folder)


def make_smolvlm(folder: Path) -> None:
    tokenizer = idefics_tokenizer("<|im_start|>")
    tokenizer.chat_template = "<|im_start|>" + tokenizer.chat_template
    images = transformers.SmolVLMImageProcessorPil(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
    )
    processor = images_only(transformers.SmolVLMProcessor)(
        images, tokenizer, None, image_seq_len=4, chat_template=tokenizer.chat_template
    )
    save(idefics_config(transformers.SmolVLMConfig, tokenizer), tokenizer, processor, folder)


TINY: dict[str, Builder] = {
    "qwen2_vl": make_qwen2_vl,
    "qwen2_5_vl": make_qwen2_5_vl,
    "qwen3_vl": make_qwen3_vl,
    "qwen3_vl_moe": make_qwen3_vl_moe,
    "qwen3_5": make_qwen3_5,
    "internvl": make_internvl,
    "llava": make_llava,
    "llava_next": make_llava_next,
    "paligemma": make_paligemma,
    "florence2": make_florence2,
    "kosmos-2": make_kosmos2,
    "glm4v": make_glm4v,
    "gemma3": make_gemma3,
    "idefics3": make_idefics3,
    **({"smolvlm": make_smolvlm} if importlib.util.find_spec("num2words") else {}),
}


def make_tiny(model_type: str, folder: Path) -> Path:
    """Save a random checkpoint of ``model_type`` into ``folder`` and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    TINY[model_type](folder)
    return folder
