import provider.runtime.mlx  # noqa: F401 - a fast BLAS, before anything that imports mlx
