"""The parts of the transformers engine, from files to tokens.

``hub`` finds or downloads a checkpoint's files, ``config`` and ``processor`` read them, ``memory`` and
``quantization`` decide how they fit, ``loading`` builds the model, ``encoding`` turns a request into tensors,
``batching`` puts requests together, ``sampling`` chooses tokens, ``decoding`` turns them into text, and
``generation`` runs one batch. ``engines.transformers`` drives them all.
"""
