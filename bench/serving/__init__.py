"""Serving: this project's Triton and what people would use instead, with the same model files."""
