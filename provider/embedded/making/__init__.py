"""How the embedded model was made: its corpus, tokenizer, training and evaluation."""
