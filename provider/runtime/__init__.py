"""The imports of mlx, mlx-lm, mlx-vlm and transformers, in the right order."""

from __future__ import annotations

import provider.runtime.mlx  # noqa: F401 - a fast BLAS, before another module here imports mlx
