"""Models in the GGUF format of llama.cpp: one file with shape, tokenizer, template and weights."""
