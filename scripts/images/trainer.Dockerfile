# The trainer, on NVIDIA's base image. From the project's folder:
#
#   docker build --file scripts/images/trainer.Dockerfile --tag hwdb-trainer .
#   docker run --gpus all --volume /shared:/shared hwdb-trainer train --data /shared/hwdb --model_dir /shared/runs/vgg19
#
# CUDA's libraries come with TensorFlow, in the versions it was built with: the image brings what finds the driver.
FROM nvidia/cuda:12.6.3-base-ubuntu24.04
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv libgl1 libglib2.0-0t64 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/hwdb-shards
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY pipeline pipeline
COPY model model
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[train,s3,onnx]' 'tensorflow[and-cuda]'
ENV PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 1001 hwdb
USER hwdb
WORKDIR /home/hwdb
ENTRYPOINT ["hwdb"]
