"""One thread that owns MLX, and the runs that share its batches."""
