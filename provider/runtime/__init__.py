"""The imports of mlx, mlx-lm, mlx-vlm and transformers, in the right order."""
