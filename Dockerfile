# mlx-gateway on a CPU. A Mac's GPU can't be used from a container.
FROM python:3.13-slim-bookworm

# The BLAS that makes mlx fast on a CPU; what the wheel links is thirty times slower.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libopenblas0-pthread \
    && rm -rf /var/lib/apt/lists/*

COPY . /source
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --constraint /source/requirements.lock /source \
    && rm -rf /source \
    && useradd --create-home --uid 10001 gateway \
    && install --directory --owner=gateway /home/gateway/.cache

USER 10001
WORKDIR /home/gateway
VOLUME /home/gateway/.cache
EXPOSE 8765
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/healthz')"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["mlx-gateway", "serve", "--host", "0.0.0.0"]
