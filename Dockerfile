# syntax=docker/dockerfile:1
# Two stages: the first builds a virtual environment from the hash-pinned lock, the second carries that and nothing else.
FROM python:3.12.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY locks/runtime.txt locks/runtime.txt
RUN python -m venv /opt/nightbell && /opt/nightbell/bin/pip install --require-hashes -r locks/runtime.txt
COPY . .
RUN python -m pip install build hatchling && python -m build --wheel --no-isolation \
    && /opt/nightbell/bin/pip install --no-deps dist/*.whl

FROM python:3.12.11-slim-bookworm
LABEL org.opencontainers.image.title="Nightbell" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --home-dir /data --create-home nightbell
COPY --from=build /opt/nightbell /opt/nightbell
ENV PATH=/opt/nightbell/bin:$PATH PYTHONUNBUFFERED=1 NIGHTBELL_DATA_DIR=/data NIGHTBELL_LOG_FORMAT=json \
    NIGHTBELL_INGEST_BIND=0.0.0.0:8080 NIGHTBELL_API_BIND=0.0.0.0:8081
USER 10001
VOLUME ["/data"]
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8081/livez', timeout=2)"]
ENTRYPOINT ["nightbell"]
CMD ["serve", "all"]
