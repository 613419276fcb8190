"""What ``%vlm`` alone prints."""

GUIDE = """\
vlm_nb: ask images questions.

  %vlm load Qwen/Qwen2.5-VL-3B-Instruct --quantization 4bit
                                    load a model (without one, a small demo model answers)
  %vqa photo.jpg What is this?      one question; %%vqa takes it from the cell's body
  %ground photo.jpg the red car     find it and draw its box; without a phrase, find everything
  %caption photo.jpg                describe it
  %caption photos/                  a folder, glob or list gives a table
  df.vlm.ask("What is shown?")      a DataFrame of images

  -o NAME keeps the result          {{name}} inserts a variable        --together: one prompt, many images
  --max_new_tokens 64, --temperature 0.7, … set how to generate        --model NAME picks a loaded model

  %vlm status · use · unload · models · config · reproduce · doctor · explore
  %vqa? and %vlm? say more."""
