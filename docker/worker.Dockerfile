# Workers of all kinds: the trainers and the generator load torch, which brings its own CUDA.
FROM python:3.11-slim-trixie AS build
ARG PIP_EXTRA_INDEX_URL=""
ARG PACKAGES=""
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv /opt/shortft
ENV PATH=/opt/shortft/bin:$PATH
# Requirements first: they change less often than the code.
COPY pyproject.toml constraints.txt ./
COPY docker/requirements.py docker/
RUN --mount=type=cache,target=/root/.cache/pip \
    python docker/requirements.py server train > requirements.txt \
    && printf '%s' "$PACKAGES" | tr ' ' '\n' >> requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps .

FROM python:3.11-slim-trixie
# A volume takes the owner of the folder where it is first mounted.
RUN groupadd --gid 10001 shortft \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin shortft \
    && install --directory --owner=10001 --group=10001 --mode=0700 \
        /run/shortft /run/shortft/admin /run/shortft/api /run/shortft/postgres \
        /run/shortft/redis /run/shortft/shared /var/cache/shortft /var/lib/shortft \
        /var/lib/shortft/objects /var/lib/shortft/work /models
COPY --from=build /opt/shortft /opt/shortft
ENV PATH=/opt/shortft/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/shortft
USER 10001:10001
CMD ["python", "-m", "worker", "default"]
