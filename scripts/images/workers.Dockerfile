# Workers for a conversion on Flink, Spark or Dataflow: Beam's SDK harness with this package. From the project's folder:
#
#   docker build --file scripts/images/workers.Dockerfile --tag hwdb-workers .
#
# --environment_type=DOCKER --environment_config=hwdb-workers starts it for each worker, Dataflow takes it by
# --sdk_container_image; as a pool beside each TaskManager:
#
#   docker run --network host --volume /shared:/shared --entrypoint hwdb hwdb-workers workers --port 50000
FROM apache/beam_python3.12_sdk:2.77.0 AS beam

FROM python:3.12.12-slim-bookworm
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/hwdb-shards
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY pipeline pipeline
RUN pip install --no-cache-dir --constraint constraints.txt '.[s3]'
COPY --from=beam /opt/apache/beam /opt/apache/beam
# Beam's start would otherwise make an environment of its own, as root.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
RUN useradd --create-home --uid 1000 hwdb
USER hwdb
ENTRYPOINT ["/opt/apache/beam/boot"]
