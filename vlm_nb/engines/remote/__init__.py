"""The parts of the ``openai`` engine: where a server is, what it is sent, what its errors mean, how fast."""
