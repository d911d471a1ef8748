"""What is imported of mlx, mlx-lm and transformers, in the right order."""
