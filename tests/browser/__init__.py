"""Tests in a real browser against real JupyterLab 4 and Notebook 7 (``make test-browser``)."""
