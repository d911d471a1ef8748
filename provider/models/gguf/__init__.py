"""GGUF files of llama.cpp: one file is a whole model."""
