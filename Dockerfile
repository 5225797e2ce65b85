# streamkit as a container: the wheel in a virtual environment, without pip or a compiler, as a user without rights.
# Every step of the first stage is run by tests/integration/test_dockerfile.py: keep to $VARIABLES and relative paths.

FROM python:3.12-slim AS build

ENV VIRTUAL_ENV=/opt/streamkit
ENV WHEELS=/wheels
WORKDIR /source
COPY pyproject.toml README.md ./
COPY streamkit ./streamkit
RUN python -m pip wheel --quiet --no-deps --wheel-dir "$WHEELS" .
RUN python -m venv --without-pip "$VIRTUAL_ENV"
RUN python -m pip --python "$VIRTUAL_ENV/bin/python" install --quiet --only-binary :all: "$WHEELS"/*.whl

FROM python:3.12-slim

ENV VIRTUAL_ENV=/opt/streamkit
ENV PATH=$VIRTUAL_ENV/bin:$PATH
ENV PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --no-create-home streamkit \
    && install --directory --owner streamkit /var/lib/streamkit
COPY --from=build /opt/streamkit /opt/streamkit
# Jobs are mounted below it: `streamkit run jobs.word_count` looks here first.
WORKDIR /work
VOLUME /var/lib/streamkit
USER streamkit
ENTRYPOINT ["streamkit"]
CMD ["--help"]
