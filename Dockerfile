# The API in a container, not as root:
#
#   docker build -t vglm .
#   docker build -t vglm --build-arg TORCH_INDEX=<URL> .     <URL>: the wheel index that PyTorch's "Get started" page names
#                                                            for the CPU or your CUDA version; without it pip's own choice
#   docker run --rm -p 127.0.0.1:8080:8080 vglm              add --gpus all for CUDA
ARG PYTHON=3.11-slim
FROM python:${PYTHON}

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

RUN groupadd --gid 10001 vglm && useradd --uid 10001 --gid vglm --create-home vglm

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} -e ".[serve]"
COPY conf conf
COPY data/visualglm_tiny data/visualglm_tiny

USER 10001:10001
ENV VGLM_CACHE=/tmp/vglm
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "vglm"]
CMD ["api", "--host", "0.0.0.0"]
